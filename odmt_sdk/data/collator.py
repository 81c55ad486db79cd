"""Collates examples of different lengths into batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class SequenceCollator:
    """Collates examples of a `SequenceDataset` or `RankingDataset` into a batch.

    Item sequences are left-padded with 0 to the longest sequence of the batch, so the latest item
    is always at the last position. Zeros in a sequence are padding too. The collator is stateless.
    It can be used in the worker processes of a `DataLoader` and as the `data_collator` of
    `transformers.Trainer`.

    Examples:
        >>> batch = SequenceCollator()([{"item_ids": [4, 5]}, {"item_ids": [6]}])
        >>> batch["item_ids"].tolist(), batch["attention_mask"].tolist()
        ([[4, 5], [0, 6]], [[1, 1], [0, 1]])
    """

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate B examples.

        Args:
            examples: dicts with `item_ids`, 1-D item rows, oldest first; optionally also
                `target_ids`, a single row, and `seen_ids`, 1-D rows.

        Returns:
            `item_ids` (B, L) and `attention_mask` (B, L), 1 = real item, both int64, where L is
            the length of the longest sequence. If the examples have them, also `target_ids` (B,)
            and `seen_ids` (B, M), padded with 0.

        Raises:
            ValueError: if the examples have no `item_ids`.
        """
        if "item_ids" not in examples[0]:
            raise ValueError(
                "the examples have no 'item_ids', only "
                f"{', '.join(map(repr, examples[0])) or 'nothing'}; if transformers.Trainer took "
                "them away, pass remove_unused_columns=False in its TrainingArguments"
            )
        sequences = _tensors(examples, "item_ids")
        item_ids = pad_sequence(sequences, batch_first=True, padding_side="left")  # (B, L)
        batch = {"item_ids": item_ids, "attention_mask": (item_ids != 0).long()}
        if "target_ids" in examples[0]:
            batch["target_ids"] = torch.tensor([int(example["target_ids"]) for example in examples])
        if "seen_ids" in examples[0]:
            batch["seen_ids"] = pad_sequence(_tensors(examples, "seen_ids"), batch_first=True)
        return batch


def _tensors(examples: Sequence[Mapping[str, Any]], key: str) -> list[Tensor]:
    return [torch.as_tensor(example[key], dtype=torch.int64) for example in examples]

"""A text encoder that is trained with the model."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from odmt_sdk.features.extraction.pretrained_encoders import Encoder, Precision
from odmt_sdk.features.extraction.text_tokens import TextExtractor, TextInput, TextPooling
from odmt_sdk.features.trainable.encoder import TrainableEncoder
from odmt_sdk.features.trainable.frozen_layers import FrozenLayers
from odmt_sdk.tables import Table

if TYPE_CHECKING:
    from peft import LoraConfig


class TrainableText(TrainableEncoder):
    """A text encoder that is trained with the model: `ODMTWrapper(..., encoders={"text": ...})`.

    In every step, the texts of the distinct items in the batch are encoded, and gradients flow to
    LoRA layers in the encoder. The encoder is copied and stays frozen. Encoder and settings must be
    the ones with which the model's text features were extracted. Create one instance per model.

    Args:
        encoder: folder or Hub name of a text model, a pair (model, tokenizer), or a
            `SentenceTransformer`.
        items: table with the texts of the model's items, and optionally of other items; see
            `ItemFeatures.from_items`.
        text: name of the column of texts.
        item_id: name of the column of item ids.
        lora: `peft.LoraConfig`, which selects the layers to train; None = rank 8 and alpha 16 in
            every linear layer of a transformers model.
        max_tokens: `max_text_tokens` of `from_items`.
        pooling: `text_pooling` of `from_items`.
        pooled_only: `text_pooled_only` of `from_items`.
        batch_size: texts encoded at once; texts of similar length share a batch.
        precision: dtype to compute in: "float32", "bfloat16", or "auto" for bfloat16 if the device
            supports it natively. The LoRA weights are float32.
        keep_frozen_layers: whether to compute the layers below the first LoRA layer only once for
            each text, and to keep their output in main memory: one vector of float32 a token.
        encoding: encoding of the text file `items`.
        csv_options: format of the .csv or .tsv file `items`.

    Raises:
        ImportError: if PEFT is not installed (`pip install odmt-sdk[peft]`).
        ValueError: if LoRA finds no layer to change, a column is missing, no item has a text, a
            setting is out of range, or no layers are below those of LoRA with `keep_frozen_layers`.
        OSError: if the encoder cannot be loaded.

    Source: LoRA, Hu et al. 2022, https://arxiv.org/abs/2106.09685.

    Examples:
        >>> text = TrainableText("all-MiniLM-L6-v2", "items.parquet")        # doctest: +SKIP
        >>> model = ODMTWrapper(SASRec(64), features, encoders={"text": text})  # doctest: +SKIP
    """

    _frozen_layers: FrozenLayers | None = None

    def __init__(
        self,
        encoder: Encoder,
        items: Table,
        *,
        text: str = "text",
        item_id: str = "item_id",
        lora: "LoraConfig | None" = None,
        max_tokens: int = 30,
        pooling: TextPooling = "first",
        pooled_only: bool = False,
        batch_size: int = 64,
        precision: Precision = "auto",
        keep_frozen_layers: bool = False,
        encoding: str = "utf-8",
        csv_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            "text",
            encoder,
            items,
            column=text,
            item_id=item_id,
            lora=lora,
            precision=precision,
            options={
                "max_tokens": max_tokens,
                "pooling": pooling,
                "pooled_only": pooled_only,
                "batch_size": batch_size,
            },
            encoding=encoding,
            csv_options=csv_options,
        )
        extractor = cast(TextExtractor, self._extractor)
        extractor.check_first_token(max(self._inputs.values(), key=self._size))
        if keep_frozen_layers:
            self._frozen_layers = FrozenLayers(self.model)
            with torch.no_grad():
                self._encode([next(iter(self._inputs))])  # says whether it can keep them

    def _size(self, value: TextInput) -> int:
        return len(value[0])

    def _encode(self, positions: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        encode = functools.partial(super()._encode, positions)
        if self._frozen_layers is None:
            return encode()
        return self._frozen_layers.run(positions, encode)

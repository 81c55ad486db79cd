"""Models of sentence-transformers as text encoders: their sentence embedding, and their tokens."""

import os
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from odmt_sdk.items.encoders import Encoder, LoadedEncoder, best_device, placed


class SentenceModel(nn.Module):
    """Calls a `SentenceTransformer` on token ids, as a transformers model is called.

    Args:
        model: the `SentenceTransformer`.

    Examples:
        >>> from sentence_transformers import SentenceTransformer            # doctest: +SKIP
        >>> encoder = SentenceModel(SentenceTransformer("all-MiniLM-L6-v2")) # doctest: +SKIP
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: torch.Tensor) -> Any:
        """Encode a batch.

        Args:
            **batch: `input_ids`, `attention_mask`, ... as its tokenizer makes them.

        Returns:
            `last_hidden_state` (b, T, d) and `sentence_embedding` (b, d').
        """
        output = self.model(dict(batch))
        return SimpleNamespace(
            last_hidden_state=output["token_embeddings"],
            sentence_embedding=output["sentence_embedding"],
        )


class _PromptedTokenizer:
    """A tokenizer that puts the model's default prompt in front of every text."""

    def __init__(self, model: Any) -> None:
        self.tokenizer = model.tokenizer
        self.prompt = (model.prompts or {}).get(model.default_prompt_name, "")
        limits = (getattr(model, "max_seq_length", None), self.tokenizer.model_max_length)
        self.model_max_length = min(limit for limit in limits if limit)
        self.pad_token_id = self.tokenizer.pad_token_id

    def __call__(self, texts: list[str], **settings: Any) -> Any:
        return self.tokenizer([self.prompt + text for text in texts], **settings)

    def num_special_tokens_to_add(self) -> int:
        return self.tokenizer.num_special_tokens_to_add()  # type: ignore[no-any-return]

    def get_vocab(self) -> dict[str, int]:
        return {**self.tokenizer.get_vocab(), self.prompt: -1}


def is_sentence_model(encoder: object) -> bool:
    """Tell whether this is a `SentenceTransformer`, without importing the library."""
    return any(
        cls.__module__.partition(".")[0] == "sentence_transformers" and isinstance(encoder, cls)
        for cls in type(encoder).__mro__
    )


def load_sentence_model(
    encoder: Encoder, device: torch.device | str | None = None
) -> LoadedEncoder:
    """Load a model of sentence-transformers, or take the user's.

    Args:
        encoder: a folder, a name on the Hugging Face Hub, or a `SentenceTransformer`.
        device: where to run; None = an accelerator if there is one, for a model where it is.

    Returns:
        The model to call, its tokenizer and its name.

    Raises:
        ImportError: if sentence-transformers is missing.
        TypeError: if the encoder is none of the above.
        OSError: if the name leads to no model.
    """
    if isinstance(encoder, str | os.PathLike):
        name = os.fspath(encoder)
        encoder = _load_by_name(name, best_device() if device is None else torch.device(device))
        encoder = placed(encoder, None)  # half precision is slow on the CPU
        return LoadedEncoder(SentenceModel(encoder), _PromptedTokenizer(encoder), name, None)
    if not is_sentence_model(encoder) or not isinstance(encoder, nn.Module):
        raise TypeError(
            f"pooling is 'sentence', but the encoder is {type(encoder).__name__}: give a "
            "SentenceTransformer, or the name of one"
        )
    config = getattr(getattr(encoder[0], "auto_model", None), "config", None)  # type: ignore[index]
    name = getattr(config, "_name_or_path", "") or type(encoder).__name__
    revision = getattr(config, "_commit_hash", None)
    model = placed(encoder, device)
    return LoadedEncoder(SentenceModel(model), _PromptedTokenizer(encoder), name, revision)


def _load_by_name(name: str, device: torch.device) -> nn.Module:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            "pooling='sentence' needs sentence-transformers: "
            "pip install odmt-sdk[sentence-transformers]"
        ) from error
    try:
        model: nn.Module = SentenceTransformer(name, device=str(device))
    except (OSError, ValueError, KeyError) as error:
        raise OSError(
            f"{name!r} cannot be loaded as a model of sentence-transformers: {error}"
        ) from error
    return model

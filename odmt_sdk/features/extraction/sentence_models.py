"""sentence-transformers models as text encoders, with sentence embedding and tokens."""

import os
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from odmt_sdk.errors import missing_library
from odmt_sdk.features.extraction.pretrained_encoders import (
    Encoder,
    LoadedEncoder,
    best_device,
    placed,
)


class SentenceModel(nn.Module):
    """Wraps a `SentenceTransformer` so that it can be called like a transformers model.

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
            **batch: `input_ids`, `attention_mask`, ... as returned by its tokenizer.

        Returns:
            `last_hidden_state` (b, T, d) and `sentence_embedding` (b, d').
        """
        output = self.model(dict(batch))
        return SimpleNamespace(
            last_hidden_state=output["token_embeddings"],
            sentence_embedding=output["sentence_embedding"],
        )


class _PromptedTokenizer:
    """A tokenizer that prepends the model's default prompt to every text."""

    def __init__(self, model: Any) -> None:
        self.tokenizer = model.tokenizer
        self.prompt = (model.prompts or {}).get(model.default_prompt_name, "")
        limits = (getattr(model, "max_seq_length", None), self.tokenizer.model_max_length)
        self.model_max_length = min(limit for limit in limits if limit)
        self.pad_token_id = self.tokenizer.pad_token_id

    def __call__(self, texts: list[str], **settings: Any) -> Any:
        return self.tokenizer([self.prompt + text for text in texts], **settings)

    def num_special_tokens_to_add(self) -> int:
        return int(self.tokenizer.num_special_tokens_to_add())

    def get_vocab(self) -> dict[str, int]:
        return {**self.tokenizer.get_vocab(), self.prompt: -1}


def is_sentence_model(encoder: object) -> bool:
    """Check for a `SentenceTransformer` without importing the library."""
    return any(
        cls.__module__.partition(".")[0] == "sentence_transformers" and isinstance(encoder, cls)
        for cls in type(encoder).__mro__
    )


def load_sentence_model(
    encoder: Encoder, device: torch.device | str | None = None
) -> LoadedEncoder:
    """Load a sentence-transformers model, or accept a loaded one.

    Args:
        encoder: a folder, a name on the Hugging Face Hub, or a `SentenceTransformer`.
        device: where to run; None = an accelerator if available, or the current device of a
            loaded model.

    Returns:
        The model to call, its tokenizer and its name.

    Raises:
        ImportError: if sentence-transformers is not installed.
        TypeError: if the encoder is none of the above.
        OSError: if no model is found under that name.
    """
    if isinstance(encoder, str | os.PathLike):
        name = os.path.expanduser(os.fspath(encoder))
        encoder = _load_by_name(name, best_device() if device is None else torch.device(device))
        encoder = placed(encoder, None)  # half precision is slow on the CPU
        return LoadedEncoder(SentenceModel(encoder), _PromptedTokenizer(encoder), name, None)
    if not is_sentence_model(encoder) or not isinstance(encoder, nn.Module):
        raise TypeError(
            f"pooling is 'sentence', but the encoder is {type(encoder).__name__}: give a "
            "SentenceTransformer, or the name of one"
        )
    parts: Any = encoder  # a SentenceTransformer is a sequence of modules
    config = getattr(getattr(parts[0], "auto_model", None), "config", None)
    name = getattr(config, "_name_or_path", "") or type(encoder).__name__
    revision = getattr(config, "_commit_hash", None)
    model = placed(encoder, device)
    return LoadedEncoder(SentenceModel(model), _PromptedTokenizer(encoder), name, revision)


def _load_by_name(name: str, device: torch.device) -> nn.Module:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        purpose = "pooling='sentence' needs sentence-transformers"
        raise missing_library(purpose, error, "sentence-transformers") from error
    try:
        model: nn.Module = SentenceTransformer(name, device=str(device))
    except (OSError, ValueError, KeyError) as error:
        raise OSError(
            f"{name!r} cannot be loaded as a sentence-transformers model: {error}"
        ) from error
    return model

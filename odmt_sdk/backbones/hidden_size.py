"""Finding the width of the embeddings that a backbone reads and returns."""

import torch
from torch import nn

from odmt_sdk.backbones.adapter import BackboneAdapter

NAMES = ("hidden_size", "d_model", "embed_dim", "embedding_size", "n_embd", "hidden_dim", "dim")
TRIED_WIDTHS = 32


def infer_hidden_size(backbone: nn.Module) -> int:
    """Find the hidden size D of a backbone.

    A usual attribute of the backbone or of its `config` says it, if a tiny batch of that width
    passes; otherwise the widths found among its parameters' shapes are tried on a tiny batch.

    Args:
        backbone: a module `(inputs_embeds (B, L, D), attention_mask (B, L)) -> (B, L, D)`.

    Returns:
        D.

    Raises:
        ValueError: if no width passes, or several do; the way out is `hidden_size=`.
    """
    stated = getattr(backbone, "hidden_size", None)
    if isinstance(backbone, BackboneAdapter) and stated is not None:
        return int(stated)
    failures: dict[int, Exception] = {}
    for owner in (backbone, getattr(backbone, "config", None)):
        for name in NAMES:
            width = getattr(owner, name, None)
            if isinstance(width, int) and width > 0 and _passes(backbone, width, failures):
                return width
    widths = sorted({size for p in backbone.parameters() for size in p.shape} - {1})
    passing = [width for width in widths[:TRIED_WIDTHS] if _passes(backbone, width, failures)]
    if len(passing) == 1:
        return passing[0]
    if passing:
        raise ValueError(
            f"{type(backbone).__name__} accepts embeddings of several widths ({passing}): "
            "say which one with hidden_size="
        )
    cause = next(iter(failures.values()), None)
    raise ValueError(
        f"could not find the hidden size of {type(backbone).__name__}: none of the widths "
        f"{sorted(failures)} passes through it as (inputs_embeds (B, L, D), attention_mask (B, L)) "
        "-> (B, L, D). Say it with hidden_size=, or check the backbone's forward"
    ) from cause


def _passes(backbone: nn.Module, width: int, failures: dict[int, Exception]) -> bool:
    """Whether a tiny batch of this width comes back in its own shape."""
    first = next(backbone.parameters(), torch.empty(0))
    modes = {module: module.training for module in backbone.modules()}
    embeds = torch.linspace(-1, 1, 2 * 3 * width).reshape(2, 3, width).to(first)
    mask = torch.ones(2, 3, dtype=torch.long, device=first.device)
    backbone.eval()
    try:
        with torch.no_grad():
            hidden = backbone(embeds, mask)
        if isinstance(hidden, torch.Tensor) and hidden.shape == embeds.shape:
            return True
        got = tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else type(hidden).__name__
        failures[width] = TypeError(f"the backbone returned {got} for {tuple(embeds.shape)}")
    except Exception as error:  # whatever the user's model raises on a wrong width
        failures[width] = error
    finally:
        for module, training in modes.items():
            module.training = training
    return False

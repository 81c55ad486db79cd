"""Detection of the input and output width of a backbone."""

from collections.abc import Callable

import torch
from torch import nn

from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.protocol import AdaptedBackbone
from odmt_sdk.backbones.signature.trial import plain, random_embeds, seeded
from odmt_sdk.backbones.undisturbed import tried

NAMES = ("hidden_size", "d_model", "embed_dim", "embedding_size", "n_embd", "hidden_dim", "dim")
TRIED_WIDTHS = 32
TRIED_LENGTH = 3


def find_width(module: nn.Module, returns: Callable[[int], int | None], name: str) -> int | None:
    """Find the input width of a module from its attributes and the shapes of its weights.

    A common attribute of the module or of its `config` is used if the module returns that width
    again. Otherwise the sizes of its weights are tried; widths that the module returns again take
    precedence.

    Args:
        module: the user's module.
        returns: runs the module on embeddings of a given width and returns the output width; None
            if the run fails.
        name: name of the module in error messages.

    Returns:
        The width; None if the module runs at none of them.

    Raises:
        ValueError: if several widths are possible.
    """
    module = plain(module)
    for owner in (module, getattr(module, "config", None)):
        for attribute in NAMES:
            width = getattr(owner, attribute, None)
            if isinstance(width, int) and width > 0 and returns(width) == width:
                return width
    sizes = sorted({size for p in module.parameters() for size in p.shape} - {1})
    returned = {width: returns(width) for width in sizes[:TRIED_WIDTHS]}
    running = [width for width, result in returned.items() if result is not None]
    widths = [width for width in running if returned[width] == width] or running
    if len(widths) > 1:
        raise ValueError(
            f"{name} accepts embeddings of several widths ({widths}): choose one with hidden_size="
        )
    return widths[0] if widths else None


def infer_hidden_size(backbone: AdaptedBackbone) -> int:
    """Find the hidden size D of a backbone.

    Args:
        backbone: a module that follows `SequenceBackbone`.

    Returns:
        D.

    Raises:
        ValueError: if no width or several widths work; the user can then pass `hidden_size=`.
    """
    stated = getattr(backbone, "hidden_size", None)
    if isinstance(backbone, BackboneBridge) and stated is not None:
        return int(stated)
    name = type(plain(backbone)).__name__
    failures: dict[int, Exception] = {}
    limit = getattr(plain(backbone), "max_seq_length", None)
    length = min(TRIED_LENGTH, limit) if isinstance(limit, int) else TRIED_LENGTH

    def returns(width: int) -> int | None:
        embeds = random_embeds(backbone, 2, length, width)
        mask = torch.ones(2, length, dtype=torch.long, device=embeds.device)
        try:
            with torch.no_grad(), seeded(backbone):
                hidden = backbone(embeds, mask)
            if isinstance(hidden, torch.Tensor) and hidden.shape == embeds.shape:
                return width
            got = tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else type(hidden).__name__
            failures[width] = TypeError(f"the backbone returned {got} for {tuple(embeds.shape)}")
        except Exception as error:  # a user's model may raise anything for a wrong width
            failures[width] = error
        return None

    with tried(backbone):
        width = find_width(backbone, returns, name)
    if width is not None:
        return width
    cause = next(iter(failures.values()), None)
    raise ValueError(
        f"could not find the hidden size of {name}: none of the widths "
        f"{sorted(failures)} passes through it as (inputs_embeds (B, L, D), attention_mask (B, L)) "
        "-> (B, L, D). Pass hidden_size=, or check the backbone's forward"
    ) from cause

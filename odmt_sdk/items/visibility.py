"""The ID-aware mask: which token of an item may see which.

Tokens of an item stand as `[modality 1 | modality 2 | ... | ID]`.
Letters: U items, T tokens with the ID token last.
"""

import torch

from odmt_sdk.config import IdVisibility


def id_aware_mask(valid: torch.Tensor, id_visibility: IdVisibility) -> torch.Tensor:
    """Build the attention mask of the multi-modal transformer.

    Valid tokens see all valid tokens; with `id_visibility="one_way"` content tokens do not see the
    ID token, which still sees everything. Every token sees itself, so that a token standing for
    an absent modality has something to attend to although nobody reads it.

    Args:
        valid: boolean (U, T), which tokens exist; the last is the ID token.
        id_visibility: "one_way" or "mutual".

    Returns:
        Boolean (U, T, T): True where the token in the second axis may see the one in the third.

    Source: section 3.2 of the paper, https://arxiv.org/abs/2308.04067.
    """
    num_tokens = valid.shape[1]
    mask = valid[:, None, :].repeat(1, num_tokens, 1)  # (U, T) -> (U, T, T)
    if id_visibility == "one_way":
        mask[:, :-1, -1] = False
    return mask | torch.eye(num_tokens, dtype=torch.bool, device=valid.device)

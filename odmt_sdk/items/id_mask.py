"""The ID-aware mask: which tokens of an item may attend to which.

The tokens of an item are ordered as `[modality 1 | modality 2 | ... | ID]`.
Letters: U items, T tokens with the ID token last.
"""

import torch

from odmt_sdk.config import IdVisibility


def id_aware_mask(valid: torch.Tensor, id_visibility: IdVisibility) -> torch.Tensor:
    """Build the attention mask of the multi-modal transformer.

    Valid tokens attend to all valid tokens. With `id_visibility="one_way"` content tokens do not
    attend to the ID token, which still attends to all tokens. Every token attends to itself, so
    that the token of an absent modality, which no other token reads, has a valid row.

    Args:
        valid: boolean (U, T), True = the token exists; the last one is the ID token.
        id_visibility: "one_way" or "mutual".

    Returns:
        Boolean (U, T, T): True where the token of the second axis may attend to the token of the
        third axis.

    Source: section 3.2 of the paper, https://arxiv.org/abs/2308.04067.
    """
    num_tokens = valid.shape[1]
    mask = valid[:, None, :].repeat(1, num_tokens, 1)  # (U, T) -> (U, T, T)
    if id_visibility == "one_way":
        mask[:, :-1, -1] = False
    return mask | torch.eye(num_tokens, dtype=torch.bool, device=valid.device)

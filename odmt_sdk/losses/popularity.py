"""Log-popularity of items for the logQ correction of in-batch candidates."""

import torch


def log_probability(popularity: torch.Tensor, num_items: int) -> torch.Tensor:
    """Log of each item's share of the training data.

    Args:
        popularity: (N + 1,) counts or probabilities; entry 0 is ignored. An item with 0 counts as
            the rarest item above 0.
        num_items: N.

    Returns:
        (N + 1,) float64 on the CPU; entry 0 (padding) is 0.

    Raises:
        ValueError: if the shape is wrong, a value is negative or not finite, or all are 0.

    Source: Yi et al. 2019, https://doi.org/10.1145/3298689.3346996.
    """
    counts = torch.as_tensor(popularity).detach().to("cpu", torch.float64)
    if counts.shape != (num_items + 1,):
        raise ValueError(
            f"popularity has shape {tuple(counts.shape)}, but {num_items} items need "
            f"({num_items + 1},): one value per row, row 0 is padding"
        )
    counts = counts[1:]
    if not bool(counts.isfinite().all()) or bool((counts < 0).any()) or not bool(counts.any()):
        raise ValueError("popularity must be finite, not negative, and not zero everywhere")
    counts = counts.clamp(min=float(counts[counts > 0].min()))
    return torch.cat([counts.new_zeros(1), (counts / counts.sum()).log()])

"""Item-to-item weights by linear regression: EASE.

Letters: N items, U users.
"""

import numpy as np
import numpy.typing as npt
import torch

from odmt_sdk.data.splits import Split

REGULARIZATION = 10.0
MOST_ITEMS = 10_000  # a matrix of N * N numbers is inverted: 2 GB, 20 s on two cores
MOST_PAIRS = 1_000_000_000  # of items of the same user


def can_regress(split: Split) -> bool:
    """Check whether a split has at most 10,000 items, and not too many pairs.

    Args:
        split: from `leave_one_out` or `time_split`.
    """
    offsets = np.asarray(split.train.sequences()[1], dtype=np.int64)
    lengths: npt.NDArray[np.int64] = np.diff(offsets)
    return len(split.vocabulary) <= MOST_ITEMS and int((lengths**2).sum()) <= MOST_PAIRS


def regression_weights(split: Split) -> torch.Tensor:
    """Predict whether a user has an item from the other items of that user, linearly.

    In contrast to counts of pairs, an item gets no weight for what other items of the history
    explain.

    Args:
        split: from `leave_one_out` or `time_split`; its training part is used.

    Returns:
        (N + 1, N + 1) weights from an item of the history to the item that is scored, at least 0.

    Raises:
        ValueError: if there are more than 10,000 items or too many pairs.

    Source: Steck 2019, Embarrassingly Shallow Autoencoders for Sparse Data,
    https://arxiv.org/abs/1905.03375, equation 8. Negative weights are set to 0.
    """
    if not can_regress(split):
        raise ValueError(
            f"a regression of {len(split.vocabulary)} items takes too long: there can be at most "
            f"{MOST_ITEMS} items and {MOST_PAIRS} pairs of items in the same sequence. Leave "
            "regression=True out"
        )
    size = len(split.vocabulary) + 1
    rows, offsets = (np.asarray(array, dtype=np.int64) for array in split.train.sequences())
    lengths = np.diff(offsets)
    cells = np.unique(np.repeat(np.arange(len(lengths)), lengths) * size + rows)
    users, items = cells // size, torch.from_numpy(cells % size)  # of a user in ascending order
    ends = torch.from_numpy(np.searchsorted(users, users, side="right"))
    gram = torch.zeros(size, size)  # number of users who have both items
    first, ones = torch.arange(len(items)), torch.ones(len(items))
    for distance in range(1, int(lengths.max(initial=0))):
        first = first[first + distance < ends[first]]
        pairs = items[first] * size + items[first + distance]
        gram.view(-1).scatter_add_(0, pairs, ones[: len(pairs)])
    gram += gram.T.clone()
    gram.diagonal().add_(torch.bincount(items, minlength=size) + REGULARIZATION)
    # in float64: in large data, the numbers of users of two items differ a thousandfold and more
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram.double()))
    weights = inverse.div_(-inverse.diagonal().clone()).clamp_(min=0).float()
    return weights.fill_diagonal_(0)

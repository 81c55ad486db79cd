"""Default batch size and number of warm-up steps."""

import math

LARGEST_BATCH, SMALLEST_BATCH = 128, 16
STEPS_OF_AN_EPOCH = 32  # minimum number of steps per epoch to aim for with small data
PREDICTIONS_OF_A_STEP = 2560  # maximum to aim for with long sequences
LONGEST_WARMUP = 200


def default_batch_size(sequences: int, length: float = 1.0) -> int:
    """Choose a batch size that gives small data and long sequences enough steps per epoch.

    Every position of a sequence is predicted among the items of the batch, so a step takes time and
    memory that grow with the square of its predictions.

    Args:
        sequences: number of training sequences per epoch, on all devices together.
        length: mean number of predictions per sequence.

    Returns:
        The largest power of two in 16..128 with at least 32 steps per epoch and at most 2,560
        predictions per step, or 16 if there is none.

    Examples:
        >>> default_batch_size(1_000_000), default_batch_size(2000), default_batch_size(100)
        (128, 32, 16)
        >>> default_batch_size(1_000_000, length=20), default_batch_size(1_000_000, length=50)
        (128, 32)
    """
    size = LARGEST_BATCH
    while size > SMALLEST_BATCH and (
        sequences < STEPS_OF_AN_EPOCH * size or size * length > PREDICTIONS_OF_A_STEP
    ):
        size //= 2
    return size


def default_warmup_steps(steps_per_epoch: float) -> int:
    """Choose the number of warm-up steps: one epoch, but at most 200 steps.

    Args:
        steps_per_epoch: number of optimizer steps per epoch.

    Returns:
        The number of steps.

    Examples:
        >>> default_warmup_steps(32), default_warmup_steps(5000)
        (32, 200)
    """
    return min(LONGEST_WARMUP, math.ceil(steps_per_epoch))

"""Communication and set-up of the processes of a `torch.distributed` run."""

import atexit
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed

from odmt_sdk.errors import missing_library


def is_distributed() -> bool:
    """Whether this process is one of several processes of a distributed run."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def gather_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Gather the tensors of all ranks, without gradients.

    Args:
        tensor: must have the same shape and dtype on every rank.

    Returns:
        One tensor per rank, in the order of the ranks.
    """
    gathered = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, tensor)
    return gathered


def own_share(number: int) -> list[int]:
    """The indices among 0..number - 1 that this rank processes: every R-th of R ranks.

    All ranks get equally many indices, because collective operations require it. If `number` is not
    divisible by R, the last ranks repeat indices from the start.
    """
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    return [index % number for index in range(rank, number + -number % ranks, ranks)]


def gather_shares(values: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """Combine the results of every rank's `own_share` in the order of the indices.

    Args:
        values: name -> results for this rank's share, on the CPU.
        number: total number of indices.

    Returns:
        Name -> (number, ...) results, on every rank.
    """
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, values)
    together = {name: value.new_empty(number, *value.shape[1:]) for name, value in values.items()}
    for rank, share in enumerate(shares):
        for name, value in share.items():
            mine = together[name][rank :: len(shares)]
            mine.copy_(value[: len(mine)])
    return together


def run_together(step: Callable[..., None], *arguments: Any, alone: bool = False) -> None:
    """Run a function on every rank and wait for all ranks; if one fails, all raise.

    Args:
        step: the function to run.
        *arguments: its arguments.
        alone: whether only rank 0 runs it.

    Raises:
        RuntimeError: on the other ranks if one has failed; that rank raises its own error.
    """
    if not is_distributed():
        step(*arguments)
        return
    failure: Exception | None = None
    if not alone or distributed.get_rank() == 0:
        try:
            step(*arguments)
        except Exception as error:  # any error must reach the other ranks, or they wait forever
            failure = error
    reasons: list[str | None] = [None] * distributed.get_world_size()
    reason = None if failure is None else f"{type(failure).__name__}: {failure}"
    distributed.all_gather_object(reasons, reason)
    if failure is not None:
        raise failure
    for rank, reason in enumerate(reasons):
        if reason is not None:
            raise RuntimeError(f"rank {rank} of this run has failed: {reason}")


def join_launched_processes() -> None:
    """Initialize `torch.distributed` if a launcher started this process as one of several.

    Without an accelerator, or with `accelerate launch --cpu`, the backend is gloo. Accelerate alone
    would treat such a process as the only one.

    Raises:
        ImportError: if Accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        purpose = "sharing work among processes needs Accelerate"
        raise missing_library(purpose, error, "train") from error
    asked = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes", "on")
    PartialState(cpu=asked or not torch.accelerator.is_available())
    end_group_with_process()


def end_group_with_process() -> None:
    """Destroy a gloo process group when the script exits, before the interpreter shuts down.

    Otherwise gloo's threads may outlive the interpreter's cleanup and abort the process, so that
    the launcher reports a failure although all work is done. Groups of other backends are not
    destroyed, because that may wait for ranks that have failed.
    """
    atexit.register(_end_gloo)


def _end_gloo() -> None:
    started = distributed.is_available() and distributed.is_initialized()
    if started and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()

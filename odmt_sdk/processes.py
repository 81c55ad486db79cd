"""What several processes of one `torch.distributed` run have to tell one another."""

import atexit
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def gather_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors of all ranks, without gradients.

    Args:
        tensor: of the same shape and type on every rank.

    Returns:
        One for each rank.
    """
    gathered = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, tensor)
    return gathered


def own_share(number: int) -> list[int]:
    """The indices that this rank takes of 0..number - 1: every R-th of R ranks.

    All ranks take equally many, as ranks that work together must: where the last ones would lack
    one, they take one from the front again.
    """
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    return [index % number for index in range(rank, number + -number % ranks, ranks)]


def gather_shares(values: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """Put the results for every rank's `own_share` together again, in the order of the indices.

    Args:
        values: name -> results for this rank's share, on the CPU.
        number: how many indices there are in all.

    Returns:
        Name -> (number,) results, on every rank.
    """
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, values)
    together = {name: value.new_empty(number) for name, value in values.items()}
    for rank, share in enumerate(shares):
        for name, value in share.items():
            mine = together[name][rank :: len(shares)]
            mine.copy_(value[: len(mine)])
    return together


def run_together(step: Callable[..., None], *arguments: Any, alone: bool = False) -> None:
    """Run a step on every rank and wait for all; where one rank fails, all do.

    Args:
        step: what to do.
        *arguments: of `step`.
        alone: only rank 0 does it.

    Raises:
        RuntimeError: on the other ranks, if one has failed; the error itself is raised there.
    """
    if not is_distributed():
        step(*arguments)
        return
    failure: Exception | None = None
    if not alone or distributed.get_rank() == 0:
        try:
            step(*arguments)
        except Exception as error:  # whatever it is, the other ranks must not wait for this one
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
    """Start `torch.distributed` where a launcher has started this process as one of several.

    Without an accelerator, or where `accelerate launch --cpu` says so, over gloo: left to itself,
    Accelerate would take such a process for the only one.

    Raises:
        ImportError: if Accelerate is missing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError(
            "sharing work among processes needs Accelerate: pip install odmt-sdk[train]"
        ) from error
    asked = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes", "on")
    PartialState(cpu=asked or not torch.accelerator.is_available())
    end_group_with_process()


def end_group_with_process() -> None:
    """At the end of the script, end a group of gloo before the interpreter does.

    Its threads abort a process that they outlive (now and then, after all its work), so that a
    launcher reports a failure. Other groups are left as they are: ending one may wait for ranks
    that have failed.
    """
    atexit.register(_end_gloo)


def _end_gloo() -> None:
    started = distributed.is_available() and distributed.is_initialized()
    if started and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()

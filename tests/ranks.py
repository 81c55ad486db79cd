"""Runs a function in several processes that form a `torch.distributed` group."""

import os
import socket
from pathlib import Path

import torch
from torch import distributed, multiprocessing


def _run(rank: int, ranks: int, port: int, function, path: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    try:
        torch.save(function(rank, ranks), path / f"{rank}.pt")
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Code for the start of a launched script. At exit, each rank reports whether its process group
# still exists, because gloo's threads may crash at interpreter shutdown.
LEFT_AT_EXIT = """
import atexit, os, sys
def say():
    distributed = sys.modules["torch.distributed"]
    with open(f"{os.environ['LEFT_AT_EXIT']}.{os.environ['RANK']}", "w") as file:
        file.write(str(distributed.is_initialized()))
atexit.register(say)
"""


def left_at_exit(path: Path) -> list[str]:
    """Return the reports of a script with `LEFT_AT_EXIT`, ordered by rank."""
    return [file.read_text() for file in sorted(path.parent.glob(f"{path.name}.*"))]


def on_ranks(function, path: Path, ranks: int = 2) -> list:
    """Call a function with (rank, ranks) in several processes and return the results."""
    multiprocessing.spawn(_run, (ranks, free_port(), function, path), nprocs=ranks)
    return [torch.load(path / f"{rank}.pt", weights_only=True) for rank in range(ranks)]

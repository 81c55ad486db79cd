"""Memory of a large ID table: replicated (DDP), with sparse gradients, and sharded (FSDP).

    python benchmarks/speed/sharded_table.py --items 1000000

Two processes on this machine train for two steps. The memory of one process is printed, between
steps and at the peak, minus its memory before the model was created.
"""

import argparse
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

import torch
from torch import distributed, multiprocessing, nn
from torch.distributed.fsdp import fully_shard

from speed.workload import CONFIGURATIONS, batch_of, build, make_step, memory_now

RANKS = 2
MODES = ("DDP", "DDP, sparse gradients", "FSDP")


def train(rank: int, mode: str, num_items: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=RANKS)
    size = replace(CONFIGURATIONS["small"], num_items=num_items, batch=16)
    batch = batch_of(replace(size, batch=RANKS * size.batch), items=500).chunk(RANKS)[rank]
    before = memory_now("VmRSS")
    sparse = mode.endswith("sparse gradients")
    model: nn.Module = build(size, gather_candidates=True, sparse_id_gradients=sparse)
    if mode == "FSDP":
        fully_shard(model.item_encoder.id_embedding)
        fully_shard(model)
    else:
        model = nn.parallel.DistributedDataParallel(model)
    step = make_step(model, batch)
    for _ in range(2):
        loss = step()
    if rank == 0:
        held, peak = memory_now("VmRSS") - before, memory_now("VmHWM") - before
        print(f"| {mode:<21} | {held:8.0f} | {peak:7.0f} | {loss:.4f} |", flush=True)
    distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    arguments = parser.parse_args()
    table = (arguments.items + 1) * CONFIGURATIONS["small"].hidden_size * 4 / 2**20
    print(f"{arguments.items:,} items, a table of {table:.0f} MB, {RANKS} processes\n")
    print("| table                 | MB held  | MB peak | loss   |")
    print("|-----------------------|---------:|--------:|-------:|")
    for mode in MODES:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        multiprocessing.spawn(train, (mode, arguments.items, port), nprocs=RANKS)


if __name__ == "__main__":
    main()

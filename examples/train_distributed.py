"""Train on several devices with the same candidates and the same loss as on one.

    torchrun --nproc-per-node 2 examples/train_distributed.py
    accelerate launch --multi_gpu --num_processes 2 examples/train_distributed.py
    torchrun --nproc-per-node 2 examples/train_distributed.py --shard

Every process gets its part of each batch, and the items of all parts are candidates for all
processes. With `--shard`, weights, gradients and optimizer states are sharded over the devices
(FSDP), for embedding tables that do not fit on one device. Without a GPU, these commands start
processes on the CPU, even with `--multi_gpu`. `accelerate launch --cpu --num_processes 2` starts
only one process, unless it is run with mpirun.
"""

import argparse
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.utils.data import DataLoader, DistributedSampler

from odmt_sdk import (
    Interactions,
    ItemFeatures,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    SequenceCollator,
    evaluate,
    fit,
    leave_one_out,
)

NUM_ITEMS, NUM_USERS = 60, 243  # not a multiple of the batch size, so the last batch is smaller
BATCH_SIZE = 32  # per process


def make_split(vocabulary):
    """Simulate users who watch the films in order, each starting from a different film."""
    walks = [(user, step) for user in range(NUM_USERS) for step in range(8)]
    table = {
        "user_id": [user for user, _ in walks],
        "item_id": [f"film-{(7 * user + step) % NUM_ITEMS}" for user, step in walks],
        "timestamp": [step for _, step in walks],
    }
    return leave_one_out(Interactions.from_table(table), vocabulary=vocabulary, max_seq_length=6)


def make_model() -> ODMTWrapper:
    torch.manual_seed(0)  # every process starts from the same weights
    features = ItemFeatures.from_tensors(
        item_ids=[f"film-{i}" for i in range(NUM_ITEMS)],
        text=torch.randn(NUM_ITEMS + 1, 8, 24),
        image=torch.randn(NUM_ITEMS + 1, 5, 16),
    )
    config = ODMTConfig(gather_candidates=True, dropout=0.0)
    return ODMTWrapper(SASRec(32, max_seq_length=6, dropout=0.0), features, config)


def train_with_trainer(output: Path, epochs: int) -> dict[str, float]:
    """Call `fit` as on one device; `transformers.Trainer` distributes the batches (DDP)."""
    model = make_model()
    found = fit(
        model, make_split(model.vocabulary), output, epochs=epochs, batch_size=BATCH_SIZE,
        learning_rate=3e-3, warmup_steps=10, k=(1, 10), patience=epochs, disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    return found.test


def train_sharded(output: Path, epochs: int) -> dict[str, float]:
    """Run a custom training loop with a model sharded by FSDP."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    if device == "cuda":
        torch.cuda.set_device(distributed.get_rank() % torch.cuda.device_count())
    model = make_model().to(device)
    split = make_split(model.vocabulary)
    model.set_item_popularity(split.item_counts)
    fully_shard(model.item_encoder.id_embedding)
    fully_shard(model.item_encoder)
    for backbone in model.backbones.by_source.values():
        fully_shard(backbone)
    fully_shard(model)
    for method in ("encode_catalogue", "encode_sequences"):
        register_fsdp_forward_method(model, method)  # evaluation calls these, not forward
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    sampler = DistributedSampler(split.train, drop_last=True)
    loader = DataLoader(
        split.train, batch_size=BATCH_SIZE, sampler=sampler, collate_fn=SequenceCollator()
    )
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for step, batch in enumerate(loader):
            batch = {name: values.to(device) for name, values in batch.items()}
            loss = model(**batch, epoch=epoch + step / len(loader)).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
    metrics = evaluate(model, split.test, k=(1, 10), progress=False, distributed=True)
    # gather the full weights on the first process
    weights = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if distributed.get_rank() == 0:
        whole = make_model()
        whole.load_state_dict(weights)
        whole.save_pretrained(output)
    distributed.barrier()
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/distributed"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--shard", action="store_true", help="FSDP in place of DDP")
    arguments = parser.parse_args()
    train = train_sharded if arguments.shard else train_with_trainer
    metrics = train(arguments.output, arguments.epochs)
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    if processes == 1 or distributed.get_rank() == 0:
        found = f"hit_rate@1 {metrics['hit_rate@1']:.3f}"
        print(f"{processes} processes: {found}, saved in {arguments.output}")
    if arguments.shard:
        distributed.destroy_process_group()  # created in `train_sharded`; `fit` destroys its own


if __name__ == "__main__":
    main()

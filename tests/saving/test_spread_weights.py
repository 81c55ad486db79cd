"""Saving a model trained by several processes: one process writes the complete weights."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from toys import MyModel, toy_features, toy_model

from odmt_sdk import ODMTWrapper

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
WORLD = 2


def run(rank, kind, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    try:
        torch.manual_seed(0)
        model = toy_model(num_layers=1)
        if rank == 0:
            model.save_pretrained(f"{folder}/whole")
        dist.barrier()
        if kind == "ddp":
            wrapped = DistributedDataParallel(model, find_unused_parameters=True)
            wrapped.module.save_pretrained(f"{folder}/spread", is_main_process=rank == 0)
        else:
            for part in (model.item_encoder, model.backbones):
                fully_shard(part, mesh=dist.device_mesh.init_device_mesh("cpu", (WORLD,)))
            assert any(hasattr(p, "full_tensor") for p in model.parameters())
            model.save_pretrained(f"{folder}/spread", is_main_process=rank == 0)
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_weights_of_several_processes(kind, tmp_path):
    mp.spawn(run, (kind, str(tmp_path)), nprocs=WORLD)
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    whole, spread = (
        ODMTWrapper.from_pretrained(tmp_path / name, MyModel(), features)
        for name in ("whole", "spread")
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, spread.state_dict()[name]), name
    assert whole.recommend([["item-3"]]) == spread.recommend([["item-3"]])
    ready = (tmp_path / "spread" / "item_embeddings.safetensors").exists()
    assert ready == (kind == "ddp")

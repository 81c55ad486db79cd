"""Trained content encoders on two ranks: replicated, and sharded with FSDP."""

import pytest
import torch
from ranks import on_ranks
from tiny_encoders import TEXTS, bert, pictures, vit
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from odmt_sdk import ItemFeatures, ODMTConfig, ODMTWrapper, SASRec, TrainableImages, TrainableText

pytestmark = pytest.mark.slow
pytest.importorskip("peft")

ITEMS = {
    "item_id": [f"item-{i}" for i in range(10)],
    "text": [*TEXTS, *TEXTS],
    "image": [*pictures(8), None, None],
}
# The items of the second rank have no texts and no pictures.
ITEM_IDS = torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7], [0, 9, 9, 9], [0, 0, 9, 9]])


def _model() -> ODMTWrapper:
    torch.manual_seed(0)
    text, image = bert(), vit()
    # bfloat16, the default of newer CPUs, rounds differently where batches differ in size
    features = ItemFeatures.from_items(
        ITEMS,
        text_encoder=text,
        image_encoder=image,
        dtype=torch.float32,
        progress=False,
        precision="float32",
    ).standardize()
    torch.manual_seed(1)
    encoders = {
        "text": TrainableText(text, ITEMS, precision="float32"),
        "image": TrainableImages(image, ITEMS, precision="float32"),
    }
    torch.manual_seed(2)
    backbone = SASRec(16, max_seq_length=6, dropout=0.0)
    config = ODMTConfig(max_seq_length=6, dropout=0.0, gather_candidates=True)
    model = ODMTWrapper(backbone, features, config, encoders=encoders)
    return model.set_item_popularity(torch.arange(11))


def _steps(model: ODMTWrapper, wrapped: nn.Module, item_ids: torch.Tensor):
    """Train three steps; return the losses and what changed."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(3):
        loss = wrapped(item_ids, epoch=1.0).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def _both(rank: int, ranks: int):
    rows = ITEM_IDS.chunk(ranks)[rank]
    model = _model()
    replicated = nn.parallel.DistributedDataParallel(model)
    losses = _steps(model, replicated, rows)
    weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    sharded = _model()
    for encoder in sharded.encoders.values():
        fully_shard(encoder)
    for backbone in sharded.backbones.by_source.values():
        fully_shard(backbone)
    fully_shard(sharded)
    for method in ("encode_catalogue", "encode_sequences"):
        register_fsdp_forward_method(sharded, method)
    sharded_losses = _steps(sharded, sharded, rows)
    whole = {n: p.detach().full_tensor() for n, p in sharded.named_parameters() if p.requires_grad}
    return {"replicated": (losses, weights), "sharded": (sharded_losses, whole)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return on_ranks(_both, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("way", ["replicated", "sharded"])
def test_encoders_train_as_in_one_process(found, way):
    model = _model()
    expected = _steps(model, model, ITEM_IDS)
    torch.testing.assert_close(
        torch.stack([rank[way][0] for rank in found]).mean(0), expected, rtol=1e-4, atol=1e-4
    )
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            for rank in found:
                torch.testing.assert_close(
                    rank[way][1][name], weight.detach(), rtol=1e-3, atol=1e-4, msg=name
                )

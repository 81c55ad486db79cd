"""Results are the same when computed in chunks, and on several ranks.

Letters: B users, L positions of a sequence.
"""

import functools

import pytest
import torch
from ranks import on_ranks
from torch import nn
from toys import MyModel, toy_features, toy_split

from odmt_sdk import ODMTConfig, ODMTWrapper, SASRec, evaluate

ITEM_IDS = torch.tensor(
    [
        [0, 0, 3, 1, 2],
        [4, 5, 6, 7, 5],
        [0, 1, 1, 2, 9],
        [0, 0, 0, 0, 8],
        [0, 0, 0, 12, 4],
        [10, 11, 1, 3, 2],
    ]
)


def make(backbone: nn.Module | None = None, **settings) -> ODMTWrapper:
    torch.manual_seed(0)
    backbone = backbone or SASRec(8, max_seq_length=6, dropout=0.0)
    config = ODMTConfig.paper(dropout=0.0, distillation_warmup_epochs=0, **settings)
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    model = ODMTWrapper(backbone, features, config, check=False)
    return model.set_item_popularity(torch.arange(13))


def loss_and_gradients(model: ODMTWrapper, item_ids: torch.Tensor):
    output = model(item_ids, epoch=1.0)
    output.loss.backward()
    return output, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "settings",
    [{"item_chunk_size": 5}, {"loss_chunk_size": 4}, {"item_chunk_size": 1, "loss_chunk_size": 1}],
)
def test_chunks_change_neither_loss_nor_gradients(settings):
    expected, gradients = loss_and_gradients(make(), ITEM_IDS)
    output, got = loss_and_gradients(make(**settings), ITEM_IDS)
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-6, atol=1e-6)
    assert output.losses.keys() == expected.losses.keys()
    for name, part in expected.losses.items():
        torch.testing.assert_close(output.losses[name], part, rtol=1e-5, atol=1e-6)
    assert got.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_logits_are_not_kept_in_chunks():
    assert make(loss_chunk_size=4)(ITEM_IDS).logits == {}
    assert make(loss_chunk_size=400)(ITEM_IDS).logits


def test_dropout_is_the_same_when_a_chunk_is_computed_again():
    model = make(item_chunk_size=3)
    model.item_encoder.dropout.p = 0.5
    torch.manual_seed(1)
    loss = model(ITEM_IDS).loss
    table = model.item_encoder.id_embedding.weight
    (gradient,) = torch.autograd.grad(loss, table)
    moved = make(item_chunk_size=3)
    moved.item_encoder.dropout.p = 0.5
    with torch.no_grad():
        moved.item_encoder.id_embedding.weight[5] += 1e-3 * gradient[5]
    torch.manual_seed(1)
    change = float(moved(ITEM_IDS).loss.detach() - loss.detach())
    assert change == pytest.approx(1e-3 * float(gradient[5].square().sum()), rel=0.05, abs=2e-6)


@pytest.mark.parametrize("name", ["item_chunk_size", "loss_chunk_size"])
def test_sizes_below_one(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1, or None"):
        ODMTConfig(**{name: 0})


# several processes


def _train_step(rank: int, ranks: int, shares: list[list[int]], settings: dict):
    backbone = MyModel() if settings.pop("last_only", False) else None
    model = make(backbone, gather_candidates=True, **settings)
    wrapped = nn.parallel.DistributedDataParallel(model)
    mine = ITEM_IDS[shares[rank]]
    loss = wrapped(mine[:, int((mine != 0).any(0).long().argmax()) :], epoch=1.0).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize(
    "shares", [[[0, 1, 2], [3, 4, 5]], [[0, 2, 3, 4, 5], [1]]], ids=["halves", "uneven"]
)
def test_two_ranks_with_parts_of_a_batch_equal_one_with_the_whole(shares, tmp_path):
    expected, gradients = loss_and_gradients(make(), ITEM_IDS)
    settings = {"loss_chunk_size": 3} if len(shares[1]) == 1 else {}
    found = on_ranks(functools.partial(_train_step, shares=shares, settings=settings), tmp_path)
    mean = torch.stack([loss for loss, _ in found]).mean()
    torch.testing.assert_close(mean, expected.loss.detach(), rtol=1e-6, atol=1e-6)
    for _, got in found:
        for name, gradient in gradients.items():
            torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def _evaluate(rank: int, ranks: int):
    split = toy_split(num_users=7)
    return evaluate(make().eval(), split.test, k=(1, 5), progress=False, distributed=True)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_evaluation_on_several_ranks_equals_that_on_one(ranks, tmp_path):
    expected = evaluate(make().eval(), toy_split(num_users=7).test, k=(1, 5), progress=False)
    assert on_ranks(_evaluate, tmp_path, ranks) == [expected] * ranks

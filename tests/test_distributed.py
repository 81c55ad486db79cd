"""Sharded and replicated models on two ranks, and launchers.

Starting two processes takes several seconds, so many tests share one run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import LEFT_AT_EXIT, free_port, left_at_exit, on_ranks
from test_memory_and_ranks import ITEM_IDS, loss_and_gradients, make
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from toys import toy_split

from odmt_sdk import LazyAdamW, ODMTWrapper, evaluate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
USERS = 7  # odd, so the ranks' last batches differ in size
SPARSE = {"sparse_id_gradients": True, "item_chunk_size": 4}


def _sharded(rank: int, ranks: int):
    """Run a step of a model sharded with FSDP, its evaluation, and an optimizer step."""
    model = make(gather_candidates=True)
    fully_shard(model.item_encoder.id_embedding)
    fully_shard(model.item_encoder)
    for backbone in model.backbones.by_source.values():
        fully_shard(backbone)
    fully_shard(model)
    for method in ("encode_catalogue", "encode_sequences"):
        register_fsdp_forward_method(model, method)
    loss = model(ITEM_IDS.chunk(ranks)[rank], epoch=1.0).loss
    loss.backward()
    gradients = {n: p.grad.full_tensor() for n, p in model.named_parameters() if p.grad is not None}
    table = model.item_encoder.id_embedding.weight
    rows = torch.tensor(table.to_local().shape[0])
    metrics = [_evaluate(model), None]
    torch.optim.AdamW(model.parameters(), lr=0.1).step()
    metrics[1] = _evaluate(model)  # the weights changed, so no cache may be used
    return loss.detach(), gradients, rows, metrics


def _evaluate(model: ODMTWrapper, distributed: bool = True) -> dict[str, float]:
    training = model.training
    model.eval()
    data = toy_split(num_users=USERS).test
    found = evaluate(model, data, k=(1, 5), batch_size=2, progress=False, distributed=distributed)
    model.train(training)
    return found


def _sparse(rank: int, ranks: int):
    """Run three steps of a replicated model with sparse gradients for its embedding table."""
    model = make(gather_candidates=True, **SPARSE)
    wrapped = nn.parallel.DistributedDataParallel(model)
    return _steps(model, wrapped, ITEM_IDS.chunk(ranks)[rank])


def _steps(model: nn.Module, wrapped: nn.Module, item_ids: torch.Tensor):
    optimizer = LazyAdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        wrapped(item_ids, epoch=1.0).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


def _everything(rank: int, ranks: int):
    return {"sharded": _sharded(rank, ranks), "sparse": _sparse(rank, ranks)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return on_ranks(_everything, tmp_path_factory.mktemp("ranks"))


def test_a_sharded_model_gives_the_loss_and_gradients_of_a_whole_one(found):
    expected, gradients = loss_and_gradients(make(), ITEM_IDS)
    mean = torch.stack([rank["sharded"][0] for rank in found]).mean()
    torch.testing.assert_close(mean, expected.loss.detach(), rtol=1e-6, atol=1e-6)
    for rank in found:
        for name, gradient in gradients.items():
            got = rank["sharded"][1][name]
            torch.testing.assert_close(got, gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_each_rank_holds_a_part_of_the_table(found):
    assert [int(rank["sharded"][2]) for rank in found] == [7, 6]


def test_a_sharded_model_is_evaluated_like_a_whole_one(found):
    model = make()
    before = _evaluate(model, distributed=False)
    loss_and_gradients(model, ITEM_IDS)
    torch.optim.AdamW(model.parameters(), lr=0.1).step()
    after = _evaluate(model, distributed=False)
    assert before != after
    for rank in found:
        assert rank["sharded"][3] == [before, after]


def test_sparse_gradients_on_two_ranks_train_like_one(found):
    model = make(**SPARSE)
    expected = _steps(model, model, ITEM_IDS)
    for rank in found:
        for name, weight in expected.items():
            torch.testing.assert_close(rank["sparse"][name], weight, rtol=1e-4, atol=1e-5, msg=name)


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2", "--master-port"],
    "torchrun, sharded": ["torch.distributed.run", "--nproc-per-node", "2", "--master-port"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                   "--main_process_port"],
}  # fmt: skip


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_example_is_launched(launcher, tmp_path):
    example = str(ROOT / "examples/train_distributed.py")
    script, left = tmp_path / "launched.py", tmp_path / "left"
    script.write_text(
        f"{LEFT_AT_EXIT}\nimport runpy\nrunpy.run_path({example!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-m", *LAUNCHERS[launcher], str(free_port())]
    command += [str(script), "--epochs", "12", "--output", str(tmp_path)]
    command += ["--shard"] if launcher.endswith("sharded") else []
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        "LEFT_AT_EXIT": str(left),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert left_at_exit(left) == ["False", "False"]
    assert "2 processes" in done.stdout
    (said,) = re.findall(r"hit_rate@1 (\S+),", done.stdout)
    assert float(said) > 0.8
    from odmt_sdk import SASRec

    loaded = ODMTWrapper.from_pretrained(tmp_path, SASRec(32, max_seq_length=6))
    assert loaded.recommend([["film-3", "film-4", "film-5"]], k=1).item_ids == [["film-6"]]

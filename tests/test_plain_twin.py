"""`ODMTWrapper` against the plain computation of the paper, in `benchmarks/speed/plain.py`."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import CASES, load_case
from hypothesis import given, settings
from hypothesis import strategies as st

from odmt_sdk import ItemFeatures, ODMTConfig, ODMTWrapper, SASRec
from odmt_sdk.data.sequences import RankingDataset
from odmt_sdk.evaluation.evaluate import rank_targets

PLAIN = Path(__file__).parents[1] / "benchmarks" / "speed" / "plain.py"
_spec = importlib.util.spec_from_file_location("plain", PLAIN)
plain: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain)

N, D, LONGEST = 15, 8, 6


@pytest.mark.parametrize("name", CASES)
def test_the_twin_reproduces_the_golden_cases(name):
    case = load_case(name)
    twin = plain.PlainODMT.like(case.model())
    loss = twin(case.tensors["in.item_ids"], epoch=case.settings["epoch"])
    expected = case.tensors["out.ce_loss"] + case.tensors["out.kl_loss"]
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    golden = case.named("grad.")
    largest = max(float(gradient.abs().max()) for gradient in golden.values())
    for parameter_name, parameter in twin.named_parameters():
        reference = golden[parameter_name]
        scale = max(float(reference.abs().max()), 1e-4 * largest)
        assert float((parameter.grad - reference).abs().max()) <= 1e-4 * scale, parameter_name


def make(draw) -> ODMTWrapper:
    """Draw a model with any number of modalities, layers and heads."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    sizes = dict([("text", 3), ("image", 2), ("audio", 1)][: draw(st.integers(1, 3))])
    features = ItemFeatures.from_tensors(
        lengths={
            name: torch.cat([torch.zeros(1, dtype=torch.long), torch.randint(1, size + 1, (N,))])
            for name, size in sizes.items()
        },
        **{name: torch.randn(N + 1, size, 5) for name, size in sizes.items()},
    )
    config = ODMTConfig.paper(
        num_layers=draw(st.integers(1, 3)),
        num_heads=draw(st.sampled_from([1, 2, 4])),
        id_visibility=draw(st.sampled_from(["one_way", "mutual"])),
        dropout=0.0,
        distillation_weight=draw(st.sampled_from([0.0, 0.5])),
        distillation_warmup_epochs=0,
        detach_teacher=draw(st.booleans()),
    )
    model = ODMTWrapper(
        SASRec(D, max_seq_length=LONGEST, dropout=0.0), features, config, check=False
    )
    return model.set_item_popularity(torch.randint(1, 20, (N + 1,)))


@settings(max_examples=15)
@given(data=st.data())
def test_losses_and_gradients_are_those_of_the_twin(data):
    model = make(data.draw)
    users, slots = data.draw(st.integers(1, 4)), data.draw(st.integers(2, LONGEST + 1))
    few = data.draw(st.sampled_from([1, 3, N]))  # few items, so most of them repeat
    item_ids = torch.randint(1, few + 1, (users, slots))
    lengths = torch.tensor(
        [data.draw(st.integers(0 if user else 2, slots)) for user in range(users)]
    )
    item_ids[torch.arange(slots) < slots - lengths.unsqueeze(1)] = 0
    twin = plain.PlainODMT.like(model)
    loss, expected = model(item_ids, epoch=3.0).loss, twin(item_ids, epoch=3.0)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    gradients = dict(twin.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in gradients.values() if p.grad is not None)
    for name, parameter in model.named_parameters():
        if name in gradients:
            other = gradients[name].grad
            reference = torch.zeros_like(parameter) if other is None else other
            got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            scale = max(float(reference.abs().max()), 1e-3 * largest)
            assert float((got - reference).abs().max()) <= 1e-4 * scale + 1e-7, name


@settings(max_examples=5)
@given(data=st.data())
def test_ranks_are_those_of_the_twin(data):
    model = make(data.draw).eval()
    histories = [np.random.permutation(N)[: 2 + user] + 1 for user in range(4)]
    dataset = RankingDataset(
        np.concatenate([history[:-1] for history in histories]),
        np.cumsum([0] + [len(history) - 1 for history in histories]),
        np.array([history[-1] for history in histories]),
        user_ids=range(4),
        max_seq_length=LONGEST,
    )
    queries = [dataset[user] for user in range(4)]
    ranks = rank_targets(model, dataset, progress=False)
    twin = plain.PlainODMT.like(model)
    assert ranks["fused"].tolist() == twin.rank(
        [query["item_ids"] for query in queries],
        [int(query["target_ids"]) for query in queries],
        [query["seen_ids"] for query in queries],
    )

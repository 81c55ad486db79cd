"""A training step never syncs with the GPU, can be compiled, and runs in every float dtype.

No GPU is needed. Tensors on the device "meta" have shapes and dtypes but no values, so every
operation that reads a value, which would sync with a GPU, fails.
"""

import contextlib
import io

import pytest
import torch
from golden_cases import CASES, load_case
from rounding import rounding_of_gradients
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from toys import toy_model

from odmt_sdk.features.modality import ModalityTokens
from odmt_sdk.losses.in_batch import InBatchCandidates, in_batch_candidates

ITEM_IDS = torch.tensor([[0, 0, 3, 1, 2], [4, 5, 6, 7, 5], [0, 1, 1, 2, 9], [0, 0, 0, 0, 8]])


# waiting


class Waits(TorchDispatchMode):
    """Counts the operations that would sync with a GPU."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        name = function.name().removeprefix("aten::").split(".")[0]
        masks = name in ("index", "index_put_", "index_put") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1]
        )
        if masks or name in ("nonzero", "_unique2", "_local_scalar_dense", "masked_select"):
            self.found.append(name)
        return function(*arguments, **(settings or {}))


@pytest.mark.parametrize("last_only", [False, True])
def test_candidates_are_found_with_three_waits(last_only):
    with Waits() as waits:
        in_batch_candidates(ITEM_IDS, ITEM_IDS != 0, last_only=last_only)
    assert waits.found == ["nonzero", "_unique2", "nonzero"]


class MetaFeatures:
    """Features without values."""

    def gather(self, rows):
        return {
            name: ModalityTokens(
                torch.randn(len(rows), tokens, width, device="meta"),
                torch.randint(tokens + 1, (len(rows),), device="meta"),
            )
            for name, tokens, width in (("text", 4, 6), ("image", 3, 5))
        }


STEPS = {
    "all at once": {},
    "chunks": {"item_chunk_size": 3, "loss_chunk_size": 4},
    "hiding": {"modality_dropout": 0.2, "id_dropout": 0.2},
    "detached": {"detach_teacher": True, "distillation_warmup_epochs": 0},
}


@pytest.mark.parametrize("settings", STEPS.values(), ids=STEPS)
def test_nothing_of_a_step_waits_once_the_candidates_are_found(settings, monkeypatch):
    model = toy_model(**settings).train()
    found = in_batch_candidates(ITEM_IDS, ITEM_IDS != 0)
    candidates = InBatchCandidates(*(part.to("meta") for part in found))
    monkeypatch.setattr("odmt_sdk.wrapper.in_batch_candidates", lambda *_, **__: candidates)
    model.to("meta").item_features = MetaFeatures()
    output = model(ITEM_IDS.to("meta"), epoch=3.0)
    output.loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.AdamW(model.parameters()).step()
    assert output.loss.device.type == "meta"
    assert sum(parameter.grad is not None for parameter in model.parameters()) > 20


def test_tensors_without_values_notice_waiting():
    values = torch.ones(3, device="meta")
    for wait in (lambda: bool(values.any()), lambda: values[values > 0], lambda: values.tolist()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            wait()


# compiling


@pytest.mark.slow
def test_the_item_encoder_compiles_to_one_graph_for_any_number_of_items():
    torch._dynamo.reset()
    plain, compiled = toy_model(dropout=0.0), toy_model(dropout=0.0)
    compiled.load_state_dict(plain.state_dict())
    compiled.item_encoder.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    counts = torch._dynamo.utils.counters
    counts.clear()
    for rows in (ITEM_IDS, ITEM_IDS[:2], ITEM_IDS[1:]):
        expected, got = plain(rows, epoch=1.0).loss, compiled(rows, epoch=1.0).loss
        torch.testing.assert_close(got, expected)
        for model, loss in ((plain, expected), (compiled, got)):
            model.zero_grad()
            loss.backward()
        for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(b.grad, a.grad)
    assert counts["stats"]["unique_graphs"] == 1
    assert not counts["graph_break"]


@pytest.mark.slow
def test_the_loss_compiles_to_one_graph_for_any_number_of_candidates():
    torch._dynamo.reset()
    model = toy_model(distillation_warmup_epochs=0)
    compiled = torch.compile(
        model.online_distillation_loss, fullgraph=True, dynamic=True, backend="aot_eager"
    )
    counts = torch._dynamo.utils.counters
    counts.clear()
    for rows in (ITEM_IDS[:2], ITEM_IDS, ITEM_IDS[1:]):
        candidates = in_batch_candidates(rows, rows != 0)
        shape = len(candidates.labels), len(candidates.item_ids)
        logits = {source: torch.randn(shape, requires_grad=True) for source in model.sources}
        settings = {"log_multiplicity": candidates.log_multiplicity, "ignore_index": None}
        expected = model.online_distillation_loss(logits, candidates.labels, **settings).loss
        got = compiled(logits, candidates.labels, **settings).loss
        torch.testing.assert_close(got, expected)
        wanted = torch.autograd.grad(expected, logits.values())
        for a, b in zip(wanted, torch.autograd.grad(got, logits.values()), strict=True):
            torch.testing.assert_close(b, a)
    assert counts["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_the_whole_model_compiles():
    torch._dynamo.reset()
    plain, compiled = toy_model(dropout=0.0), toy_model(dropout=0.0)
    compiled.load_state_dict(plain.state_dict())
    compiled.compile(dynamic=True, backend="aot_eager")
    with contextlib.redirect_stderr(io.StringIO()):
        got = compiled(ITEM_IDS, epoch=1.0).loss
    torch.testing.assert_close(got, plain(ITEM_IDS, epoch=1.0).loss)


# types


def golden_step(case, dtype=torch.float32, autocast=None, model=None):
    model = (model or case.model()).to(dtype)
    model.item_features = model.item_features.to(dtype=dtype)
    ids = case.tensors["in.item_ids"]
    mask = torch.cat([case.tensors["in.attention_mask"], torch.ones(len(ids), 1)], dim=1)
    with torch.autocast("cpu", autocast) if autocast else contextlib.nullcontext():
        output = model(ids, mask, epoch=case.settings["epoch"])
    output.loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return output.loss.detach(), gradients


@pytest.mark.parametrize("name", CASES)
def test_golden_cases_in_float64(name):
    case = load_case(name)
    loss, gradients = golden_step(case, torch.float64)
    assert loss.dtype == torch.float64
    expected = (case.tensors["out.ce_loss"] + case.tensors["out.kl_loss"]).double()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    golden = case.named("grad.")
    largest = max(float(gradient.abs().max()) for gradient in golden.values())
    for parameter, reference in golden.items():
        scale = max(float(reference.abs().max()), 1e-4 * largest)
        assert float((gradients[parameter] - reference).abs().max()) <= 1e-4 * scale, parameter


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_golden_cases_under_autocast(name, dtype):
    """Loss and gradients, as one vector, are as close as rounding in `dtype` allows."""
    case = load_case(name)
    golden = case.named("grad.")

    def step(model, autocast=None):
        loss, gradients = golden_step(case, autocast=autocast, model=model)
        return loss, torch.cat([gradients[parameter].flatten() for parameter in golden])

    loss, gradients = step(case.model(), dtype)
    assert gradients.isfinite().all()
    # plus one layer for projections, heads and scores
    layers = case.settings["imt_layers"] + case.settings["user_layers"] + 1
    loss_error, gradient_error = rounding_of_gradients(step, case.model, dtype, layers)
    expected = case.tensors["out.ce_loss"] + case.tensors["out.kl_loss"]
    torch.testing.assert_close(loss, expected, rtol=loss_error, atol=0)
    wanted = torch.cat([gradient.flatten() for gradient in golden.values()])
    assert float((gradients - wanted).norm() / wanted.norm()) <= gradient_error
    assert gradient_error < 0.5  # detects a gradient that is off by half


def test_float64_is_not_rounded_on_the_way():
    torch.manual_seed(0)
    model = toy_model(dropout=0.0, detach_teacher=False).double()
    model.item_features = model.item_features.to(dtype=torch.float64)
    table = model.item_encoder.id_embedding.weight
    (gradient,) = torch.autograd.grad(model(ITEM_IDS, epoch=30.0).loss, table)
    with torch.no_grad():
        before = model(ITEM_IDS, epoch=30.0).loss
        table[5, 0] += 1e-6
        after = model(ITEM_IDS, epoch=30.0).loss
    assert float(after - before) == pytest.approx(1e-6 * float(gradient[5, 0]), rel=1e-4)


def test_a_seed_repeats_a_step_to_the_bit():
    def step():
        torch.manual_seed(7)
        model = toy_model(dropout=0.3, modality_dropout=0.2, id_dropout=0.2)
        model(ITEM_IDS, epoch=1.0).loss.backward()
        return [p.grad for p in model.parameters()]

    for a, b in zip(step(), step(), strict=True):
        assert torch.equal(a, b)

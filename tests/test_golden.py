"""Reproduces the numbers of the authors' program."""

import pytest
import torch
from golden_cases import CASES, load_case

EMBEDDINGS = 1e-5
GRADIENTS = 1e-4


@pytest.fixture(params=CASES)
def case(request):
    return load_case(request.param)


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest deviation relative to the largest expected value."""
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def run(case):
    model = case.model().train()
    mask = torch.cat(
        [case.tensors["in.attention_mask"], torch.ones(case.settings["batch"], 1)], dim=1
    )
    output = model(case.tensors["in.item_ids"], mask, epoch=case.settings["epoch"])
    return model, output


def test_losses(case):
    _, output = run(case)
    entropies = sum(v for n, v in output.losses.items() if n.startswith("cross_entropy/"))
    distilled = [v for n, v in output.losses.items() if n.startswith("distillation/")]
    distilled = sum(distilled, torch.tensor(0.0)) * output.losses["distillation_weight"]
    torch.testing.assert_close(entropies, case.tensors["out.ce_loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(distilled, case.tensors["out.kl_loss"], rtol=1e-5, atol=0)
    total = case.tensors["out.ce_loss"] + case.tensors["out.kl_loss"]
    torch.testing.assert_close(output.loss, total, rtol=1e-5, atol=0)


def test_gradients_of_every_parameter(case):
    model, output = run(case)
    output.loss.backward()
    expected = case.named("grad.")
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    squares = 0.0
    for name, parameter in model.named_parameters():
        if name.startswith("item_encoder.missing_tokens."):
            assert not parameter.grad.any(), "every item of the golden cases has both modalities"
            continue
        gradient, reference = parameter.grad, expected.pop(name)
        # gradients that are zero up to rounding are compared relative to the largest gradient
        scale = max(float(reference.abs().max()), 1e-4 * largest)
        assert float((gradient - reference).abs().max()) <= GRADIENTS * scale, name
        squares += float(gradient.square().sum())
    assert not expected
    torch.testing.assert_close(
        torch.tensor(squares**0.5), case.tensors["out.grad_norm"], rtol=GRADIENTS, atol=0
    )


def test_item_embeddings(case):
    catalogue = case.model().eval().encode_catalogue()
    for source, embeddings in catalogue.items():
        expected = case.tensors[f"out.item_embeddings.{source}"]
        assert relative_error(embeddings[1:], expected[1:]) <= EMBEDDINGS, source


def test_sequence_embeddings_scores_and_top_10(case):
    model = case.model().eval()
    item_ids = case.tensors["in.item_ids"]
    catalogue = model.encode_catalogue()
    sequences = model.encode_sequences(item_ids[:, 1:])
    for source, embeddings in sequences.items():
        expected = case.tensors[f"out.user_embeddings.{source}"]
        assert relative_error(embeddings, expected) <= EMBEDDINGS, source
    scores = torch.stack([sequences[s] @ catalogue[s].T for s in model.sources]).mean(0)
    expected = case.tensors["out.scores"]
    kept = expected.isfinite()
    assert relative_error(scores[kept], expected[kept]) <= EMBEDDINGS
    for user, row in enumerate(item_ids):
        history = [int(i) for i in row if i]
        model.max_seq_length = item_ids.shape[1] - 1
        recommended = model.recommend([history], k=10).item_ids[0]
        assert recommended == case.tensors["out.top10"][user].tolist()

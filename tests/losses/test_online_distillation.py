"""The mixin, used with modules that need nothing else from the package."""

import pytest
import torch
from torch import nn

from odmt_sdk import OnlineDistillationMixin
from odmt_sdk.losses.teaching import TeachingEdge, register_teaching_graph, teaching_edges


class Towers(OnlineDistillationMixin, nn.Module):
    distillation_warmup_epochs = 0

    def __init__(self, sources=("id", "text", "image")):
        super().__init__()
        self.towers = nn.ModuleDict({source: nn.Linear(5, 7) for source in sources})

    def forward(self, x, labels, **kwargs):
        logits = {source: tower(x) for source, tower in self.towers.items()}
        return self.online_distillation_loss(logits, labels, **kwargs)


def test_it_has_no_init_and_no_state():
    assert "__init__" not in vars(OnlineDistillationMixin)
    assert list(Towers(()).state_dict()) == []


def test_the_loss_is_the_sum_of_its_parts():
    model = Towers()
    loss, parts = model(torch.randn(4, 5), torch.tensor([0, 6, 2, 1]))
    weight = parts["distillation_weight"]
    expected = sum(v for n, v in parts.items() if n.startswith("cross_entropy/"))
    expected = expected + weight * sum(v for n, v in parts.items() if n.startswith("distillation/"))
    torch.testing.assert_close(loss, expected)
    assert set(parts) == {
        *(f"{kind}/{s}" for kind in ("cross_entropy", "distillation") for s in model.towers),
        "distillation_weight",
    }


def test_sequences_and_ignored_positions():
    x, labels = torch.randn(2, 3, 5), torch.tensor([[-100, 1, 2], [-100, -100, 0]])
    model = Towers()
    whole = model(x, labels).loss
    kept = model(x[labels != -100], labels[labels != -100]).loss
    torch.testing.assert_close(whole, kept)


def test_all_positions_ignored_gives_zero():
    loss = Towers()(torch.randn(2, 5), torch.tensor([-100, -100])).loss
    loss.backward()
    assert loss == 0


def test_warmup_scales_the_distillation_only():
    model = Towers()
    model.distillation_weight, model.distillation_warmup_epochs = 1.0, 10
    x, labels = torch.randn(4, 5), torch.tensor([0, 6, 2, 1])
    early, late = model(x, labels, epoch=0), model(x, labels, epoch=10)
    assert early.parts["distillation_weight"] < 0.01
    assert late.parts["distillation_weight"] == 1
    assert model(x, labels).parts["distillation_weight"] == 1  # no epoch is given
    with pytest.raises(ValueError, match="epoch=-1 must be at least 0"):
        model(x, labels, epoch=-1)
    with pytest.raises(ValueError, match="epoch=nan must be at least 0"):
        model(x, labels, epoch=float("nan"))
    torch.testing.assert_close(early.parts["distillation/id"], late.parts["distillation/id"])


def test_weight_zero_leaves_distillation_out():
    model = Towers()
    model.distillation_weight = 0
    assert not [
        n for n in model(torch.randn(1, 5), torch.tensor([3])).parts if "distillation/" in n
    ]


@pytest.mark.parametrize("detach", [False, True])
def test_detached_teachers_get_no_gradient_from_their_students(detach):
    model = Towers(("id", "text"))
    model.teaching_graph = [TeachingEdge("text", ("id",))]
    model.detach_teacher = detach
    parts = model(torch.randn(4, 5), torch.tensor([0, 6, 2, 1])).parts
    teacher = model.towers["id"].weight
    (gradient,) = torch.autograd.grad(parts["distillation/text"], teacher, allow_unused=True)
    assert (gradient is None) == detach


def test_the_papers_graph():
    assert teaching_edges("paper", ("id", "text", "image", "audio")) == (
        TeachingEdge("text", ("id",)),
        TeachingEdge("image", ("id",)),
        TeachingEdge("audio", ("id",)),
        TeachingEdge("id", ("id", "text", "image", "audio")),
    )
    assert teaching_edges("paper", ("id",)) == ()


def test_other_graphs_for_any_sources():
    sources = ("id", "text", "image")
    assert teaching_edges("mutual", sources) == (
        TeachingEdge("id", ("text", "image")),
        TeachingEdge("text", ("id", "image")),
        TeachingEdge("image", ("id", "text")),
    )
    assert teaching_edges("ensemble", sources) == tuple(
        TeachingEdge(source, sources) for source in sources
    )
    assert teaching_edges("mutual", ("id",)) == teaching_edges("ensemble", ("id",)) == ()


@pytest.mark.parametrize("graph", ["mutual", "ensemble"])
def test_other_graphs_treat_all_sources_alike(graph):
    logits = {source: torch.randn(5, 7) for source in ("id", "text", "image")}
    labels = torch.randint(7, (5,))
    model = Towers()
    model.teaching_graph, model.distillation_warmup_epochs = graph, 0
    loss = model.online_distillation_loss(logits, labels).loss
    turned = dict(zip(("text", "image", "id"), logits.values(), strict=True))
    torch.testing.assert_close(model.online_distillation_loss(turned, labels).loss, loss)
    alike = model.online_distillation_loss(dict.fromkeys(logits, logits["id"]), labels).parts
    # with equal predictions, the loss is their entropy
    p = (logits["id"] / model.distillation_temperature).softmax(-1)
    entropy = -(p * p.log()).sum(-1).mean() * model.distillation_temperature**2
    for source in logits:
        torch.testing.assert_close(alike[f"distillation/{source}"], entropy)


def test_an_ensemble_teacher_is_the_mean_of_logits():
    logits = {"id": torch.randn(2, 5), "text": torch.randn(2, 5)}
    edge = TeachingEdge("id", ("id", "text"))
    mean = (logits["id"] + logits["text"]) / 2
    torch.testing.assert_close(edge.teacher_logits(logits), mean)


def test_own_graphs_by_name():
    @register_teaching_graph("text-teaches")
    def text_teaches(sources):
        return tuple(TeachingEdge(s, ("text",)) for s in sources if s != "text")

    model = Towers()
    model.teaching_graph = "text-teaches"
    x, labels = torch.randn(4, 5), torch.tensor([0, 6, 2, 1])
    parts = model(x, labels).parts
    temperature = model.distillation_temperature
    student, teacher = (model.towers[source](x) / temperature for source in ("id", "text"))
    expected = -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean() * temperature**2
    torch.testing.assert_close(parts["distillation/id"], expected)
    with pytest.raises(ValueError, match="registered already"):
        register_teaching_graph("text-teaches")(text_teaches)


def test_errors():
    model, x = Towers(), torch.randn(2, 5)
    with pytest.raises(ValueError, match="logits is empty"):
        Towers(())(x, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"logits of 'id' have shape \(2, 7\) and labels \(3,\)"):
        model(x, torch.tensor([0, 1, 2]))
    model.distillation_temperature = 0.0
    with pytest.raises(ValueError, match="distillation_temperature=0.0 must be greater than 0"):
        model(x, torch.tensor([0, 1]))
    model.distillation_temperature = 1.0
    model.teaching_graph = "paperr"
    with pytest.raises(ValueError, match="teaching_graph='paperr' is not registered"):
        model(x, torch.tensor([0, 1]))
    model.teaching_graph = [TeachingEdge("id", ("audio",))]
    with pytest.raises(ValueError, match="unknown: \\['audio'\\]"):
        model(x, torch.tensor([0, 1]))

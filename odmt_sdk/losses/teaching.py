"""Teaching graphs: who teaches whom."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from odmt_sdk.scoring import score_type


class TeachingEdge(NamedTuple):
    """One student and the sources whose mean logits teach it.

    Args:
        student: a source.
        teachers: one or several sources; may include the student.
    """

    student: str
    teachers: tuple[str, ...]

    def teacher_logits(self, logits: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean of the teachers' logits, in float32 at least."""
        total = logits[self.teachers[0]].to(score_type(logits[self.teachers[0]]))
        for teacher in self.teachers[1:]:
            total = total + logits[teacher]
        return total if len(self.teachers) == 1 else total / len(self.teachers)


TeachingGraph = tuple[TeachingEdge, ...]
TeachingGraphBuilder = Callable[[tuple[str, ...]], TeachingGraph]
_TEACHING_GRAPHS: dict[str, TeachingGraphBuilder] = {}


def register_teaching_graph(name: str) -> Callable[[TeachingGraphBuilder], TeachingGraphBuilder]:
    """Make a teaching graph available by name.

    Args:
        name: its name.

    Returns:
        A decorator for a function `(sources) -> tuple of TeachingEdge`, sources being
        ("id", *modalities).

    Raises:
        ValueError: if the name is taken.

    Examples:
        >>> @register_teaching_graph("text-teaches")                          # doctest: +SKIP
        ... def text_teaches(sources):
        ...     return tuple(TeachingEdge(s, ("text",)) for s in sources if s != "text")
    """

    def register(builder: TeachingGraphBuilder) -> TeachingGraphBuilder:
        if name in _TEACHING_GRAPHS:
            raise ValueError(f"a teaching graph named {name!r} is registered already")
        _TEACHING_GRAPHS[name] = builder
        return builder

    return register


def teaching_edges(graph: str | Sequence[TeachingEdge], sources: tuple[str, ...]) -> TeachingGraph:
    """Spell a teaching graph out for the sources at hand.

    Args:
        graph: the name of a registered graph, or its edges.
        sources: the sources that have logits.

    Returns:
        The edges; none where there is a single source, which has nobody to learn from.

    Raises:
        ValueError: if the name is unknown, or an edge names a source that is not there.
    """
    if isinstance(graph, str):
        if graph not in _TEACHING_GRAPHS:
            raise ValueError(
                f"teaching_graph={graph!r} is not registered; known are "
                f"{sorted(_TEACHING_GRAPHS)}. Add your own with register_teaching_graph, or pass "
                "a sequence of TeachingEdge"
            )
        return _TEACHING_GRAPHS[graph](sources) if len(sources) > 1 else ()
    for edge in graph:
        strangers = sorted({edge.student, *edge.teachers} - set(sources))
        if strangers or not edge.teachers:
            raise ValueError(
                f"teaching edge {edge.student!r} <- {edge.teachers} needs teachers, and names only "
                f"from {list(sources)}; unknown: {strangers}"
            )
    return tuple(graph)


@register_teaching_graph("paper")
def paper_graph(sources: tuple[str, ...]) -> TeachingGraph:
    """The paper's graph: the ID teaches every modality, the mean of all sources teaches the ID.

    Args:
        sources: ("id", *modalities); without "id" the first source takes its place.

    Returns:
        The edges.

    Source: section 3.3 of the paper, https://arxiv.org/abs/2308.04067.
    """
    centre = "id" if "id" in sources else sources[0]
    modalities = (source for source in sources if source != centre)
    return (
        *(TeachingEdge(modality, (centre,)) for modality in modalities),
        TeachingEdge(centre, sources),
    )


@register_teaching_graph("mutual")
def mutual_graph(sources: tuple[str, ...]) -> TeachingGraph:
    """Every source learns from the mean of all the others.

    Args:
        sources: at least two.

    Returns:
        One edge per source, as many as the paper's graph has.

    Source: after Zhang et al. 2018, https://arxiv.org/abs/1706.00384.
    """
    return tuple(
        TeachingEdge(source, tuple(other for other in sources if other != source))
        for source in sources
    )


@register_teaching_graph("ensemble")
def ensemble_graph(sources: tuple[str, ...]) -> TeachingGraph:
    """Every source learns from the mean of all, itself among them.

    Args:
        sources: at least two.

    Returns:
        One edge per source, as many as the paper's graph has.

    Source: after Zhu and Gong 2018, https://arxiv.org/abs/1806.04606.
    """
    return tuple(TeachingEdge(source, sources) for source in sources)

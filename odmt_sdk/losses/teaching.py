"""Teaching graphs: which source learns from which."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from odmt_sdk.registry import Registry
from odmt_sdk.scoring import score_type


class TeachingEdge(NamedTuple):
    """One student and the sources that teach it through their mean logits.

    Args:
        student: the source that learns.
        teachers: one or more sources; may include the student.
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
TEACHING_GRAPHS: Registry[TeachingGraphBuilder] = Registry(
    "teaching graph", "odmt_sdk.register_teaching_graph", "odmt_sdk.losses.teaching_graphs"
)


def register_teaching_graph(name: str) -> Callable[[TeachingGraphBuilder], TeachingGraphBuilder]:
    """Register a teaching graph under a name.

    Args:
        name: the name to use as `teaching_graph`.

    Returns:
        A decorator for a function `(sources) -> tuple of TeachingEdge`. `sources` is
        ("id", *modalities).

    Raises:
        ValueError: if the name is already registered.

    Examples:
        >>> @register_teaching_graph("text-teaches")                          # doctest: +SKIP
        ... def text_teaches(sources):
        ...     return tuple(TeachingEdge(s, ("text",)) for s in sources if s != "text")
    """

    def register(builder: TeachingGraphBuilder) -> TeachingGraphBuilder:
        TEACHING_GRAPHS.add(name, builder, by=builder)
        return builder

    return register


def check_teaching_graph(name: str) -> None:
    """Check that a teaching graph of this name is registered.

    Args:
        name: the name.

    Raises:
        ValueError: if it is not registered.
    """
    if name not in TEACHING_GRAPHS:
        raise ValueError(
            f"teaching_graph={name!r} is not registered; known are {sorted(TEACHING_GRAPHS)}. "
            "Add your own with odmt_sdk.register_teaching_graph"
        )


def teaching_edges(
    graph: str | Sequence[tuple[str, tuple[str, ...]]], sources: tuple[str, ...]
) -> TeachingGraph:
    """List the edges of a teaching graph for the given sources.

    Args:
        graph: the name of a registered graph, or its edges: `TeachingEdge`s, or pairs of a student
            and its teachers.
        sources: the sources that have logits.

    Returns:
        The edges. A named graph has none if there is a single source.

    Raises:
        ValueError: if the name is unknown, or an edge names no teacher or an unknown source.
    """
    if isinstance(graph, str):
        check_teaching_graph(graph)
        return TEACHING_GRAPHS.get(graph)(sources) if len(sources) > 1 else ()
    edges = tuple(
        TeachingEdge(student, (teachers,) if isinstance(teachers, str) else tuple(teachers))
        for student, teachers in graph
    )
    for edge in edges:
        strangers = sorted({edge.student, *edge.teachers} - set(sources))
        if strangers or not edge.teachers:
            raise ValueError(
                f"teaching edge {edge.student!r} <- {edge.teachers} must have at least one teacher "
                f"and use only sources of {list(sources)}; unknown: {strangers}"
            )
    return edges

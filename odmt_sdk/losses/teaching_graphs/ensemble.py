"""Every source learns from the mean of all sources."""

from odmt_sdk.losses.teaching import TeachingEdge, TeachingGraph, register_teaching_graph


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

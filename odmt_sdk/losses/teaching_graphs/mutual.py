"""Every source learns from the mean of the others."""

from odmt_sdk.losses.teaching import TeachingEdge, TeachingGraph, register_teaching_graph


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

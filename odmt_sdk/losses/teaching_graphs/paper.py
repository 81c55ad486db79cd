"""The teaching graph of the paper."""

from odmt_sdk.losses.teaching import TeachingEdge, TeachingGraph, register_teaching_graph


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

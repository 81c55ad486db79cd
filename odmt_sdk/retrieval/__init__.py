"""Finding the items to recommend."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.item_neighbours import AddedScores, ItemNeighbours
    from odmt_sdk.retrieval.popularity_prior import PopularityPrior
    from odmt_sdk.retrieval.rerank import MaximalMarginalRelevance
    from odmt_sdk.retrieval.top_k import top_k_rows
    from odmt_sdk.scoring import fused_vectors

__all__ = [
    "AddedScores",
    "ItemNeighbours",
    "MaximalMarginalRelevance",
    "PopularityPrior",
    "fused_vectors",
    "top_k_rows",
]

_HOMES = {
    "AddedScores": "odmt_sdk.item_neighbours",
    "ItemNeighbours": "odmt_sdk.item_neighbours",
    "MaximalMarginalRelevance": "odmt_sdk.retrieval.rerank",
    "PopularityPrior": "odmt_sdk.retrieval.popularity_prior",
    "fused_vectors": "odmt_sdk.scoring",
    "top_k_rows": "odmt_sdk.retrieval.top_k",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)

"""Evaluation: how well a model ranks the next item of each user."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.evaluation.evaluate import rank_targets
    from odmt_sdk.evaluation.groups import popularity_groups
    from odmt_sdk.evaluation.metrics import hit_rate, mrr, ndcg, ranking_metrics, recall
    from odmt_sdk.evaluation.ranks import target_ranks
    from odmt_sdk.evaluation.table import metrics_table
    from odmt_sdk.markdown import markdown_table
    from odmt_sdk.scoring_model import ScoringModel

__all__ = [
    "ScoringModel",
    "hit_rate",
    "markdown_table",
    "metrics_table",
    "mrr",
    "ndcg",
    "popularity_groups",
    "rank_targets",
    "ranking_metrics",
    "recall",
    "target_ranks",
]

_HOMES = {
    "ScoringModel": "odmt_sdk.scoring_model",
    "hit_rate": "odmt_sdk.evaluation.metrics",
    "markdown_table": "odmt_sdk.markdown",
    "metrics_table": "odmt_sdk.evaluation.table",
    "mrr": "odmt_sdk.evaluation.metrics",
    "ndcg": "odmt_sdk.evaluation.metrics",
    "popularity_groups": "odmt_sdk.evaluation.groups",
    "rank_targets": "odmt_sdk.evaluation.evaluate",
    "ranking_metrics": "odmt_sdk.evaluation.metrics",
    "recall": "odmt_sdk.evaluation.metrics",
    "target_ranks": "odmt_sdk.evaluation.ranks",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)

"""Formats the metrics of several models as a Markdown table."""

from collections.abc import Mapping, Sequence

from odmt_sdk.markdown import markdown_table

DEFAULT_METRICS = ("hit_rate@10", "ndcg@10", "hit_rate@20", "ndcg@20")


def metrics_table(
    results: Mapping[str, Mapping[str, float]],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    sources: bool = True,
) -> str:
    """Format the metrics of several models as a table.

    Args:
        results: model name -> its metrics, as returned by `evaluate`.
        metrics: metrics to show, one per column.
        sources: whether to add a row for each source of models with several sources.

    Returns:
        A Markdown table, aligned so that it is readable as plain text.

    Raises:
        ValueError: if a model lacks a metric.

    Examples:
        >>> print(metrics_table({"SASRec": {"ndcg@10": 0.25}}, metrics=["ndcg@10"]))
        | model  | ndcg@10 |
        |--------|--------:|
        | SASRec |  0.2500 |
    """
    rows = [["model", *metrics]]
    for name, found in results.items():
        missing = [metric for metric in metrics if metric not in found]
        if missing:
            raise ValueError(f"{name!r} has no {missing}; it has {sorted(found)}")
        rows.append([name, *(f"{found[metric]:.4f}" for metric in metrics)])
        parts = dict.fromkeys(key.split("/")[0] for key in found if "/" in key)
        own = [part for part in parts if f"{part}/users" not in found]  # the others are groups
        for source in own if sources and len(own) > 1 else ():
            values = (found[f"{source}/{metric}"] for metric in metrics)
            rows.append([f"- {source} alone", *(f"{value:.4f}" for value in values)])
    return markdown_table(rows)

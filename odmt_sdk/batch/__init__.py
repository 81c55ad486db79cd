"""Jobs over many users or items: Parquet files on one machine, Ray Data, or Spark."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.batch.parquet_job import BatchReport, recommend_parquet
    from odmt_sdk.batch.ray_data import recommend_ray
    from odmt_sdk.batch.ray_extraction import RayExtraction
    from odmt_sdk.batch.spark import recommend_spark
    from odmt_sdk.batch.table_recommender import TableRecommender

__all__ = [
    "BatchReport",
    "RayExtraction",
    "TableRecommender",
    "recommend_parquet",
    "recommend_ray",
    "recommend_spark",
]

_HOMES = {
    "BatchReport": "odmt_sdk.batch.parquet_job",
    "RayExtraction": "odmt_sdk.batch.ray_extraction",
    "TableRecommender": "odmt_sdk.batch.table_recommender",
    "recommend_parquet": "odmt_sdk.batch.parquet_job",
    "recommend_ray": "odmt_sdk.batch.ray_data",
    "recommend_spark": "odmt_sdk.batch.spark",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)

"""Interactions of users with items, and the datasets for training and evaluation."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.data.readers.amazon import read_amazon
    from odmt_sdk.data.readers.hm import read_hm
    from odmt_sdk.data.readers.microlens import read_microlens
    from odmt_sdk.data.readers.movielens import read_movielens
    from odmt_sdk.data.readers.paper import read_paper
    from odmt_sdk.data.readers.raw_data import RawData
    from odmt_sdk.data.readers.recbole import read_recbole
    from odmt_sdk.data.report import Report, Step
    from odmt_sdk.data.sequences import RankingDataset, SequenceDataset, TrainingCounts
    from odmt_sdk.data.splits import Split
    from odmt_sdk.tables import read_columns

__all__ = [
    "RankingDataset",
    "RawData",
    "Report",
    "SequenceDataset",
    "Split",
    "Step",
    "TrainingCounts",
    "read_amazon",
    "read_columns",
    "read_hm",
    "read_microlens",
    "read_movielens",
    "read_paper",
    "read_recbole",
]

_HOMES = {
    "RankingDataset": "odmt_sdk.data.sequences",
    "RawData": "odmt_sdk.data.readers.raw_data",
    "Report": "odmt_sdk.data.report",
    "SequenceDataset": "odmt_sdk.data.sequences",
    "Split": "odmt_sdk.data.splits",
    "Step": "odmt_sdk.data.report",
    "TrainingCounts": "odmt_sdk.data.sequences",
    "read_amazon": "odmt_sdk.data.readers.amazon",
    "read_columns": "odmt_sdk.tables",
    "read_hm": "odmt_sdk.data.readers.hm",
    "read_microlens": "odmt_sdk.data.readers.microlens",
    "read_movielens": "odmt_sdk.data.readers.movielens",
    "read_paper": "odmt_sdk.data.readers.paper",
    "read_recbole": "odmt_sdk.data.readers.recbole",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)

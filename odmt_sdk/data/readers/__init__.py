"""Readers for published data sets: one call from a folder to interactions and items."""

from odmt_sdk.data.readers.amazon import read_amazon
from odmt_sdk.data.readers.hm import read_hm
from odmt_sdk.data.readers.microlens import read_microlens
from odmt_sdk.data.readers.movielens import read_movielens
from odmt_sdk.data.readers.paper import read_paper
from odmt_sdk.data.readers.raw_data import RawData
from odmt_sdk.data.readers.recbole import read_recbole

__all__ = [
    "RawData",
    "read_amazon",
    "read_hm",
    "read_microlens",
    "read_movielens",
    "read_paper",
    "read_recbole",
]

"""Presets: settings for the datasets in the documentation, and published results on them."""

from typing import Any

# Options of `compare.py` by name of the dataset.
PRESETS: dict[str, dict[str, Any]] = {
    # as in MQL4GRec and MACRec: all users and items of their files, histories of 20
    "instruments": {"positions": 20, "last": 0, "core": 1},
    "ml-1m-50": {"positions": 50, "last": 0},
    "ml-1m-200": {"positions": 200, "last": 0},
    "xwines": {"positions": 20, "last": 0, "core": 1, "min_user": 5},
    "hm-fashion": {"positions": 20, "last": 0, "core": 1, "min_user": 3},
    "ml-latest": {"positions": 50, "last": 0},
    # as in the paper: the last 15 interactions of each user
    "films-15": {"positions": 12, "last": 15},
}

Published = tuple[str, float, float, str]  # model, hit_rate@10, ndcg@10, source

_MACREC = "arXiv 2511.15122, table 2"
_IDIOMOE = "IDIOMoE, from a public summary"
_META = "arXiv 2402.17152, meta-recsys/generative-recommenders"
_NETEASE = "NetEase-Media/HSTU-Tensorflow"
_ML_1M: tuple[Published, ...] = (
    ("BERT4Rec", 0.2843, 0.1537, _META),
    ("SASRec", 0.2853, 0.1603, _META),
    ("GRU4Rec", 0.2811, 0.1648, _META),
    ("HSTU", 0.3097, 0.1720, _META),
    ("HSTU-large", 0.3294, 0.1893, _META),
    ("HSTU with full softmax", 0.3419, 0.1944, _NETEASE),
)
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "instruments": (
        ("BERT4Rec", 0.1081, 0.0739, _MACREC),
        ("SASRec", 0.1233, 0.0746, _MACREC),
        ("FDSA", 0.1249, 0.0859, _MACREC),
        ("S3-Rec", 0.1123, 0.0743, _MACREC),
        ("MISSRec", 0.1361, 0.0880, _MACREC),
        ("P5-CID", 0.1119, 0.0704, _MACREC),
        ("VIP5", 0.1071, 0.0872, _MACREC),
        ("TIGER", 0.1221, 0.0950, _MACREC),
        ("MQL4GRec, not pre-trained", 0.1291, 0.0997, _MACREC),
        ("MACRec", 0.1363, 0.1046, _MACREC),
        ("MQL4GRec, pre-trained", 0.1375, 0.1060, _IDIOMOE),
        ("IDIOMoE", 0.1385, 0.1054, _IDIOMOE),
    ),
    "ml-1m-50": _ML_1M,
    "ml-1m-200": _ML_1M,
}

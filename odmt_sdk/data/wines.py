"""A small real data set that comes with the package: ratings of wines.

Letters: E events, B users.
"""

import gzip
import json
from pathlib import Path

import numpy as np

from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.readers.raw_data import RawData, make_items

FILE = Path(__file__).parent / "wines.json.gz"


def load_wines(*, min_rating: float = 0) -> RawData:
    """Load a sample of X-Wines Slim, which comes with the package and needs no network.

    The sample has all 1,007 wines, and all ratings of 3,000 users, drawn from the 10,254 users with
    at least 5 ratings. It is in the public domain (CC0 1.0); its authors ask for citation, see
    Source.

    Args:
        min_rating: minimum rating, 1 to 5; ratings below it are dropped. 0 keeps all.

    Returns:
        Interactions with Unix times, 2012 to 2021, and the items. The title of a wine is its name
        and winery. Its text describes origin, grapes, body, acidity, alcohol and food. Wines have
        no pictures. Ids are the strings of X-Wines, as in `shipped:wines-sasrec`.

    Raises:
        ValueError: if `min_rating` is above 5.

    Source: R. X. de Azambuja, A. J. Morais, V. Filipe, X-Wines: A Wine Dataset for Recommender
    Systems and Machine Learning, Big Data Cogn. Comput. 2023, 7(1), 20,
    https://doi.org/10.3390/bdcc7010020.

    Examples:
        >>> interactions, items = load_wines()
        >>> interactions
        Interactions(44,035 events of 3,000 users with 960 items, 5 to 58 a user)
        >>> items["title"][0]
        'Espumante Moscatel (Casa Perini)'
    """
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        sample = json.load(file)
    events, items = sample["events"], sample["items"]
    lengths = np.array([len(own) for own in events["item"]])  # (B,)
    ratings = np.concatenate(events["rating"])  # (E,)
    high = ratings >= min_rating
    if not high.any():
        raise ValueError(f"min_rating={min_rating} is above every rating, at most {ratings.max()}")
    table = {
        "user_id": np.repeat(events["user_id"], lengths),
        "item_id": np.array(items["item_id"])[np.concatenate(events["item"])],
        "timestamp": np.concatenate([np.cumsum(times) for times in events["time"]]),
    }
    none = [None] * len(items["item_id"])
    return RawData(
        Interactions.from_table({name: column[high] for name, column in table.items()}),
        make_items(items["item_id"], items["title"], items["text"], none),
    )

"""Damages feature stores at random and opens them; prints the outcome if run as a program.

usage: mutated_stores.py COUNT [SEED]
"""

import contextlib
import shutil
import warnings

import torch
from mutated_adapters import print_outcomes, use_damaged

from odmt_sdk import ItemFeatures

COUNT = 23


def make_store(folder):
    """Create a small store with several shards that was extended, corrected and standardized."""
    draw = torch.Generator().manual_seed(0)
    sounds = [torch.randn(1 + i % 3, 5, generator=draw) for i in range(COUNT)]
    sounds[4] = None
    ids = [f"item-{i}" if i % 2 else i for i in range(COUNT)]
    settings = {"path": folder, "shard_items": 6, "progress": False}
    smells = torch.randn(COUNT, 3, generator=draw)

    def extend(count):
        arrays = {"sound": sounds[:count], "smell": smells[:count]}
        return ItemFeatures.from_items({"item_id": ids[:count]}, arrays=arrays, **settings)

    extend(14)
    extend(COUNT)
    smells[3] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about changed items
        features = extend(COUNT)
    features.standardize()
    return lambda: extend(COUNT)


def use(features):
    """Read everything in the features."""
    for some in (features, features.standardize()):
        some.gather(torch.arange(len(features.vocabulary) + 1))
    for name in features.modalities:
        features[name]
    ids = features.vocabulary.item_ids
    assert len(features.vocabulary.rows(ids)) == len(ids)
    str(features)
    str(features.report)


def open_mutated(count, seed, work):
    """Open `count` damaged stores.

    Each must give features, a `ValueError` or a `FileNotFoundError`. Other exceptions propagate. A
    quarter of them is also extracted into, which may raise an `OSError`.
    """
    damaged, whole = work / "damaged", work / "whole"
    extend = make_store(damaged)
    shutil.copytree(damaged, whole)

    def open_(number, whole):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                use(ItemFeatures.open(damaged))
                outcome = "opened"
            except (ValueError, FileNotFoundError) as error:
                if type(error) not in (ValueError, FileNotFoundError) or not str(error):
                    raise AssertionError(f"raw error {error!r}") from error
                outcome = "refused"
            if number % 4 == 0:
                with contextlib.suppress(ValueError, OSError):
                    extend()
        return outcome

    return use_damaged(count, seed, [whole], damaged, open_)


if __name__ == "__main__":
    print_outcomes(open_mutated)

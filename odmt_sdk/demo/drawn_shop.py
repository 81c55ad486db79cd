"""The shop that the page shows by default, and its model, trained once and kept."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from odmt_sdk.backbones.models.sasrec import SASRec
from odmt_sdk.config import ODMTConfig
from odmt_sdk.data.interactions import Interactions
from odmt_sdk.data.splits import leave_one_out
from odmt_sdk.errors import AdapterError
from odmt_sdk.features.features import ItemFeatures
from odmt_sdk.paths import user_path
from odmt_sdk.pipeline import fit
from odmt_sdk.toy_shop.shop import Shop, make_shop
from odmt_sdk.toy_shop.tiny_encoders import tiny_image_encoder, tiny_text_encoder
from odmt_sdk.wrapper import ODMTWrapper

NUM_ITEMS, NUM_USERS, NUM_NEW = 400, 1000, 24
EPOCHS = 24
MAX_SEQ_LENGTH = 12
# Part of the folder's name: change it with anything that changes the model.
RECIPE = "drawn-shop-1"


def drawn_shop(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    epochs: int = EPOCHS,
    num_users: int = NUM_USERS,
) -> tuple[ODMTWrapper, dict[str, list[Any]], dict[str, list[str]]]:
    """Make the drawn shop and its model; the model is trained the first time and then kept.

    The last 24 items of the shop are new: nobody has bought them yet, so the model knows their
    pictures and titles only.

    Args:
        cache_dir: where the model is kept; None = `odmt-sdk` in `$XDG_CACHE_HOME`, by default
            `~/.cache`.
        epochs: how long to train.
        num_users: number of customers whose purchases to train on.

    Returns:
        The model, the table of items, and name -> item ids of example histories.

    Raises:
        ImportError: if there is no kept model and accelerate is not installed.
    """
    shop = make_shop(num_items=NUM_ITEMS, num_users=num_users, image_size=192)
    folder = _cache(cache_dir) / f"{RECIPE}-{num_users}-{epochs}"
    try:
        model = ODMTWrapper.from_pretrained(folder)
    except AdapterError:  # there is none, or one of another version
        model = _train(shop, folder, epochs)
    return model, shop.items, _examples(shop)


def _train(shop: Shop, folder: Path, epochs: int) -> ODMTWrapper:
    print(
        f"Training a small model on the drawn shop, once; it is kept in {folder}",
        file=sys.stderr,
        flush=True,
    )
    features = ItemFeatures.from_items(
        shop.items,
        text="title",
        text_encoder=tiny_text_encoder(shop.items["title"]),
        image_encoder=tiny_image_encoder(),
        text_pooling="mean",
        image_pooling="mean",
        max_text_tokens=14,
        max_image_tokens=1,
    ).standardize()
    sold = _sold(shop)
    split = leave_one_out(sold, vocabulary=features.vocabulary, max_seq_length=MAX_SEQ_LENGTH)
    with _seeded(), TemporaryDirectory() as scratch:
        model = ODMTWrapper(
            SASRec(32, max_seq_length=MAX_SEQ_LENGTH, dropout=0.1),
            features,
            ODMTConfig(dropout=0.05, distillation_weight=0.2, id_dropout=0.2),
        )
        fit(
            model,
            split,
            scratch,
            epochs=epochs,
            batch_size=64,
            learning_rate=3e-3,
        )
        model.card.title = "The drawn shop of the demo"
        folder.parent.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
    return model.eval()


def _sold(shop: Shop) -> Interactions:
    """The interactions without the new items."""
    new = set(shop.items["item_id"][-NUM_NEW:])
    kept = [place for place, item in enumerate(shop.interactions["item_id"]) if item not in new]
    return Interactions.from_table(
        {name: [column[place] for place in kept] for name, column in shop.interactions.items()}
    )


def _examples(shop: Shop) -> dict[str, list[str]]:
    """The first purchases of a few customers, and a new item."""
    bought: dict[str, list[str]] = {}
    new = shop.items["item_id"][-NUM_NEW:]
    pairs = zip(shop.interactions["user_id"], shop.interactions["item_id"], strict=True)
    for user, item in pairs:
        if item not in new:
            bought.setdefault(user, []).append(item)
    users = sorted(bought)[:3]
    examples = {f"Customer {number}": bought[user][:5] for number, user in enumerate(users, 1)}
    return {**examples, "A new item": [new[0]]}


def _cache(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is not None:
        return user_path(cache_dir)
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "odmt-sdk"


@contextmanager
def _seeded() -> Iterator[None]:
    """Draw the same weights each time, and leave the caller's random state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield

"""Wrapped models of every family learn the toy shop and beat the popularity baseline.

Letters: B users, L positions, N items, D hidden size.
"""

import math
from functools import cache

import id_models as models
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from odmt_sdk import (
    HSTU,
    GRU4Rec,
    IdLookupBackbone,
    Interactions,
    ItemVocabulary,
    Mamba2,
    NextItNet,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    SequenceCollator,
    evaluate,
    leave_one_out,
    make_shop,
)

N, D, LONGEST = 60, 32, 12
EPOCHS = 15

BUILT_IN = {
    "SASRec": lambda: SASRec(D, max_seq_length=LONGEST),
    "GRU4Rec": lambda: GRU4Rec(D),
    "NextItNet": lambda: NextItNet(D),
    "HSTU": lambda: HSTU(D, max_seq_length=LONGEST),
    "Mamba2": lambda: Mamba2(D),
}
# Users' models with their own embedding tables, passed to the wrapper unchanged.
ID_ONLY = {
    "recurrent": lambda: models.GRURecommender(N + 1, D),
    "attention": lambda: models.AttentionRecommender(N + 1, 2 * D),
    "session graph": lambda: models.SessionGraphRecommender(N + 1, D),
    "memory": lambda: models.MemoryRecommender(N + 1, D),
    "convolution": lambda: models.ConvolutionRecommender(N + 1, D),
    # its forward returns scores
    "mixed": lambda: IdLookupBackbone(models.MixedRecommender(N, D), method="encode"),
}
BACKBONES = {**BUILT_IN, **ID_ONLY}


@cache
def shop_split():
    """Split a toy shop of 60 items and 1,000 customers."""
    shop = make_shop(num_items=N, num_users=1000, image_size=16)
    return leave_one_out(
        Interactions.from_table(shop.interactions),
        vocabulary=ItemVocabulary(shop.items["item_id"]),
        max_seq_length=LONGEST,
    )


@cache
def ndcg_of_popularity() -> float:
    """Return the NDCG@10 of the popularity baseline on the test queries."""
    split, gains = shop_split(), []
    for query in split.test:
        sold = split.item_counts.clone()
        sold[0], sold[query["seen_ids"]] = -1, -1
        rank = 1 + int((sold > split.item_counts[query["target_ids"]]).sum())
        gains.append(1 / math.log2(rank + 1) if rank <= 10 else 0.0)
    return sum(gains) / len(gains)


def ndcg_after_training(backbone: nn.Module) -> float:
    """Return the NDCG@10 on the test queries after a few seconds of training on IDs only."""
    split = shop_split()
    config = ODMTConfig(fusion="id", distillation_weight=0.0, max_seq_length=LONGEST)
    model = ODMTWrapper(backbone, config=config, vocabulary=split.vocabulary)
    model.set_item_popularity(split.item_counts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = DataLoader(split.train, 128, shuffle=True, collate_fn=SequenceCollator())
    for _ in range(EPOCHS):
        for batch in batches:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
    return evaluate(model, split.test, k=(10,), progress=False)["ndcg@10"]


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread, because these models are too small to benefit from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("build", BACKBONES.values(), ids=list(BACKBONES))
def test_learns_more_than_what_sells_best(build):
    assert ndcg_after_training(build()) > 1.1 * ndcg_of_popularity()

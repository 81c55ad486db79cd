"""Query and item vectors of a trained model, by source.

Letters: Q queries, N items, D hidden size.
"""

import torch
from torch.utils.data import DataLoader

from odmt_sdk import ODMTWrapper, SequenceCollator
from odmt_sdk.data import RankingDataset

Vectors = tuple[torch.Tensor, torch.Tensor]  # queries (Q, D) and items (N + 1, D)


@torch.no_grad()
def query_vectors(model: ODMTWrapper, queries: RankingDataset) -> dict[str, Vectors]:
    """Encode all queries and all items; their inner products are the scores of a source.

    Args:
        model: a model in eval mode.
        queries: queries on the model's catalogue.

    Returns:
        Source -> vectors of the queries (Q, D) and of the items (N + 1, D).
    """
    catalogue = model.encode_catalogue()
    found: dict[str, list[torch.Tensor]] = {source: [] for source in model.sources}
    for batch in DataLoader(queries, batch_size=256, collate_fn=SequenceCollator()):
        encoded = model.encode_sequences(
            batch["item_ids"], batch["attention_mask"], item_embeddings=catalogue
        )
        for source in model.sources:
            found[source].append(encoded[source])
    return {source: (torch.cat(found[source]), catalogue[source]) for source in model.sources}

"""Wrap five kinds of backbones without changing them, train them briefly and recommend.

The data is a small synthetic shop. Random vectors for the attributes of its items replace the
tokens of a text and an image encoder, so no encoder has to run.
"""

import functools

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2Model

from odmt_sdk import (
    Interactions,
    ItemFeatures,
    ODMTConfig,
    ODMTWrapper,
    SequenceCollator,
    evaluate,
    leave_one_out,
    make_shop,
)

WIDTH, LENGTH, STEPS = 32, 12, 50


class OwnClass(nn.Module):
    """Custom argument names, a mask that is True at padding, a tuple output: all detected."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, seq_emb, padding_mask):
        length = seq_emb.shape[1]
        future = torch.ones(length, length, dtype=torch.bool, device=seq_emb.device).triu(1)
        read, weights = self.attention(
            seq_emb, seq_emb, seq_emb, attn_mask=future, key_padding_mask=padding_mask
        )
        return self.norm(seq_emb + read), weights


class IdsOnly(nn.Module):
    """Takes item ids, looks them up in its own embedding table, returns the last item's state."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(n_items, WIDTH, padding_idx=0)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, item_seq, item_seq_len):
        states, _ = self.gru(self.item_embedding(item_seq))
        return states[torch.arange(len(states)), item_seq_len - 1]


def fading_memory(mix, x, mask):
    """A plain function: a decaying sum of past items; its module is passed as an argument."""
    positions = torch.arange(x.shape[1], device=x.device)
    weights = (0.6 ** (positions.unsqueeze(1) - positions).to(x.dtype)).tril()  # (L, L)
    return mix(weights @ (x * mask.unsqueeze(-1)))


def tokens(attributes: dict[str, list[str]], names: list[str], width: int) -> torch.Tensor:
    """Return tokens (N + 1, number of names, width), one per attribute; row 0 is padding."""
    columns = []
    for name in names:
        values = sorted(set(attributes[name]))
        vectors = torch.randn(len(values), width)
        columns.append(vectors[[values.index(value) for value in attributes[name]]])
    return nn.functional.pad(torch.stack(columns, dim=1), (0, 0, 0, 0, 1, 0))


def main() -> None:
    torch.manual_seed(0)
    shop = make_shop(num_items=100, num_users=300, image_size=16)
    features = ItemFeatures.from_tensors(
        item_ids=shop.items["item_id"],
        text=tokens(shop.attributes, ["category", "style", "finish", "brand"], 24),
        image=tokens(shop.attributes, ["category", "colour", "pattern"], 16),
    )
    split = leave_one_out(
        Interactions.from_table(shop.interactions),
        vocabulary=features.vocabulary,
        max_seq_length=LENGTH,
    )
    backbones = {
        "own class": OwnClass(),
        "torch GRU": nn.GRU(WIDTH, WIDTH, num_layers=2),
        "transformers": GPT2Model(GPT2Config(n_embd=WIDTH, n_layer=1, n_head=2)),
        "item ids only": IdsOnly(n_items=500),
        "function": functools.partial(fading_memory, nn.Linear(WIDTH, WIDTH)),
    }
    history = split.vocabulary.ids(split.test[0]["seen_ids"].tolist())
    print(f"{shop}\n\nbackbone       read by                 ndcg@10 untrained  trained  next item")
    for name, backbone in backbones.items():
        model = ODMTWrapper(backbone, features, ODMTConfig(max_seq_length=LENGTH, dropout=0.0))
        model.set_item_popularity(split.item_counts)
        before = evaluate(model, split.test, k=(10,), progress=False)["ndcg@10"]
        train(model, split.train)
        after = evaluate(model, split.test, k=(10,), progress=False)["ndcg@10"]
        adapter = type(model.backbones.of("id")).__name__
        item = model.recommend([history], k=1).item_ids[0][0]
        print(f"{name:<13}  {adapter:<24}{before:>16.3f}  {after:>7.3f}  {item}")


def train(model: ODMTWrapper, dataset) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batches = DataLoader(dataset, 64, shuffle=True, collate_fn=SequenceCollator())
    step = 0
    model.train()
    while step < STEPS:
        for batch in batches:
            loss = model(**batch, epoch=step / len(batches)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1


if __name__ == "__main__":
    main()

"""Small models and data sets shared by tests."""

import torch
from torch import nn

from odmt_sdk import Interactions, ItemFeatures, ODMTConfig, ODMTWrapper, leave_one_out

HIDDEN_SIZE = 8


class MyModel(nn.Module):
    """A user's own causal model, independent of the package."""

    def __init__(self, width: int = HIDDEN_SIZE):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, inputs_embeds, attention_mask):
        counts = attention_mask.cumsum(1).clamp(min=1).unsqueeze(-1)
        return self.mix(inputs_embeds.cumsum(1) / counts) + inputs_embeds


def toy_features(num_items: int = 12, item_ids=None, seed: int = 0) -> ItemFeatures:
    generator = torch.Generator().manual_seed(seed)
    return ItemFeatures.from_tensors(
        item_ids=item_ids,
        text=torch.randn(num_items + 1, 4, 6, generator=generator),
        image=torch.randn(num_items + 1, 3, 5, generator=generator),
        lengths={"text": torch.tensor([0] + [1 + i % 4 for i in range(num_items)])},
    )


def toy_model(backbone: nn.Module | None = None, **settings) -> ODMTWrapper:
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    return ODMTWrapper(
        backbone=backbone or MyModel(), item_features=features, config=ODMTConfig(**settings)
    )


def toy_split(num_users: int = 40, max_seq_length: int = 6):
    """Every user goes through the twelve items in a circle, each from another start."""
    rows = [
        (f"user-{user}", f"item-{(user + step) % 12}", step)
        for user in range(num_users)
        for step in range(8)
    ]
    users, items, times = zip(*rows, strict=True)
    table = {"user_id": users, "item_id": items, "timestamp": times}
    vocabulary = toy_features(item_ids=[f"item-{i}" for i in range(12)]).vocabulary
    return leave_one_out(
        Interactions.from_table(table), vocabulary=vocabulary, max_seq_length=max_seq_length
    )

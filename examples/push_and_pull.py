"""Push an adapter to the Hugging Face Hub and load it back.

Usage, after `hf auth login`: python examples/push_and_pull.py me/my-adapter
"""

import sys

import torch

from odmt_sdk import GRU4Rec, ItemFeatures, ODMTWrapper

repo_id = sys.argv[1]
torch.manual_seed(0)
features = ItemFeatures.from_tensors(
    item_ids=[f"film-{i}" for i in range(1, 101)], text=torch.randn(101, 8, 24)
)
model = ODMTWrapper(backbone=GRU4Rec(32), item_features=features)
model.card.title = "What to watch next"
model.card.dataset, model.card.license = "A hundred drawn films", "apache-2.0"
model.card.results["test"] = {"hit_rate@10": 0.21, "ndcg@10": 0.12}  # `fit` sets this automatically
commit = model.push_to_hub(repo_id, private=True, commit_message="First adapter")
print(commit.commit_url)

loaded = ODMTWrapper.from_pretrained(repo_id, revision=commit.oid)
history = [["film-7", "film-8", "film-9"]]
assert loaded.recommend(history, k=3) == model.eval().recommend(history, k=3)
print(loaded.recommend(history, k=3).item_ids)

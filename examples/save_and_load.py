"""Save an adapter, load it in several ways, and check that its recommendations are the same."""

import torch

from odmt_sdk import GRU4Rec, ItemFeatures, ODMTWrapper

torch.manual_seed(0)
item_ids = [f"film-{i}" for i in range(1, 101)]
features = ItemFeatures.from_tensors(
    item_ids=item_ids, text=torch.randn(101, 8, 24), image=torch.randn(101, 5, 16)
)
model = ODMTWrapper(backbone=GRU4Rec(32), item_features=features)
model.card.dataset, model.card.license = "A hundred drawn films", "apache-2.0"
model.save_pretrained("outputs/my-adapter")

history = [["film-7", "film-8", "film-9"]]
expected = model.eval().recommend(history, k=3)

# A built-in backbone is created automatically; pass your own class as backbone=MyModel(...).
loaded = ODMTWrapper.from_pretrained("outputs/my-adapter")
assert loaded.recommend(history, k=3) == expected

# With features, it can be trained further.
loaded = ODMTWrapper.from_pretrained("outputs/my-adapter", item_features=features)
loaded.train()(torch.randint(1, 101, (4, 9))).loss.backward()

# With dtype=torch.bfloat16, it needs half the memory.
loaded = ODMTWrapper.from_pretrained("outputs/my-adapter", dtype=torch.bfloat16)
print(expected.item_ids, loaded.recommend(history, k=3).item_ids)

"""Save an adapter, load it in other ways, and see that it recommends the same."""

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

# A built-in backbone is made again; your own class goes in as backbone=MyModel(...).
loaded = ODMTWrapper.from_pretrained("outputs/my-adapter")
assert loaded.recommend(history, k=3) == expected

# With features it can be trained further, and encode its items anew.
loaded = ODMTWrapper.from_pretrained("outputs/my-adapter", item_features=features)
loaded.train()(torch.randint(1, 101, (4, 9))).loss.backward()

# In half the memory.
loaded = ODMTWrapper.from_pretrained("outputs/my-adapter", dtype=torch.bfloat16)
print(expected.item_ids, loaded.recommend(history, k=3).item_ids)

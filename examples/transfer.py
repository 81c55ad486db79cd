"""Transfer what an adapter learned about texts and images to a shop with other items."""

import torch

from odmt_sdk import GRU4Rec, ItemFeatures, ODMTWrapper

torch.manual_seed(0)
films = ItemFeatures.from_tensors(
    item_ids=[f"film-{i}" for i in range(1, 101)],
    text=torch.randn(101, 8, 24),
    image=torch.randn(101, 5, 16),
)
model = ODMTWrapper(backbone=GRU4Rec(32), item_features=films)
# ... train it ...; without item ids and embeddings of items, the adapter is small and easy to share
model.save_pretrained("outputs/films-content", content_only=True)

books = ItemFeatures.from_tensors(
    item_ids=[f"book-{i}" for i in range(1, 51)],
    text=torch.randn(51, 8, 24),  # same text encoder
    image=torch.randn(51, 5, 32),  # a wider image encoder: gets a new projection
)
model = ODMTWrapper.from_pretrained(
    "outputs/films-content", item_features=books, transfer=True, freeze=True
)
print(model.transfer_report)
print(model.recommend([["book-7", "book-8"]], k=3).item_ids)

optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
model.train()
for _ in range(3):  # trains only the weights that were not transferred
    model(torch.randint(1, 51, (8, 9))).loss.backward()
    optimizer.step()
    optimizer.zero_grad()

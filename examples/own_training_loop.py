"""Use your own module and training loop, without the Trainer, and tensors as features."""

import torch
from torch import nn

from odmt_sdk import ItemFeatures, ODMTWrapper


class MyModel(nn.Module):  # any causal sequence model
    def __init__(self, width=32):
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0]


item_ids = [f"film-{i}" for i in range(1, 101)]
features = ItemFeatures.from_tensors(
    item_ids=item_ids, text=torch.randn(101, 8, 24), image=torch.randn(101, 5, 16)
)
model = ODMTWrapper(backbone=MyModel(), item_features=features)

histories = [[f"film-{(3 * user + step) % 100 + 1}" for step in range(9)] for user in range(64)]
rows = torch.tensor([model.vocabulary.rows(history) for history in histories])
model.set_item_popularity(torch.bincount(rows.flatten(), minlength=101))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for epoch in range(30):
    for batch in rows[torch.randperm(64)].split(32):
        output = model(batch, epoch=epoch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    if epoch % 10 == 9:
        print(f"epoch {epoch + 1}: loss {output.loss.item():.3f}")

model.save_pretrained("outputs/own-training-loop")
model = ODMTWrapper.from_pretrained("outputs/own-training-loop", backbone=MyModel())
print(model.recommend([["film-7", "film-8", "film-9"]], k=3).item_ids)

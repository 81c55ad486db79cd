"""AdamW that updates only the rows of a table that a step has read."""

import pytest
import torch
from torch import nn
from toys import toy_model, toy_split
from transformers import TrainingArguments

from odmt_sdk import LazyAdamW, ODMTTrainer, fit
from odmt_sdk.training.lazy_adamw import clips_sparse_gradients

SETTINGS = {"lr": 0.1, "weight_decay": 0.3}


def table(sparse: bool, rows: int = 6) -> nn.Embedding:
    torch.manual_seed(3)
    return nn.Embedding(rows, 4, sparse=sparse)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, batches: list[list[int]]) -> None:
    for batch in batches:
        optimizer.zero_grad()
        module(torch.tensor(batch)).pow(2).sum().backward()
        optimizer.step()


def twin(weight: torch.Tensor, batches: list[list[int]]) -> torch.Tensor:
    """Reference implementation in float64, row by row and element by element."""
    lr, decay, beta1, beta2, eps = 0.1, 0.3, 0.9, 0.999, 1e-8
    rows = weight.double().tolist()
    means = [[0.0] * len(row) for row in rows]
    squares = [[0.0] * len(row) for row in rows]
    for step, batch in enumerate(batches, start=1):
        for row in sorted(set(batch)):
            for column, value in enumerate(rows[row]):
                gradient = batch.count(row) * 2 * value
                mean = beta1 * means[row][column] + (1 - beta1) * gradient
                square = beta2 * squares[row][column] + (1 - beta2) * gradient**2
                means[row][column], squares[row][column] = mean, square
                spread = (square / (1 - beta2**step)) ** 0.5 + eps
                rows[row][column] = (
                    value * (1 - lr * decay) - lr * mean / (1 - beta1**step) / spread
                )
    return torch.tensor(rows)


def test_it_follows_the_slow_twin():
    batches = [[1, 2, 2], [3], [1, 3, 5, 5, 5], [2], [1, 2]]
    module = table(sparse=True)
    expected = twin(module.weight.detach(), batches)
    train(module, LazyAdamW(module.parameters(), **SETTINGS), batches)
    torch.testing.assert_close(module.weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_rows_that_every_step_reads_are_updated_as_by_adamw():
    lazy, dense = table(sparse=True), table(sparse=False)
    batches = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0, 0]] * 3
    train(lazy, LazyAdamW(lazy.parameters(), **SETTINGS), batches)
    train(dense, torch.optim.AdamW(dense.parameters(), **SETTINGS), batches)
    torch.testing.assert_close(lazy.weight, dense.weight, rtol=1e-5, atol=1e-6)


def test_dense_gradients_are_left_to_adamw():
    lazy, dense = nn.Linear(4, 3), nn.Linear(4, 3)
    dense.load_state_dict(lazy.state_dict())
    for module, made in ((lazy, LazyAdamW), (dense, torch.optim.AdamW)):
        optimizer = made(module.parameters(), **SETTINGS)
        for step in range(3):
            optimizer.zero_grad()
            module(torch.full((2, 4), 1.0 + step)).pow(2).sum().backward()
            optimizer.step()
    assert torch.equal(lazy.weight, dense.weight)


def test_rows_that_no_step_reads_stay_and_so_do_their_moments():
    module = table(sparse=True)
    before = module.weight.detach().clone()
    optimizer = LazyAdamW(module.parameters(), **SETTINGS)
    train(module, optimizer, [[1, 2], [2]])
    assert torch.equal(module.weight[[0, 3, 4, 5]], before[[0, 3, 4, 5]])
    assert not optimizer.state[module.weight]["exp_avg"][[0, 3, 4, 5]].any()
    assert (module.weight[[1, 2]] != before[[1, 2]]).all()


def test_its_state_is_saved_and_loaded():
    whole, first, second = (table(sparse=True) for _ in range(3))
    train(whole, LazyAdamW(whole.parameters(), **SETTINGS), [[1, 2], [2, 3], [1, 3]])
    optimizer = LazyAdamW(first.parameters(), **SETTINGS)
    train(first, optimizer, [[1, 2], [2, 3]])
    second.load_state_dict(first.state_dict())
    resumed = LazyAdamW(second.parameters(), lr=9.0)
    resumed.load_state_dict(optimizer.state_dict())
    train(second, resumed, [[1, 3]])
    assert torch.equal(second.weight, whole.weight)


def test_a_closure_is_called_and_gradients_are_kept():
    module = table(sparse=True)
    optimizer = LazyAdamW(module.parameters(), **SETTINGS)

    def closure():
        optimizer.zero_grad()
        loss = module(torch.tensor([1])).sum()
        loss.backward()
        return loss

    expected = module.weight[1].sum()
    torch.testing.assert_close(optimizer.step(closure), expected)
    assert module.weight.grad.is_sparse


def test_settings_that_do_not_go_with_sparse_gradients():
    module = table(sparse=True)
    optimizer = LazyAdamW(module.parameters(), amsgrad=True)
    with pytest.raises(ValueError, match="amsgrad=True does not go with the sparse gradient"):
        train(module, optimizer, [[1]])


# in the model

ITEM_IDS = torch.tensor([[0, 3, 1, 2], [5, 6, 5, 7]])


def models(**settings):
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        found.append(toy_model(sparse_id_gradients=sparse, dropout=0.0, **settings))
    return found


@pytest.mark.parametrize("settings", [{}, {"item_chunk_size": 2}, {"fusion": "id"}])
def test_the_gradient_holds_the_rows_of_the_batch_and_clips_alike(settings):
    norms, gradients = [], []
    for model in models(**settings):
        model(ITEM_IDS).loss.backward()
        if clips_sparse_gradients():
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.01))
        gradients.append(model.item_encoder.id_embedding.weight.grad)
    sparse, dense = gradients
    assert sparse.is_sparse
    assert sorted(sparse.coalesce().indices()[0].tolist()) == [1, 2, 3, 5, 6, 7]
    torch.testing.assert_close(sparse.to_dense(), dense)
    if norms:
        torch.testing.assert_close(*norms)


def test_new_items_keep_the_gradient_sparse():
    from toys import toy_features

    model, _ = models()
    model.add_items(toy_features(3, item_ids=["x", "y", "z"]))
    model(torch.tensor([[1, 14, 15]])).loss.backward()
    assert model.item_encoder.id_embedding.weight.grad.is_sparse


def test_the_trainer_uses_it_and_only_rows_in_training_move(tmp_path):
    split = toy_split()
    model, _ = models()
    table = model.item_encoder.id_embedding.weight
    trainer = ODMTTrainer(
        model=model,
        args=TrainingArguments(
            str(tmp_path), max_steps=1, per_device_train_batch_size=1, learning_rate=0.1,
            weight_decay=0.5, report_to="none", disable_tqdm=True, use_cpu=True,
            max_grad_norm=1.0 if clips_sparse_gradients() else 0.0,
        ),
        train_dataset=split.train,
    )  # fmt: skip
    before = table.detach().clone()
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, LazyAdamW)
    moved = (table != before).any(1)
    assert 0 < int(moved.sum()) < len(table) - 1


def test_it_learns_as_well_as_with_dense_gradients(tmp_path):
    split = toy_split()
    found = [
        fit(
            model, split, tmp_path / str(index), epochs=8, batch_size=8, learning_rate=1e-2,
            backbone_learning_rate=1e-2 if index else None, warmup_steps=0, k=(1,),
            metric="hit_rate@1", disable_tqdm=True,
            max_grad_norm=5.0 if clips_sparse_gradients() else 0.0,
        ).test["hit_rate@1"]
        for index, model in enumerate([models()[0], models()[0]])
    ]  # fmt: skip
    assert min(found) > 0.8


def test_a_torch_that_cannot_clip_sparse_gradients(tmp_path, monkeypatch):
    monkeypatch.setattr("odmt_sdk.training.trainer.clips_sparse_gradients", lambda: False)
    settings = {"report_to": "none", "use_cpu": True}
    sparse, _ = models()
    with pytest.raises(ValueError, match="max_grad_norm=1 cannot clip .* upgrade torch, or set"):
        ODMTTrainer(sparse, TrainingArguments(str(tmp_path), **settings))
    ODMTTrainer(sparse, TrainingArguments(str(tmp_path), max_grad_norm=0.0, **settings))
    ODMTTrainer(models()[1], TrainingArguments(str(tmp_path), **settings))

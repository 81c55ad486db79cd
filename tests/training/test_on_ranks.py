"""Training on two ranks: logs are averaged over both, and a NaN on one stops both."""

import os
import tempfile

import pytest
import torch
from ranks import on_ranks
from toys import toy_model, toy_split
from transformers import TrainerCallback, TrainingArguments

from odmt_sdk import ODMTTrainer

pytestmark = pytest.mark.slow


class OwnParts(TrainerCallback):
    """Records what this rank alone would log."""

    def on_train_begin(self, *args, model, **kwargs):
        self.seen = []
        model.register_forward_hook(lambda *call: self.seen.append(call[-1].losses))


def _train(path, broken):
    torch.manual_seed(0)
    args = TrainingArguments(
        str(path), use_cpu=True, report_to="none", num_train_epochs=1, logging_strategy="epoch",
        per_device_train_batch_size=4, save_strategy="no", log_level="error",
        remove_unused_columns=False, ddp_backend="gloo",
    )  # fmt: skip
    own, model = OwnParts(), toy_model()
    training = ODMTTrainer(model, args, train_dataset=toy_split().train, callbacks=[own])
    if broken:
        forward = model.forward

        def forward_once(*given, **settings):
            output = forward(*given, **settings)
            if len(own.seen) == 2:
                output.loss = output.loss * torch.nan
            return output

        model.forward = forward_once
    try:
        training.train()
    except ValueError as error:
        return {"error": str(error)}
    logged = next(entry for entry in training.state.log_history if "loss" in entry)
    name = "cross_entropy/text"
    mean = torch.stack([parts[name].detach() for parts in own.seen]).mean()
    return {"own": float(mean), "logged": logged[name]}


def _both(rank, ranks):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    with tempfile.TemporaryDirectory() as folder:
        return {
            "sound": _train(folder, broken=False),
            "nan": _train(folder, broken=rank == 1),
        }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return on_ranks(_both, tmp_path_factory.mktemp("ranks"))


def test_parts_of_the_loss_are_those_of_all_ranks(found):
    own = [rank["sound"]["own"] for rank in found]
    assert own[0] != own[1]
    for rank in found:
        assert rank["sound"]["logged"] == pytest.approx(sum(own) / 2, rel=1e-5)


def test_all_ranks_end_where_one_comes_to_nan(found):
    assert "the loss of another process is NaN or infinite at step 3" in found[0]["nan"]["error"]
    assert "the loss is nan at step 3" in found[1]["nan"]["error"]

"""The output of training: one short line per epoch, and bars only in terminals."""

import re
import sys
import warnings

import pytest
from toys import toy_model, toy_split
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from odmt_sdk import ODMTTrainer, fit
from odmt_sdk.terminal import shows_bars
from odmt_sdk.training.callbacks import EpochLines

LINE = r"epoch {}/3  loss \d+\.\d{{4}}  ndcg@5 [01]\.\d{{4}}  best [01]\.\d{{4}} \(epoch [123]\){}"


def train(path, **settings):
    settings = {"epochs": 3, "batch_size": 8, "warmup_steps": 0, "use_cpu": True, **settings}
    settings["compare"] = False  # the table at the end has a test of its own
    return fit(toy_model(), toy_split(), path, k=(5,), metric="ndcg@5", **settings)


@pytest.mark.parametrize("disable_tqdm", [None, False, True])
def test_a_log_gets_one_line_an_epoch_and_no_bar(disable_tqdm, tmp_path, capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = train(tmp_path, disable_tqdm=disable_tqdm)
    out, err = capfd.readouterr()
    *epochs, choosing, test = out.splitlines()
    assert len(epochs) == 3
    for epoch, line in enumerate(epochs, start=1):
        left = r"  at most \d+ s left" if epoch < 3 else ""
        assert re.fullmatch(LINE.format(epoch, left), line), line
    assert choosing == "choosing the weights of sources and counts on validation"
    assert test == f"test  ndcg@5 {result.test['ndcg@5']:.4f}"
    assert "\r" not in out + err
    assert "it/s" not in err
    assert not [w for w in caught if "pin_memory" in str(w.message)]


def test_the_best_so_far_is_the_first_of_the_highest(tmp_path, capfd):
    result = train(tmp_path, learning_rate=0.3)
    lines = capfd.readouterr().out.splitlines()[:3]
    scores = [e["eval_ndcg@5"] for e in result.history if "eval_ndcg@5" in e]
    for epoch, line in enumerate(lines, start=1):
        best = max(scores[:epoch])
        assert f"ndcg@5 {scores[epoch - 1]:.4f}  best {best:.4f} " in line
        assert f"(epoch {scores.index(best) + 1})" in line


def test_a_terminal_gets_a_bar_too(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(tmp_path / "bar", disable_tqdm=False)
    out, err = capfd.readouterr()
    assert "/15 [" in err
    assert len(re.findall("epoch ./3  loss", out + err)) == 3
    train(tmp_path / "none", disable_tqdm=True)
    assert "/15 [" not in capfd.readouterr().err


def test_nothing_where_nothing_is_wanted(tmp_path, capfd):
    train(tmp_path, log_level="error")
    assert capfd.readouterr().out == ""
    train(tmp_path)  # the log level of the previous run does not apply
    assert len(capfd.readouterr().out.splitlines()) == 5


def test_lines_can_be_taken_away_and_others_put_in_their_place(tmp_path, capfd):
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", num_train_epochs=2, save_strategy="no",
        logging_strategy="epoch",
    )  # fmt: skip
    training = ODMTTrainer(toy_model(), args, train_dataset=toy_split().train)
    training.train()
    out = capfd.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in out] == ["epoch 1/2", "epoch 2/2"]  # only the loss
    training.remove_callback(EpochLines)
    training.train()
    assert capfd.readouterr().out == ""
    training.add_callback(PrinterCallback)
    training.train()
    assert "{'loss': " in capfd.readouterr().out


def test_a_stream_without_a_terminal_shows_no_bars(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert not shows_bars()
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert shows_bars()

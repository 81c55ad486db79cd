"""The checks of `fit` and `ODMTTrainer` before, during and after training."""

import dataclasses
import json
import re
import warnings

import numpy as np
import pytest
import torch
from toys import MyModel, toy_features, toy_model, toy_split
from transformers import TrainerCallback, TrainingArguments

from odmt_sdk import ItemVocabulary, ODMTConfig, ODMTTrainer, ODMTWrapper, evaluate, fit
from odmt_sdk.data.sequences import SequenceDataset
from odmt_sdk.errors import AdapterError

QUIET = {"disable_tqdm": True, "use_cpu": True, "warmup_steps": 0, "k": (5,), "metric": "ndcg@5"}


class Steps(TrainerCallback):
    count = 0

    def on_step_end(self, *args, **kwargs):
        self.count += 1


def trainer(path, split, model, **settings):
    args = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    given = {name: settings.pop(name) for name in ("k", "backbone_learning_rate", "exclude_seen")
             if name in settings}  # fmt: skip
    args = TrainingArguments(str(path), **{**args, "num_train_epochs": 1, **settings})
    return ODMTTrainer(
        model, args, train_dataset=split.train, eval_dataset=split.validation, **given
    )


class TestPopularity:
    def test_the_trainer_counts_as_fit_does(self, tmp_path):
        split, models = toy_split(num_users=5), (toy_model(), toy_model())
        trainer(tmp_path / "a", split, models[0]).train()
        fit(models[1], split, tmp_path / "b", epochs=1, **QUIET)
        assert torch.equal(models[0].item_log_probability, models[1].item_log_probability)
        assert torch.equal(models[0].item_encoder.unseen, models[1].item_encoder.unseen)
        assert models[0].item_log_probability[1:].unique().numel() > 1

    @pytest.mark.parametrize("by", ["fit", "trainer"])
    def test_what_is_set_by_hand_stays_and_what_was_counted_does_not(self, by, tmp_path):
        def train(model, split):
            if by == "fit":
                fit(model, split, tmp_path, epochs=1, **QUIET)
            else:
                trainer(tmp_path, split, model).train()
            return model.item_log_probability.clone()

        by_hand = toy_model().set_item_popularity(torch.arange(13.0))
        expected = by_hand.item_log_probability.clone()
        assert torch.equal(train(by_hand, toy_split()), expected)
        counted = toy_model()
        assert not torch.equal(train(counted, toy_split(5)), train(counted, toy_split(7)))

    def test_examples_of_any_kind_are_counted(self, tmp_path):
        split, model = toy_split(), toy_model()
        training = trainer(tmp_path, split, model)
        examples = [{"item_ids": [1, 2, 2, 3]}, {"item_ids": torch.tensor([3, 4])}]
        training.train_dataset = examples
        training.train()
        counts = torch.tensor([0, 1, 2, 2, 1, *[0] * 8])
        expected = toy_model().set_item_popularity(counts)
        assert torch.equal(model.item_log_probability, expected.item_log_probability)
        assert torch.equal(model.item_encoder.unseen, expected.item_encoder.unseen)

    def test_data_of_another_vocabulary(self, tmp_path):
        split = toy_split()
        features = toy_features(item_ids=split.vocabulary.item_ids[::-1])
        training = trainer(tmp_path, split, ODMTWrapper(MyModel(), features))
        with pytest.raises(ValueError, match="the items of the dataset and of the model differ"):
            training.train()

    def test_one_of_several_validation_sets_of_another_vocabulary(self, tmp_path):
        split, model = toy_split(), toy_model()
        other = toy_split()
        other.validation.vocabulary = ItemVocabulary(split.vocabulary.item_ids[::-1])
        sets = {"first": split.validation, "second": other.validation}
        training = trainer(tmp_path, dataclasses.replace(split, validation=sets), model)
        with pytest.raises(ValueError, match="the items of the dataset and of the model differ"):
            training.train()
        assert training.state.global_step == 0

    def test_rows_beyond_the_catalogue(self, tmp_path):
        training = trainer(tmp_path, toy_split(), toy_model())
        training.train_dataset = SequenceDataset(np.array([1, 13, 2]), np.array([0, 3]))
        with pytest.raises(ValueError, match="have item row 13, but the model has 12 items"):
            training.train()


class TestBeforeTheFirstStep:
    @pytest.mark.parametrize("ids", [[float(i) for i in range(12)], [(i, i) for i in range(12)]])
    def test_ids_that_cannot_be_saved(self, ids, tmp_path):
        features = toy_features(item_ids=ids)
        model = ODMTWrapper(MyModel(), features)
        split = dataclasses.replace(toy_split(), vocabulary=features.vocabulary)
        for dataset in (split.train, split.validation, split.test):
            dataset.vocabulary = features.vocabulary
        steps = Steps()
        with pytest.raises(AdapterError, match="only strings and integers can be saved"):
            fit(model, split, tmp_path, epochs=1, callbacks=[steps], **QUIET)
        with pytest.raises(AdapterError, match=re.escape(repr(ids[0]))):
            trainer(tmp_path, split, model, save_strategy="epoch")
        assert trainer(tmp_path, split, model).train().global_step  # nothing will be saved
        assert steps.count == 0

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("out", "", "is a file, not an adapter folder: choose another path"),
            ("out/config.json", '{"model_type": "bert"}', "another program wrote its config.json"),
            ("out/model.safetensors", "", "has model.safetensors but no config.json"),
        ],
    )
    def test_folders_that_cannot_hold_the_adapter(self, name, content, message, tmp_path):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        before, steps = sorted(tmp_path.rglob("*")), Steps()
        with pytest.raises(AdapterError, match=message):
            fit(toy_model(), toy_split(), tmp_path / "out", callbacks=[steps], **QUIET)
        assert steps.count == 0
        assert sorted(tmp_path.rglob("*")) == before

    def test_folders_that_cannot_be_made(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        with pytest.raises(AdapterError, match="file' is a file: choose another path"):
            fit(toy_model(), toy_split(), tmp_path / "file" / "out", **QUIET)
        monkeypatch.setattr("os.access", lambda path, mode: False)
        with pytest.raises(AdapterError, match=r"no permission to write to .*choose a writable"):
            fit(toy_model(), toy_split(), tmp_path / "new" / "out", **QUIET)

    def test_lists_longer_than_the_catalogue(self, tmp_path):
        split, model = toy_split(), toy_model()
        k = (5, np.int64(20))
        result = fit(
            model, split, tmp_path, epochs=1, k=k, metric="ndcg@20", use_cpu=True,
            disable_tqdm=True,
        )  # fmt: skip
        assert result.test["hit_rate@20"] == 1
        metrics = evaluate(model, split.test, k=(12, 20, 2000), progress=False)
        for name in ("ndcg", "mrr", "hit_rate"):
            assert metrics[f"{name}@12"] == metrics[f"{name}@20"] == metrics[f"{name}@2000"]
        histories = [["item-1"]]
        found = model.recommend(histories, k=100, exclude_seen=False)
        assert len(found.item_ids[0]) == 12
        assert found == model.recommend(histories, k=12, exclude_seen=False)

    def test_data_of_the_wrong_kind(self, tmp_path):
        split, model = toy_split(), toy_model()
        for kinds, message in (
            ({"train": split.validation}, "train_dataset is a RankingDataset, .* split.train"),
            ({"validation": split.train}, "eval_dataset is a SequenceDataset, .* split.validation"),
        ):
            with pytest.raises(ValueError, match=message):
                trainer(tmp_path, dataclasses.replace(split, **kinds), model)
        empty = trainer(tmp_path, split, model)
        empty.train_dataset = []
        with pytest.raises(ValueError, match="the training data are empty"):
            empty.train()
        with pytest.raises(TypeError, match="split is a SequenceDataset: pass the whole split"):
            fit(model, split.train, tmp_path, **QUIET)
        with pytest.raises(TypeError, match=r"model is a MyModel, .*wrap it, ODMTWrapper"):
            fit(MyModel(), split, tmp_path, **QUIET)
        with pytest.raises(TypeError, match=r"dataset is a Split: .* such as split\.test"):
            evaluate(model, split)

    def test_a_model_that_is_frozen(self, tmp_path):
        with pytest.raises(ValueError, match="all weights of the model are frozen"):
            fit(toy_model().requires_grad_(False), toy_split(), tmp_path, **QUIET)

    @pytest.mark.parametrize("k", [(), (0,), (5, -1)])
    def test_no_list_at_all(self, k, tmp_path):
        with pytest.raises(ValueError, match="must have at least one cut-off"):
            fit(toy_model(), toy_split(), tmp_path, k=k)

    @pytest.mark.parametrize("k", [5, (5.0,), ("5",), (True,)])
    def test_lengths_that_are_no_whole_numbers(self, k, tmp_path):
        with pytest.raises(TypeError, match="must be whole numbers"):
            fit(toy_model(), toy_split(), tmp_path, k=k)
        with pytest.raises(TypeError, match="must be whole numbers"):
            evaluate(toy_model(), toy_split().test, k=k)

    @pytest.mark.parametrize(
        ("split", "model", "message"),
        [
            (4, 6, "cut to 4 positions, but the model reads 6.*max_seq_length=6"),
            (6, 4, "have up to 6 positions, but the model reads the latest 4"),
            (6, 50, None),  # no sequence is longer
            (5, 5, None),
        ],
    )
    def test_data_cut_for_another_length(self, split, model, message, tmp_path):
        split, model = toy_split(max_seq_length=split), toy_model(max_seq_length=model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer(tmp_path, split, model, max_steps=1).train()
        found = [str(w.message) for w in caught if "positions" in str(w.message)]
        assert len(found) == (message is not None)
        assert message is None or re.search(message, found[0])


class TestDivergence:
    def poison(self, at_step, name):
        class Poison(TrainerCallback):
            def on_step_end(self, args, state, control, model, **kwargs):
                if state.global_step == at_step:
                    with torch.no_grad():
                        dict(model.named_parameters())[name].fill_(float("nan"))

        return Poison()

    def test_the_best_adapter_is_kept(self, tmp_path):
        split, model = toy_split(), toy_model()
        poison = self.poison(12, "backbones.by_source.text.mix.weight")
        with pytest.raises(ValueError, match="the loss is nan") as error:
            fit(
                model, split, tmp_path, epochs=9, batch_size=8, callbacks=[poison], **QUIET,
                learning_rate=1e-3,
            )  # fmt: skip
        message = str(error.value)
        assert "the loss is nan (cross_entropy/text=nan" in message
        assert "at step 13, with learning rate 0.001" in message
        assert "cross_entropy/image" not in message
        step = int(re.search("best adapter so far, from step (5|10), is in", message).group(1))
        loaded = ODMTWrapper.from_pretrained(tmp_path, backbone=MyModel())
        whole = ODMTWrapper.from_pretrained(tmp_path / f"checkpoint-{step}", backbone=MyModel())
        histories = [["item-1", "item-2"]]
        assert loaded.recommend(histories, k=3) == whole.recommend(histories, k=3)
        assert model.recommend(histories, k=3) == whole.recommend(histories, k=3)

    def test_before_the_first_checkpoint(self, tmp_path):
        poison = self.poison(2, "item_encoder.projections.id.weight")
        with pytest.raises(ValueError, match="at step 3, .*No evaluated checkpoint has been saved"):
            fit(toy_model(), toy_split(), tmp_path, epochs=1, batch_size=8, callbacks=[poison],
                **QUIET)  # fmt: skip
        assert not (tmp_path / "config.json").exists()

    @pytest.mark.parametrize("evaluated", [True, False])
    def test_weights_that_no_later_step_reads(self, evaluated, tmp_path):
        name = "backbones.by_source.text.mix.weight"
        poison = self.poison(5, name)  # the last step of an epoch
        settings = {} if evaluated else {"eval_strategy": "no", "load_best_model_at_end": False}
        with pytest.raises(
            ValueError, match=f"the weights {name} are NaN or infinite after step 5"
        ):
            fit(toy_model(), toy_split(), tmp_path, epochs=2, batch_size=8, callbacks=[poison],
                **settings, **QUIET)  # fmt: skip
        assert not list(tmp_path.glob("checkpoint-*/trainer_state.json"))

    def test_a_learning_rate_that_is_far_too_high(self, tmp_path):
        with pytest.raises(ValueError, match=r"with learning rate 1e\+36"):
            fit(toy_model(), toy_split(), tmp_path, epochs=20, batch_size=8, learning_rate=1e36,
                **QUIET)  # fmt: skip


class TestOptimizer:
    def groups(self, path, **settings):
        model = toy_model()
        training = trainer(path, toy_split(), model, learning_rate=1e-2, **settings)
        optimizer = training.create_optimizer()
        names = {id(weight): name for name, weight in model.named_parameters()}
        found = {}
        for group in optimizer.param_groups:
            options = {n: v for n, v in group.items() if n not in ("params", "lr")}
            for weight in group["params"]:
                assert names[id(weight)] not in found
                found[names[id(weight)]] = (group["lr"], options)
        return type(optimizer), found

    @pytest.mark.parametrize("optim", ["adamw_torch", "sgd", "adafactor"])
    def test_another_rate_changes_nothing_else(self, optim, tmp_path):
        settings = {"optim": optim, "adam_beta1": 0.8, "weight_decay": 0.3, "adam_epsilon": 1e-5}
        kind, plain = self.groups(tmp_path, **settings)
        apart_kind, apart = self.groups(tmp_path, backbone_learning_rate=1e-5, **settings)
        assert kind is apart_kind
        assert set(plain) == set(apart)
        for name, (rate, options) in apart.items():
            assert rate == (1e-5 if name.startswith("backbones.") else 1e-2)
            assert options == plain[name][1], name
        assert len({options["weight_decay"] for _, options in plain.values()}) == 2

    def test_a_rate_of_zero_and_resuming(self, tmp_path):
        split, model = toy_split(), toy_model()
        before = {n: w.clone() for n, w in model.backbones.named_parameters()}
        given = {"backbone_learning_rate": 0.0, "batch_size": 8, **QUIET}
        fit(model, split, tmp_path, epochs=1, **given)
        fit(model, split, tmp_path, epochs=2, resume=True, **given)
        for name, weight in model.backbones.named_parameters():
            assert torch.equal(before[name], weight)


@pytest.mark.parametrize(("finish_slowly", "last"), [(False, 3.2), (True, 5.2)])
def test_patience_counts_epochs_however_often_is_evaluated(tmp_path, finish_slowly, last):
    split = toy_split()  # 5 steps per epoch
    result = fit(
        toy_model(), split, tmp_path, epochs=50, batch_size=8, learning_rate=0.0, patience=3,
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        finish_slowly=finish_slowly, **QUIET,
    )  # fmt: skip
    assert result.history[-1]["epoch"] == pytest.approx(last)  # the first step is the best


def learning_rates(result):
    return [entry["learning_rate"] for entry in result.history if "learning_rate" in entry]


@pytest.mark.parametrize("first", [1, 3, 4])
def test_training_finishes_with_a_quarter_of_the_learning_rate(tmp_path, first):
    settings = {"batch_size": 8, "learning_rate": 1e-12, "warmup_steps": 0, "patience": 2, **QUIET}
    settings["backbone_learning_rate"] = 4e-12
    whole = fit(toy_model(), toy_split(), tmp_path / "whole", epochs=50, **settings)
    # the first epoch stays the best: two epochs without progress, and one after that
    assert learning_rates(whole) == pytest.approx([1e-12, 1e-12, 1e-12, 0.25e-12], rel=1e-6)
    parts = (tmp_path / "parts",)
    fit(toy_model(), toy_split(), *parts, epochs=first, **settings)
    resumed = fit(toy_model(), toy_split(), *parts, epochs=50, resume=True, **settings)
    assert learning_rates(resumed) == learning_rates(whole)


def test_lines_of_epochs_name_the_lowered_learning_rate(tmp_path, capsys):
    settings = {"batch_size": 8, "learning_rate": 4e-12, "warmup_steps": 0, "patience": 2}
    fit(toy_model(), toy_split(), tmp_path, epochs=50, k=(5,), metric="ndcg@5", **settings)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    named = ["learning rate 1e-12" in line for line in lines]
    assert named == [False, False, True, True]  # it is lowered after the third epoch


def test_schedules_that_fall_are_left_alone(tmp_path):
    settings = {"batch_size": 8, "learning_rate": 1e-12, "warmup_steps": 0, "patience": 2, **QUIET}
    settings["lr_scheduler_type"] = "linear"
    result = fit(toy_model(), toy_split(), tmp_path, epochs=10, **settings)
    expected = [1e-12 * (1 - 5 * epoch / 50) for epoch in (1, 2, 3)]
    assert learning_rates(result) == pytest.approx(expected, rel=0.03)


def test_the_card_tells_the_batch_size_that_was_trained_with(tmp_path):
    for given in ({"batch_size": 4}, {"per_device_train_batch_size": 4}):
        model = toy_model()
        fit(model, toy_split(), tmp_path / next(iter(given)), epochs=1, **given, **QUIET)
        assert model.card.training["batch size"] == "4"


def test_a_metric_of_one_source_decides(tmp_path):
    model, split = toy_model(), toy_split()
    settings = {**QUIET, "metric": "text/ndcg@5"}
    result = fit(model, split, tmp_path, epochs=4, batch_size=8, learning_rate=0.05, **settings)
    measured = [e["eval_text/ndcg@5"] for e in result.history if "eval_text/ndcg@5" in e]
    assert result.validation["text/ndcg@5"] == max(measured)
    now = evaluate(model, split.validation, k=(5,), progress=False)
    assert now["text/ndcg@5"] == max(measured)
    with pytest.raises(ValueError, match=r"metric='video/ndcg@5' is not computed.*'image/ndcg@5'"):
        fit(toy_model(), split, tmp_path, **{**QUIET, "metric": "video/ndcg@5"})


def test_seen_items_stay_candidates_where_asked(tmp_path):
    model, split = toy_model(), toy_split()
    kept = fit(model, split, tmp_path, epochs=1, exclude_seen=False, **QUIET)
    for exclude_seen in (False, True):
        expected = evaluate(model, split.test, k=(5,), exclude_seen=exclude_seen, progress=False)
        assert (kept.test == expected) == (not exclude_seen)
    training = trainer(tmp_path, split, model, k=(5,), exclude_seen=False)
    assert (
        training.evaluate(split.test, metric_key_prefix="test")["test_mrr@5"] == kept.test["mrr@5"]
    )


def test_without_loading_the_best_the_last_epoch_is_reported(tmp_path):
    model, split = toy_model(), toy_split()
    result = fit(
        model, split, tmp_path, epochs=4, batch_size=8, learning_rate=0.3,
        load_best_model_at_end=False, **QUIET,
    )  # fmt: skip
    assert result.best_epoch == 4
    found = evaluate(model, split.validation, k=(5,), progress=False)
    assert result.validation == pytest.approx(found)


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_checkpointing_gives_the_same_weights(name, tmp_path):
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    if name not in fields:
        pytest.skip("this transformers has no such argument")

    def weights(**settings):
        torch.manual_seed(0)
        model = toy_model(dropout=0.1)
        training = trainer(tmp_path, toy_split(), model, learning_rate=1e-2, **settings)
        training.train()
        assert model.recomputes_items == bool(settings)
        return model.state_dict()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old name
        recomputed = weights(**{name: True})
    for key, value in weights().items():
        torch.testing.assert_close(recomputed[key], value)


def test_the_config_goes_to_loggers_as_json():
    config = ODMTConfig(num_heads=4)
    assert json.loads(config.to_json_string()) == config.to_dict()


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    settings = {"report_to": "tensorboard", **QUIET}
    fit(toy_model(), toy_split(), tmp_path, epochs=1, **settings)


@pytest.mark.parametrize("by", [pytest.param("argument", marks=pytest.mark.slow), "user"])
def test_torch_compile(by, tmp_path):
    model, graphs = toy_model(), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled, settings = model, {"torch_compile": True, "torch_compile_backend": "eager", **QUIET}
    if by == "user":
        compiled, settings = torch.compile(model, backend=backend), QUIET
    result = fit(compiled, toy_split(), tmp_path, epochs=2, batch_size=8, **settings)
    assert bool(graphs) == (by == "user")
    assert len([e for e in result.history if "eval_ndcg@5" in e]) == 2
    loaded = ODMTWrapper.from_pretrained(tmp_path, backbone=MyModel())
    histories = [["item-1", "item-2"]]
    assert loaded.recommend(histories, k=3) == model.recommend(histories, k=3)


def test_items_seen_are_counted(tmp_path):
    training = trainer(
        tmp_path, toy_split(), toy_model(), include_num_input_tokens_seen="all", num_train_epochs=1
    )
    training.train()
    assert training.state.num_input_tokens_seen == 40 * 6

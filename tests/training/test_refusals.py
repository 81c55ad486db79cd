"""Arguments of the Trainer either take effect or are rejected by name before training."""

import dataclasses

import pytest
import torch
from torch import nn
from toys import toy_model, toy_split
from transformers import TrainingArguments

from odmt_sdk import ODMTTrainer, evaluate, fit
from odmt_sdk.training.refusals import _ARGUMENTS, _TRAINER


def make(path, given=None, **settings):
    args = TrainingArguments(str(path), use_cpu=True, report_to="none", **settings)
    split = toy_split()
    return ODMTTrainer(
        toy_model(), args, train_dataset=split.train, eval_dataset=split.validation, **given or {}
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label_smoothing_factor", 0.1),
        ("neftune_noise_alpha", 5.0),
        ("use_liger_kernel", True),
        ("use_cache", True),
        ("bf16_full_eval", True),
        ("label_names", ["labels"]),
        ("include_for_metrics", ["inputs"]),
        ("batch_eval_metrics", True),
        ("prediction_loss_only", True),
        ("eval_accumulation_steps", 2),
        ("eval_use_gather_object", True),
        ("eval_do_concat_batches", False),
        ("length_column_name", "size"),
    ],
)
def test_training_arguments_that_do_nothing(name, value, tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    if not hasattr(args, name):
        pytest.skip("this transformers has no such argument")
    setattr(args, name, value)
    with pytest.raises(ValueError, match=f"{name}=.* does nothing in ODMT training: .+"):
        ODMTTrainer(toy_model(), args)


def test_defaults_are_never_refused():
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    for name, (harmless, _) in _ARGUMENTS.items():
        if name in fields and fields[name].default is not dataclasses.MISSING:
            assert fields[name].default in harmless, name


@pytest.mark.parametrize("name", list(_TRAINER))
def test_arguments_of_the_trainer_that_do_nothing(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}= does nothing in ODMT training"):
        make(tmp_path, {name: lambda *_: {}})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs=0 must be a finite number greater than 0, or None"),
        ({"epochs": float("nan")}, ValueError, "epochs=nan must be a finite"),
        ({"epochs": "3"}, TypeError, "epochs='3' must be a number"),
        ({"batch_size": 0}, ValueError, "batch_size=0 must be at least 1"),
        ({"batch_size": 2.5}, TypeError, "batch_size=2.5 must be a whole number"),
        ({"learning_rate": "1e-3"}, TypeError, "learning_rate='1e-3' must be a number"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay=-0.1 must be a finite number at least"),
        ({"max_grad_norm": None}, TypeError, "max_grad_norm=None must be a .*0 = no clipping"),
        ({"backbone_learning_rate": -1e-3}, ValueError, "backbone_learning_rate=-0.001 must be"),
        ({"encoder_learning_rate": float("inf")}, ValueError, "encoder_learning_rate=inf must be"),
        ({"gradient_accumulation_steps": 0}, ValueError, "gradient_accumulation_steps=0 must be"),
    ],
)
def test_numbers_out_of_range(settings, error, message, tmp_path):
    with pytest.raises(error, match=message):
        fit(toy_model(), toy_split(), tmp_path, use_cpu=True, **settings)


def test_predict_says_what_to_call(tmp_path):
    training = make(tmp_path)
    with pytest.raises(TypeError, match=r"trainer\.evaluate\(.*rank_targets.*model\.recommend"):
        training.predict(toy_split().test)


def test_sampling_by_length_groups_sequences(tmp_path):
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    by_length = {"train_sampling_strategy": "group_by_length"}
    if "group_by_length" in names:
        by_length = {"group_by_length": True}
    lengths = {name: _spread(make(tmp_path, **given)) for name, given in
               (("random", {}), ("grouped", by_length))}  # fmt: skip
    assert lengths["grouped"] < lengths["random"] / 2


def _spread(training):
    """Return the padding in batches of 8 for 400 sequences of 2 to 41 items."""
    lengths = torch.arange(400)[torch.randperm(400)] % 40 + 2
    training.train_dataset = [{"item_ids": torch.ones(n, dtype=torch.long)} for n in lengths]
    found = [batch["attention_mask"] for batch in training.get_train_dataloader()]
    assert sum(int(mask.sum()) for mask in found) == lengths.sum()  # each exactly once
    return sum(int((mask == 0).sum()) for mask in found)


def test_other_sampling_strategies(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    args.train_sampling_strategy = "batch_rebalance"
    with pytest.raises(ValueError, match="train_sampling_strategy='batch_rebalance' does nothing"):
        ODMTTrainer(toy_model(), args)


def test_dropping_the_only_batch(tmp_path):
    with pytest.raises(ValueError, match="dataloader_drop_last=True leaves no batch: there are 40"):
        make(tmp_path, dataloader_drop_last=True, per_device_train_batch_size=41)


def test_metrics_that_are_not_computed(tmp_path):
    for metric in ("loss", "ndcg@7", "accuracy", "eval_video/ndcg@10"):
        with pytest.raises(ValueError, match="metric_for_best_model='.*' is not computed: choose"):
            make(tmp_path, metric_for_best_model=metric)
    with pytest.raises(ValueError, match="greater_is_better=False would keep the worst epoch"):
        make(tmp_path, metric_for_best_model="ndcg@10", greater_is_better=False)
    make(tmp_path, metric_for_best_model="text/ndcg@10")


def test_a_trainer_with_an_evaluation_of_its_own_names_its_metrics(tmp_path):
    class Mine(ODMTTrainer):
        def evaluate(self, *args, **kwargs):
            return super().evaluate(*args, **kwargs) | {"eval_coverage": 1.0}

    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", metric_for_best_model="coverage"
    )
    Mine(toy_model(), args)


def test_a_compiled_model_in_several_processes(tmp_path, monkeypatch):
    compiled = torch.compile(toy_model(), backend="eager")
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    with pytest.raises(TypeError, match="in 2 processes: pass the model itself.*torch_compile"):
        fit(compiled, toy_split(), tmp_path, report_to="none", use_cpu=True)


def test_models_in_data_parallel(tmp_path):
    wrapped, split = nn.DataParallel(toy_model()), toy_split()
    for call in (
        lambda: fit(wrapped, split, tmp_path),
        lambda: ODMTTrainer(wrapped),
        lambda: evaluate(wrapped, split.test),
    ):
        with pytest.raises(
            TypeError, match=r"wrapped in DataParallel: pass its \.module.*torchrun"
        ):
            call()


def test_several_devices_of_one_process(tmp_path):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    assert args.n_gpu == 0
    args._n_gpu = 2
    with pytest.warns(UserWarning, match="2 GPUs are visible, .* torchrun --nproc_per_node=2"):
        training = ODMTTrainer(toy_model(), args)
    assert training.args.n_gpu == 1


def test_names_that_say_the_same(tmp_path):
    model, split = toy_model(), toy_split()
    for given, message in (
        ({"batch_size": 8, "per_device_train_batch_size": 4}, "per_device_train_batch_size=4 and "),
        ({"epochs": 8, "num_train_epochs": 4}, "num_train_epochs=4 and epochs=8 are the same"),
        (
            {"metric_for_best_model": "ndcg@5"},
            "metric_for_best_model= cannot be passed to fit: pass metric",
        ),
        ({"resume_from_checkpoint": "x"}, "resume_from_checkpoint= cannot be passed to fit: pass"),
        ({"patience": 0}, "patience=0 must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(model, split, tmp_path, **given)


def test_learning_rates_beside_an_optimizer(tmp_path):
    model = toy_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="backbone_learning_rate= applies only to an optimizer"):
        ODMTTrainer(model, backbone_learning_rate=0.1, optimizers=(optimizer, None))

"""Content encoders that are trained with the model: gradients, steps, saving and loading."""

import json
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import TEXTS, bert, causal, make_tokenizer, pictures, swin, vit
from torch import nn
from toys import HIDDEN_SIZE, MyModel

from odmt_sdk import (
    AdapterError,
    Interactions,
    ItemFeatures,
    ODMTConfig,
    ODMTTrainer,
    ODMTWrapper,
    SASRec,
    TrainableImages,
    TrainableText,
    fit,
    leave_one_out,
    tune,
)
from odmt_sdk.features.trainable.absent import AbsentEncoder

peft = pytest.importorskip("peft")
ROOT = Path(__file__).parents[3]
ROWS = torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])
ITEMS = {
    "item_id": [f"item-{i}" for i in range(12)],
    "text": [*TEXTS, "red hat", None, *TEXTS],
    "image": [*pictures(11), None],
}
QUIET = {"disable_tqdm": True, "use_cpu": True, "log_level": "error"}


class Shop:
    """Encoders, the frozen features that they made, and models that train them further."""

    def __init__(self):
        torch.manual_seed(0)
        self.bert, self.vit = bert(), vit()
        self.features = ItemFeatures.from_items(
            ITEMS,
            text_encoder=self.bert,
            image_encoder=self.vit,
            dtype=torch.float32,
            progress=False,
        ).standardize()

    def text(self, **settings):
        return TrainableText(self.bert, ITEMS, **settings)

    def encoders(self, **settings):
        return {"text": self.text(**settings), "image": TrainableImages(self.vit, ITEMS)}

    def model(self, encoders=None, backbone=None, **settings):
        torch.manual_seed(1)
        encoders = self.encoders() if encoders is None else encoders
        torch.manual_seed(2)
        config = ODMTConfig(max_seq_length=6, **settings)
        return ODMTWrapper(backbone or MyModel(), self.features, config, encoders=encoders)

    def trained(self, **settings):
        """Return a model whose LoRA layers compute something."""
        model = self.model(**settings)
        with torch.no_grad():
            for name, parameter in model.encoders.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        return model.eval()


@pytest.fixture(scope="module")
def shop():
    return Shop()


@pytest.fixture
def adapter(shop, tmp_path):
    shop.trained().save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_untrained_it_is_the_frozen_encoder(shop):
    model, frozen = shop.model().eval(), shop.model(encoders={}).eval()
    own, expected = model.content_tokens(ROWS.flatten()), frozen.content_tokens(ROWS.flatten())
    for name in ("text", "image"):
        assert torch.equal(own[name].lengths, expected[name].lengths)
        longest = min(own[name].tokens.shape[1], expected[name].tokens.shape[1])
        torch.testing.assert_close(
            own[name].tokens[:, :longest], expected[name].tokens[:, :longest], rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(model(ROWS).loss, frozen(ROWS).loss, rtol=1e-4, atol=1e-4)


def test_gradients_reach_its_lora_layers_alone(shop):
    model = shop.trained().train()
    model(ROWS).loss.backward()
    for encoder in model.encoders.values():
        for name, parameter in encoder.named_parameters():
            trained = "lora_" in name and "pooler" not in name  # no token comes from the pooler
            assert trained == (parameter.grad is not None) == parameter.requires_grad, name
    for given in (shop.bert[0], shop.vit[0]):
        assert all(p.requires_grad and p.grad is None for p in given.parameters())
        assert not any("lora" in name for name, _ in given.named_parameters())


def test_steps_lower_the_loss_and_leave_the_encoder_as_it_was(shop):
    model = shop.model(dropout=0.0)
    model.requires_grad_(False)
    for name, parameter in model.encoders.named_parameters():
        parameter.requires_grad_("lora_" in name and "pooler" not in name)
    optimizer = torch.optim.AdamW(model.encoders.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        losses.append(model(ROWS).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    for name, value in shop.bert[0].state_dict().items():
        inside = dict(model.encoders["text"].model.named_parameters())
        found = inside.get(name, inside.get(name.replace(".weight", ".base_layer.weight")))
        assert found is None or torch.equal(found, value)


def test_distinct_items_are_encoded_as_all_are(shop):
    model = shop.trained()
    rows = torch.tensor([3, 1, 3, 12, 1, 5])
    together, alone = model.content_tokens(rows), model.content_tokens(torch.arange(1, 13))
    for name, (tokens, lengths) in together.items():
        assert torch.equal(lengths, alone[name].lengths[rows - 1])
        for place, row in enumerate(rows):
            own, expected = tokens[place, : lengths[place]], alone[name].tokens[row - 1]
            torch.testing.assert_close(own, expected[: lengths[place]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", ["chunks", "checkpointing"])
def test_bounded_memory_gives_the_same_gradients(shop, way):
    gradients = []
    for bounded in (False, True):
        model = shop.trained(dropout=0.0).train()
        if bounded and way == "chunks":
            model.config.item_chunk_size = 3
        elif bounded:
            model.activation_checkpointing_enable()
        model(ROWS).loss.backward()
        gradients.append([p.grad for p in model.encoders.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


LAST_LAYER = peft.LoraConfig(r=2, target_modules=["query", "dense"], layers_to_transform=[1])


@pytest.mark.parametrize("settings", [{}, {"item_chunk_size": 3}], ids=["whole", "chunks"])
def test_frozen_layers_compute_each_text_once(shop, settings):
    found, texts = [], []
    for kept in (False, True):
        torch.manual_seed(0)
        text = shop.text(lora=LAST_LAYER, keep_frozen_layers=kept, batch_size=5)
        layers = text.model.encoder.layer
        layers[0].attention.register_forward_hook(lambda _, args, __: texts.append(len(args[0])))
        model = shop.trained(encoders={"text": text}, dropout=0.0, **settings)
        texts.clear()
        before = model.encode_catalogue()["text"].clone()
        assert sum(texts) == sum(text is not None for text in ITEMS["text"])
        texts.clear()
        model.train()(ROWS).loss.backward()
        assert bool(texts) != kept
        gradients = [p.grad for p in model.encoders.parameters() if p.requires_grad]
        model.eval()._catalogue.forget()
        found.append([before, *gradients, model.encode_catalogue()["text"]])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_frozen_layers_know_new_items(shop):
    text = shop.text(lora=LAST_LAYER, keep_frozen_layers=True)
    model = shop.trained(encoders={"text": text})
    model.encode_catalogue()
    new = {"item_id": ["new"], "text": ["blue wool hat with long sleeves"], "image": pictures(1)}
    features = ItemFeatures.from_items(
        new, text_encoder=shop.bert, image_encoder=shop.vit, dtype=torch.float32, progress=False
    )
    text.add_items(new)
    grown = model.add_items(features).encode_catalogue()["text"][-1]
    model._catalogue.forget()
    torch.testing.assert_close(model.encode_catalogue()["text"][-1], grown)


def test_frozen_layers_that_cannot_be_kept(shop):
    from transformers import T5Config, T5EncoderModel

    with pytest.raises(ValueError, match="needs layers below the first LoRA layer: choose"):
        shop.text(keep_frozen_layers=True)
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    lora = peft.LoraConfig(
        r=2, target_modules=["q"], layers_to_transform=[1], layers_pattern="block"
    )
    encoder = (T5EncoderModel(config), make_tokenizer())
    with pytest.raises(ValueError, match="T5Block passes more than hidden states"):
        TrainableText(encoder, ITEMS, lora=lora, pooling="mean", keep_frozen_layers=True)


def test_the_frozen_encoder_stays_in_eval_mode(shop):
    lora = peft.LoraConfig(r=2, lora_dropout=0.5, target_modules=["query"])
    model = shop.model({"text": shop.text(lora=lora)}).train()
    modes = {name: part.training for name, part in model.encoders["text"].model.named_modules()}
    assert {name for name, training in modes.items() if training} == {
        name for name in modes if "lora_dropout" in name
    }
    assert any(modes.values())
    assert not any(part.training for part in model.eval().modules())


def test_the_catalogue_is_encoded_once_until_lora_changes(shop):
    model = shop.trained()
    first = model.encode_catalogue()["text"]
    assert model.encode_catalogue()["text"].data_ptr() == first.data_ptr()
    with torch.no_grad():
        next(p for n, p in model.encoders.named_parameters() if "lora_B" in n).mul_(2)
    assert not torch.equal(model.encode_catalogue()["text"], first)


def test_only_lora_weights_are_saved_and_the_loaded_model_is_the_same(shop, adapter):
    saved = load_file(adapter / "model.safetensors")
    of_encoders = [name for name in saved if name.startswith("encoders.")]
    assert of_encoders
    assert all("lora_" in name for name in of_encoders)
    model = ODMTWrapper.from_pretrained(
        adapter, MyModel(), item_features=shop.features, encoders=shop.encoders()
    )
    expected = shop.trained()
    for source, vectors in expected.encode_catalogue().items():
        assert torch.equal(model.encode_catalogue()[source], vectors)
    model.train()(ROWS).loss.backward()
    assert any(p.grad is not None for p in model.encoders.parameters())
    assert model.load_state_dict(expected.state_dict()).missing_keys == []


def test_without_the_encoder_it_recommends_and_loses_nothing(shop, adapter, tmp_path):
    expected = shop.trained().recommend([["item-1", "item-3"]], k=4)
    model = ODMTWrapper.from_pretrained(adapter, MyModel())
    assert model.recommend([["item-1", "item-3"]], k=4) == expected
    assert isinstance(model.encoders["text"], AbsentEncoder)
    model.save_pretrained(tmp_path / "again")
    again, first = (load_file(f / "model.safetensors") for f in (tmp_path / "again", adapter))
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_encoded_features_stand_in_for_the_encoder(shop, adapter):
    trained = shop.trained()
    features = trained.encoded_features(torch.float32)
    with pytest.warns(UserWarning, match="the (text|image) encoder was trained .* frozen"):
        model = ODMTWrapper.from_pretrained(adapter, MyModel(), item_features=features)
    model._catalogue.forget()
    for source, vectors in trained.encode_catalogue().items():
        torch.testing.assert_close(model.encode_catalogue()[source], vectors)
    model.train()(ROWS).loss.backward()


def test_features_of_before_training_are_refused_without_the_encoder(shop, adapter):
    with pytest.raises(AdapterError, match=r"which was trained .*encoders=\{'text': ...\}"):
        ODMTWrapper.from_pretrained(adapter, MyModel(), item_features=shop.features)


def test_a_model_of_frozen_features_can_train_its_encoder_later(shop, tmp_path):
    shop.model(encoders={}).save_pretrained(tmp_path)
    model = ODMTWrapper.from_pretrained(
        tmp_path, MyModel(), item_features=shop.features, encoders=shop.encoders()
    )
    model.train()(ROWS).loss.backward()
    assert any(p.grad is not None for p in model.encoders.parameters())


def test_other_lora_settings_are_refused(shop, adapter):
    for lora, words in (
        (
            peft.LoraConfig(r=8, lora_alpha=8, target_modules="all-linear"),
            "trained with the LoRA settings",
        ),
        (peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query"]), "not in the model"),
    ):
        encoders = {**shop.encoders(), "text": shop.text(lora=lora)}
        with pytest.raises(AdapterError, match=words):
            ODMTWrapper.from_pretrained(
                adapter, MyModel(), item_features=shop.features, encoders=encoders
            )


def change(adapter, **changed):
    from safetensors import safe_open

    file = adapter / "model.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({**load_file(file), **changed}, file, metadata=metadata)


@pytest.mark.parametrize("with_encoder", [True, False])
def test_hostile_lora_weights_are_refused(shop, adapter, with_encoder):
    name = next(n for n in load_file(adapter / "model.safetensors") if n.startswith("encoders.te"))
    given = {"item_features": shop.features, "encoders": shop.encoders()} if with_encoder else {}
    value = load_file(adapter / "model.safetensors")[name]
    change(adapter, **{name: value * torch.nan})
    with pytest.raises(AdapterError, match="NaN or infinite"):
        ODMTWrapper.from_pretrained(adapter, MyModel(), **given)
    change(adapter, **{name: torch.ones(3, 2), "encoders.audio.x": torch.ones(2)})
    with pytest.raises(AdapterError, match="not in the model: encoders.audio.x"):
        ODMTWrapper.from_pretrained(adapter, MyModel(), **given)
    config = json.loads((adapter / "config.json").read_text())
    config["features"]["text"]["trained"] = "all of it"
    (adapter / "config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError):
        ODMTWrapper.from_pretrained(adapter, MyModel(), **given)


def test_new_items_are_encoded_by_the_trained_encoder(shop):
    model = shop.trained()
    model.encode_catalogue()
    new = {"item_id": ["new"], "text": ["blue wool hat"], "image": pictures(1, seed=3)}
    features = ItemFeatures.from_items(
        new, text_encoder=shop.bert, image_encoder=shop.vit, dtype=torch.float32, progress=False
    )
    with pytest.raises(ValueError, match="'new'"):
        model.add_items(features)
    assert model.num_items == 12
    for encoder in model.encoders.values():
        encoder.add_items(new)
    grown = model.add_items(features).encode_catalogue()["text"][-1]
    model._catalogue.forget()
    torch.testing.assert_close(model.encode_catalogue()["text"][-1], grown)


def split(shop):
    rows = [
        (f"user-{user}", f"item-{(user + step) % 12}", step)
        for user in range(12)
        for step in range(6)
    ]
    table = dict(zip(("user_id", "item_id", "timestamp"), zip(*rows, strict=True), strict=True))
    return leave_one_out(
        Interactions.from_table(table), vocabulary=shop.features.vocabulary, max_seq_length=6
    )


@pytest.mark.slow
def test_fit_trains_it_at_a_rate_of_its_own_and_resumes_alike(shop, tmp_path):
    found = []
    for stops in ((2,), (1, 2)):
        for epochs in stops:
            model = shop.model(backbone=lambda: SASRec(HIDDEN_SIZE, max_seq_length=6))
            fit(
                model, split(shop), tmp_path / str(len(stops)), epochs=epochs, batch_size=6,
                encoder_learning_rate=1e-2, k=(5,), metric="ndcg@5", resume=True,
                bf16=True, gradient_accumulation_steps=2, load_best_model_at_end=False, **QUIET,
            )  # fmt: skip
        found.append(model.state_dict())
    first, second = found
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    start = shop.model(backbone=lambda: SASRec(HIDDEN_SIZE, max_seq_length=6)).state_dict()
    name = next(name for name in start if "text" in name and "lora_B" in name)
    assert not torch.equal(start[name], first[name])


def test_tune_searches_the_rate_of_encoders(shop, tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="needs odmt-sdk[tune]")
    seen = []
    create = ODMTTrainer.create_optimizer

    def note(trainer, *args):
        seen.append(trainer.encoder_learning_rate)
        return create(trainer, *args)

    monkeypatch.setattr(ODMTTrainer, "create_optimizer", note)
    result = tune(
        shop.model, split(shop), {"encoder_learning_rate": {"low": 1e-3, "high": 1e-2}}, tmp_path,
        trials=2, epochs=1, k=(5,), metric="ndcg@5", prune=False, use_cpu=True,
    )  # fmt: skip
    assert seen == [trial["parameters"]["encoder_learning_rate"] for trial in result.trials]
    assert len(set(seen)) == 2


def test_learning_rates(shop):
    model = shop.model()
    groups = model.parameter_groups(
        learning_rate=0.1, backbone_learning_rate=0.2, encoder_learning_rate=0.3
    )
    assert [group["lr"] for group in groups] == [0.1, 0.2, 0.3]
    assert all("lora" in n for n, p in model.encoders.named_parameters() if p.requires_grad)
    with pytest.raises(ValueError, match="encoder_learning_rate=0.1 is for trained content"):
        ODMTTrainer(shop.model(encoders={}), encoder_learning_rate=0.1)


class TestAtTheDoor:
    def test_without_peft(self, shop, monkeypatch):
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(ImportError, match=r"pip install odmt-sdk\[peft\]"):
            shop.text()

    def test_no_layer_for_lora(self, shop):
        with pytest.raises(ValueError, match="LoRA finds no layer of BertModel .*query, key"):
            shop.text(lora=peft.LoraConfig(target_modules=["nothing"]))
        with pytest.raises(ValueError, match="no LoRA layer has an effect on the tokens"):
            shop.text(lora=peft.LoraConfig(target_modules=["pooler.dense"]))
        with pytest.raises(TypeError, match="must be a peft.LoraConfig"):
            shop.text(lora={"r": 8})
        with pytest.raises(ValueError, match="init_lora_weights='pissa'"):
            shop.text(lora=peft.LoraConfig(init_lora_weights="pissa"))

    def test_texts_that_are_missing(self, shop):
        fewer = {name: column[:-1] for name, column in ITEMS.items()}
        with pytest.raises(ValueError, match="1 of the 12 items are not in the table .*'item-11'"):
            shop.model({"text": TrainableText(shop.bert, fewer)})
        emptied = {**ITEMS, "text": [None, *ITEMS["text"][1:]]}
        with pytest.raises(ValueError, match="item 'item-0' has text features but no text"):
            shop.model({"text": TrainableText(shop.bert, emptied)})

    def test_another_encoder(self, shop):
        other = bert()
        nn.init.normal_(other[0].embeddings.word_embeddings.weight)
        with pytest.raises(ValueError, match="text features were made in another way .*weights"):
            shop.model({"text": TrainableText(other, ITEMS)})
        with pytest.raises(ValueError, match="pooling"):
            shop.model({"text": shop.text(pooling="mean")})

    @pytest.mark.filterwarnings("ignore:fan_in_fan_out")
    def test_causal_models_need_a_mean(self):
        with pytest.raises(ValueError, match="use pooling='mean'"):
            TrainableText(causal(), ITEMS, lora=peft.LoraConfig(target_modules=["c_attn"]))

    def test_no_frozen_features(self, shop):
        with pytest.raises(ValueError, match=r"item_features have \[\]"):
            ODMTWrapper(MyModel(), encoders={"text": shop.text()})
        with pytest.raises(ValueError, match="is an encoder of text"):
            shop.model({"image": shop.text()})
        with pytest.raises(TypeError, match=r"give TrainableText\(encoder, items\)"):
            shop.model({"text": shop.bert[0]})


def test_image_encoders_of_other_architectures(shop):
    from transformers import ViTImageProcessor

    encoder = (swin(), ViTImageProcessor(size={"height": 16, "width": 16}))
    features = ItemFeatures.from_items(
        ITEMS, image_encoder=encoder, dtype=torch.float32, progress=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ODMTWrapper(
            MyModel(), features, encoders={"image": TrainableImages(encoder, ITEMS)}
        )
    model(ROWS).loss.backward()
    assert any(p.grad is not None for p in model.encoders.parameters())


def test_the_code_on_the_page_runs(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "train_encoders.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    new = {"item_id": ["new"], "text": ["blue wool hat"], "image": pictures(1, seed=3)}
    names = {"items": ITEMS, "new": new, "encoder": shop.bert, "image_encoder": shop.vit}
    for block in (blocks[0], blocks[1], blocks[3]):  # the third trains, the last is the example
        exec(block, names)
    names["model"](ROWS).loss.backward()
    assert names["model"].num_items == 13


@pytest.mark.slow
def test_the_example_runs(capsys):
    runpy.run_path(str(ROOT / "examples" / "train_encoders.py"), run_name="__main__")
    assert "the adapter loads without it" in capsys.readouterr().out

"""Features must be prepared like the ones the model was trained on."""

import copy
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import WORDS, bert

from odmt_sdk import AdapterError, ItemFeatures, ODMTWrapper, SASRec
from odmt_sdk.features.joined import JoinedFeatures

IDS = [f"item-{i}" for i in range(12)]


def titles(count, seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        " ".join(WORDS[i] for i in torch.randint(15, (4,), generator=draw)) for _ in range(count)
    ]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return bert()


@pytest.fixture(scope="module")
def other_encoder():
    torch.manual_seed(1)
    return bert()


def extract(encoder, ids=IDS, seed=0, **settings):
    items = {"item_id": ids, "text": titles(len(ids), seed)}
    settings = {"dtype": torch.float32, "progress": False, **settings}
    return ItemFeatures.from_items(items, text_encoder=encoder, **settings)


@pytest.fixture
def features(encoder):
    return extract(encoder)


@pytest.fixture
def new(encoder):
    return extract(encoder, ["new"], seed=5)


def make(features):
    return ODMTWrapper(SASRec(16, max_seq_length=6), features).eval()


def tokens_of(features, item_id):
    rows = torch.tensor(features.vocabulary.rows([item_id]))
    return features.gather(rows)["text"].tokens


class TestMoments:
    def test_they_are_those_of_the_raw_tokens(self, features):
        standard = features.standardize()
        raw, lengths = features["text"]
        valid = raw[torch.arange(raw.shape[1]) < lengths[:, None]].double()
        mean, deviation = standard.moments["text"]
        torch.testing.assert_close(mean.double(), valid.mean(0), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            deviation.double(), valid.std(0, correction=0), rtol=0, atol=1e-5
        )
        assert not features.moments
        assert standard.select(IDS[:2]).to(dtype=torch.float64).moments == standard.moments
        twice = standard.standardize().moments["text"]
        torch.testing.assert_close(twice, standard.moments["text"], rtol=1e-3, atol=1e-4)

    def test_old_items_of_a_grown_catalogue_keep_their_tokens(self, encoder, features):
        trained = features.standardize()
        items = {"item_id": [*IDS, "new"], "text": [*titles(12, 0), *titles(1, 5)]}
        grown = ItemFeatures.from_items(
            items, text_encoder=encoder, progress=False, dtype=torch.float32, text_batch_size=12
        )
        for like in (trained, make(trained), JoinedFeatures(trained)):
            again = grown.select(IDS).standardize(like=like)
            assert again.standardize(like=like) is not None  # already standardized the same way
            torch.testing.assert_close(again["text"].tokens, trained["text"].tokens)
        assert torch.equal(
            features.standardize(like=trained)["text"].tokens, trained["text"].tokens
        )
        assert not torch.allclose(
            tokens_of(grown.standardize(), "item-1"), tokens_of(trained, "item-1")
        )

    def test_what_cannot_be_done(self, features, new):
        with pytest.raises(ValueError, match="a single item cannot be standardized by itself"):
            new.standardize()
        with pytest.raises(ValueError, match=r"has moments of \[\], but none of \['text'\]"):
            new.standardize(like=features)
        with pytest.raises(TypeError, match="like=int has no moments"):
            new.standardize(like=5)
        other = features.select(IDS[:5]).standardize()
        with pytest.raises(ValueError, match="already standardized with other moments"):
            other.standardize(like=features.standardize())
        narrow = ItemFeatures.from_tensors(text=torch.randn(4, 2, 3))
        with pytest.raises(ValueError, match="moments are for text features of width 16"):
            narrow.standardize(like=other)

    def test_a_folder_remembers_them(self, encoder, tmp_path):
        first = extract(encoder, path=tmp_path / "s")
        before = first.standardize()
        extract(encoder, [*IDS[:3], *"abcdefgh"], seed=0, path=tmp_path / "s")
        grown = ItemFeatures.open(tmp_path / "s")
        assert grown.num_items == 20
        again = grown.standardize()
        assert torch.equal(again.moments["text"], before.moments["text"])
        for item_id in IDS:
            assert torch.equal(tokens_of(again, item_id), tokens_of(before, item_id))
        part = extract(encoder, ["i"], seed=9, path=tmp_path / "s").standardize()
        assert torch.equal(part.moments["text"], before.moments["text"])
        extract(encoder, [f"x{i}" for i in range(9)], path=tmp_path / "s")
        with pytest.warns(
            UserWarning, match="30 items are standardized with the moments of the 12"
        ):
            ItemFeatures.open(tmp_path / "s").standardize()
        anew = ItemFeatures.open(tmp_path / "s").standardize(anew=True)
        assert not torch.equal(anew.moments["text"], before.moments["text"])
        now = ItemFeatures.open(tmp_path / "s").standardize().moments["text"]
        assert torch.equal(now, anew.moments["text"])


@pytest.fixture
def folder(features, tmp_path):
    make(features.standardize()).save_pretrained(tmp_path / "a")
    return tmp_path / "a"


class TestSavedModels:
    def test_raw_features_are_standardized_like_those_of_training(self, folder, features, new):
        model = ODMTWrapper.from_pretrained(folder, item_features=features)
        expected = features.standardize()
        assert torch.equal(model.item_features["text"].tokens, expected["text"].tokens)
        assert torch.equal(model.feature_moments["text"], expected.moments["text"])
        for loaded in (model, ODMTWrapper.from_pretrained(folder)):
            loaded.add_items(new)
            found = loaded.encode_catalogue()["text"][-1]
            model_of_all = make(JoinedFeatures(expected, new.standardize(like=expected)))
            model_of_all.item_encoder.load_state_dict(model.item_encoder.state_dict(), strict=False)
            own = loaded.item_encoder(
                torch.tensor([13]), new.standardize(like=expected).gather(torch.tensor([1]))
            )
            torch.testing.assert_close(found, own["text"][0])
            loaded.save_pretrained(folder.parent / "b")
            again = ODMTWrapper.from_pretrained(folder.parent / "b")
            assert torch.equal(again.feature_moments["text"], expected.moments["text"])

    def test_joined_raw_features(self, folder, encoder):
        parts = JoinedFeatures(extract(encoder).select(IDS[:5]), extract(encoder).select(IDS[5:]))
        model = ODMTWrapper.from_pretrained(folder, item_features=parts)
        expected = extract(encoder).standardize()
        assert torch.equal(tokens_of(model.item_features, "item-7"), tokens_of(expected, "item-7"))

    def test_other_moments_are_refused(self, folder, encoder, features):
        other = extract(encoder, seed=3).standardize()
        with pytest.raises(AdapterError, match="other moments than those of the adapter.*without"):
            ODMTWrapper.from_pretrained(folder, item_features=other)
        model = ODMTWrapper.from_pretrained(folder, item_features=features.standardize())
        new = extract(encoder, ["x", "y", "z"], seed=3).standardize()
        with pytest.raises(ValueError, match="other moments than those of the model"):
            model.add_items(new)
        assert model.num_items == 12

    def test_standardized_features_for_a_model_of_raw_ones(self, features, tmp_path, encoder):
        make(features).save_pretrained(tmp_path / "raw")
        with pytest.raises(
            AdapterError, match="are standardized, but those of the adapter were not"
        ):
            ODMTWrapper.from_pretrained(tmp_path / "raw", item_features=features.standardize())
        plain = ItemFeatures.from_tensors(item_ids=IDS, text=torch.randn(13, 2, 16))
        new = ItemFeatures.from_tensors(
            item_ids=list("xyz"), text=torch.randn(4, 2, 16)
        ).standardize()
        with pytest.raises(ValueError, match="are standardized, but those of the model were not"):
            make(plain).add_items(new)

    def test_adapters_older_than_moments(self, folder, features):
        config = json.loads((folder / "config.json").read_text())
        names = config["files"].pop("feature_moments")
        config["features"]["text"]["preprocessing"] = str(
            config["features"]["text"]["preprocessing"]
        )
        (folder / "config.json").write_text(json.dumps(config))
        (folder / names[0]).unlink()
        ODMTWrapper.from_pretrained(folder, item_features=features.standardize())
        with pytest.raises(
            AdapterError, match="these are not standardized: pass features.standardize.. of all"
        ):
            ODMTWrapper.from_pretrained(folder, item_features=features)

    @pytest.mark.parametrize("damage", ["shape", "name", "nan", "zero", "type"])
    def test_damaged_moments(self, folder, damage):
        path = folder / "feature_moments.safetensors"
        found = load_file(path)
        moments = found["text"].clone()
        found = {"text": moments}
        if damage == "shape":
            found = {"text": moments[:, :5].contiguous()}
        elif damage == "name":
            found = {"audio": moments}
        elif damage == "nan":
            moments[0, 3] = float("nan")
        elif damage == "zero":
            moments[1, 3] = 0
        else:
            found = {"text": moments.double()}
        save_id = json.loads((folder / "config.json").read_text())["save_id"]
        save_file(found, path, metadata={"save_id": save_id})
        with pytest.raises(
            AdapterError, match="is damaged: the moments of '(text|audio)' (are|do) not"
        ):
            ODMTWrapper.from_pretrained(folder)


class TestProvenance:
    def test_another_encoder(self, folder, features, other_encoder):
        for other in (extract(other_encoder), extract(other_encoder).standardize()):
            for transfer in (False, True):
                with pytest.raises(AdapterError, match="text features were made in another way"):
                    ODMTWrapper.from_pretrained(folder, item_features=other, transfer=transfer)
        new = extract(other_encoder, ["new"])
        for model in (make(features.standardize()), ODMTWrapper.from_pretrained(folder)):
            with pytest.raises(ValueError, match="another way than those of the model: weights"):
                model.add_items(new)
        with pytest.raises(ValueError, match="another way than those of the first part: weights"):
            JoinedFeatures(features, new)

    def test_another_pooling(self, folder, encoder):
        with pytest.raises(AdapterError, match="pooling 'mean' and not 'first'"):
            ODMTWrapper.from_pretrained(folder, item_features=extract(encoder, text_pooling="mean"))

    def test_other_settings_are_warned_of(self, folder, encoder):
        with pytest.warns(UserWarning, match="prepared in another way .*: max_tokens is 9, not 30"):
            ODMTWrapper.from_pretrained(folder, item_features=extract(encoder, max_text_tokens=9))

    def test_the_same_encoder_elsewhere_is_no_difference(self, folder, encoder):
        model, tokenizer = copy.deepcopy(encoder)
        model.config._name_or_path = "/another/place"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ODMTWrapper.from_pretrained(folder, item_features=extract((model, tokenizer)))

    def test_where_nothing_is_known(self, folder, features, encoder):
        tensors = ItemFeatures.from_tensors(item_ids=IDS, text=features["text"].tokens)
        message = "recorded for the adapter but not for the features given, so it cannot be"
        with pytest.warns(UserWarning, match=message):
            ODMTWrapper.from_pretrained(folder, item_features=tensors)
        message = "recorded for the features given but not for the model"
        with pytest.warns(UserWarning, match=message):
            make(tensors).add_items(extract(encoder, ["new"]))

    def test_transfer_wants_what_training_had(self, folder, encoder, features):
        ids = [f"other-{i}" for i in range(6)]
        raw = extract(encoder, ids, seed=4)
        with pytest.raises(
            AdapterError, match=r"these are not standardized: pass features.standardize\(\)$"
        ):
            ODMTWrapper.from_pretrained(folder, item_features=raw, transfer=True)
        for standard in (raw.standardize(), raw.standardize(like=features.standardize())):
            model = ODMTWrapper.from_pretrained(folder, item_features=standard, transfer=True)
            assert torch.equal(model.feature_moments["text"], standard.moments["text"])
        make(features).save_pretrained(folder.parent / "raw")
        with pytest.raises(AdapterError, match="without standardize"):
            ODMTWrapper.from_pretrained(
                folder.parent / "raw", item_features=raw.standardize(), transfer=True
            )

    def test_parts_of_which_some_are_standardized(self, features, new):
        with pytest.raises(ValueError, match="some parts were standardized and others not"):
            JoinedFeatures(features.standardize(), new)
        with pytest.raises(
            ValueError, match="are standardized, but those of the first part were not"
        ):
            JoinedFeatures(new, features.standardize())

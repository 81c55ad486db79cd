"""A modality that a user registers: raw cells in, tokens out, in memory and on disk."""

import pytest
import torch

from odmt_sdk import ItemFeatures, ODMTWrapper, SASRec, register_modality
from odmt_sdk.features import EncodedBatch, ItemError
from odmt_sdk.features.modalities import MODALITIES

NOTHING = (torch.empty(0), torch.empty(0))
ITEMS = {"item_id": ["a", "b", "c", "d"], "sound": ["ding", None, "la la", "boom"]}


class SoundExtractor:
    """One token of two values per character."""

    unit = "recording"

    def __init__(self, encoder, *, loudness=1.0):
        self.encoder, self.loudness = encoder, loudness

    @property
    def provenance(self):
        return {"encoder": f"ears {self.encoder}", "revision": None, "loudness": self.loudness}

    def encode(self, values, groups):
        for group, positions in enumerate(groups):
            for position in positions:
                if values[position] == "noise":
                    yield (
                        group,
                        EncodedBatch([], *NOTHING, {position: "loud"}),
                    )
                    continue
                if values[position] == "explosion":
                    raise ItemError(position, "breaks the ears")
                codes = [self.loudness * ord(letter) for letter in values[position]]
                tokens = torch.tensor([[code, self.encoder] for code in codes])[None]
                yield group, EncodedBatch([position], tokens, torch.tensor([len(codes)]), {})


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(MODALITIES, "_entries", dict(MODALITIES._entries))
    register_modality("sound")(SoundExtractor)


def features_of(items=ITEMS, **settings):
    settings = {"encoders": {"sound": 3.0}, "dtype": torch.float32, "progress": False, **settings}
    return ItemFeatures.from_items(items, **settings)


@pytest.mark.parametrize("path", [None, "store"])
def test_cells_become_tokens(path, tmp_path):
    features = features_of(path=None if path is None else tmp_path / path)
    tokens, lengths = features["sound"]
    assert lengths.tolist() == [0, 4, 0, 5, 4]
    assert tokens[3, 1].tolist() == [ord("a"), 3.0]
    assert features.provenance["sound"]["encoder"] == "ears 3.0"
    assert str(features.report) == "sound: 3 of 4 items; 1 without"


def test_a_model_trains_on_it():
    model = ODMTWrapper(SASRec(8, max_seq_length=4), features_of().standardize())
    assert model.sources == ("id", "sound")
    model(torch.tensor([[1, 2, 3], [0, 3, 4]])).loss.backward()


def test_options_and_columns():
    items = {"item_id": ["a"], "file": ["ding"]}
    features = features_of(
        items, columns={"sound": "file"}, encoder_options={"sound": {"loudness": 2.0}}
    )
    assert features["sound"].tokens[1, 0].tolist() == [2.0 * ord("d"), 3.0]


def test_own_reader_of_cells():
    def first_word(cells, item_ids):
        return {p: cell.split()[0] for p, cell in enumerate(cells) if cell and item_ids[p] != "d"}

    register_modality("loud", present=first_word)(SoundExtractor)
    features = features_of(encoders={"loud": 1.0}, columns={"loud": "sound"})
    assert features["loud"].lengths.tolist() == [0, 4, 0, 2, 0]


@pytest.mark.parametrize("path", [None, "store"])
def test_items_that_cannot_be_encoded_are_reported(path, tmp_path):
    items = {**ITEMS, "sound": ["noise", None, "la la", "boom"]}
    with pytest.warns(UserWarning, match="1 of 3 recordings could not be read.*'a': loud"):
        features = features_of(items, path=None if path is None else tmp_path / path)
    assert features.report.problems["sound"] == {"a": "loud"}
    assert features["sound"].lengths.tolist() == [0, 0, 0, 5, 4]
    items["sound"][0] = "explosion"
    with pytest.raises(ValueError, match="recording of item 'a' breaks the ears"):
        features_of(items, path=None if path is None else tmp_path / "another")


def test_another_encoder_of_a_folder_is_refused(tmp_path):
    features_of(path=tmp_path / "store")
    with pytest.raises(ValueError, match=r"sound encoder is 'ears 3\.0', now 'ears 4\.0'"):
        features_of(path=tmp_path / "store", encoders={"sound": 4.0})


def test_a_folder_grows(tmp_path):
    features_of(path=tmp_path / "store")
    more = {"item_id": ["d", "e"], "sound": ["boom", "a longer sound"]}
    features_of(more, path=tmp_path / "store")
    assert ItemFeatures.open(tmp_path / "store")["sound"].lengths.tolist() == [0, 4, 0, 5, 4, 14]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoders": {"smell": 1}}, "no modality is named 'smell'; known are .*'sound', 'text'"),
        ({"arrays": {"sound": [[1.0]] * 4}}, "'sound' is both encoded and among arrays="),
        ({"encoders": {"sound": None}}, r"encoders\['sound'\] is None: leave it out"),
        ({"columns": {"smell": "nose"}}, r"columns= has \['smell'\], but the encoders are for"),
        ({"encoder_options": {"smell": {}}}, r"encoder_options= has \['smell'\]"),
        ({"encoders": {"text": 1}, "text_encoder": 2}, "text_encoder= and encoders= both give"),
        ({"columns": {"sound": "nowhere"}}, "nowhere"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        features_of(**settings)


def test_a_wrong_option_is_named():
    with pytest.raises(TypeError, match="unexpected keyword argument 'volume'"):
        features_of(encoder_options={"sound": {"volume": 3}})


@pytest.mark.parametrize("name", ["sound", "text", "image"])
def test_a_name_is_registered_once(name):
    with pytest.raises(ValueError, match=f"a modality named '{name}' is registered already"):
        register_modality(name)(SoundExtractor)


@pytest.mark.parametrize("name", ["id", "fused", "two words", "keys"])
def test_names_that_cannot_be(name):
    with pytest.raises(ValueError, match="cannot be called|must be a plain word"):
        register_modality(name)

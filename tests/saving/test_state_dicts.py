"""A state dict is loaded only into a model of the same items, in the same order."""

import copy
import io
import warnings

import pytest
import torch
from toys import MyModel, toy_features, toy_split

from odmt_sdk import ODMTWrapper, add_item_to_item

IDS = [f"item-{i}" for i in range(12)]


def model(item_ids=tuple(IDS)):
    return ODMTWrapper(MyModel(), toy_features(item_ids=list(item_ids)))


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("ids", [IDS[::-1], range(12), [f"other-{i}" for i in range(12)]])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("sent", [lambda state: state, through_a_file])
def test_other_items_of_the_same_number(ids, strict, sent):
    state = sent(model().state_dict())
    other = model(ids)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(RuntimeError, match=r"other item ids, .* transfer=True.* dict\(state_dict"):
        other.load_state_dict(state, strict=strict)
    with pytest.raises(RuntimeError, match="other item ids"):
        torch.nn.Sequential(other).load_state_dict(torch.nn.Sequential(model()).state_dict())
    assert before.keys() == other.state_dict().keys()
    other.load_state_dict(dict(state))  # by row, if this is wanted


def test_the_same_items():
    saved = model()
    state = through_a_file(saved.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (model(), copy.deepcopy(model())):
            other.load_state_dict(state)
            assert other.recommend([["item-1"]]) == saved.recommend([["item-1"]])


def test_an_adapter_that_was_loaded_has_the_same_items(tmp_path):
    saved = model()
    saved.save_pretrained(tmp_path)
    loaded = ODMTWrapper.from_pretrained(tmp_path, MyModel())
    loaded.load_state_dict(saved.state_dict())
    saved.load_state_dict(loaded.state_dict())
    with pytest.raises(RuntimeError, match="other item ids"):
        model(IDS[::-1]).load_state_dict(loaded.state_dict())


def test_counts_that_a_state_dict_lacks():
    saved, split = model(), toy_split()
    add_item_to_item(saved, split)
    saved.item_to_item_weight = 0.5
    state = saved.state_dict()
    with pytest.warns(UserWarning, match=r"item_to_item_weight=0\.5.*add_item_to_item"):
        model().load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved.load_state_dict(state)
        saved.item_to_item_weight = 0
        model().load_state_dict(saved.state_dict())

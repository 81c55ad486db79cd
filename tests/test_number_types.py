"""dtypes: added weights stay in float32, complex numbers stay complex; and export."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from toys import MyModel, toy_features, toy_split

from odmt_sdk import GRU4Rec, ODMTConfig, ODMTWrapper, SASRec, evaluate

ITEM_IDS = torch.tensor([[0, 3, 1, 2], [4, 5, 6, 7]])


def make(backbone: nn.Module, **arguments) -> ODMTWrapper:
    config = ODMTConfig(dropout=0.0, max_seq_length=6, **arguments.pop("settings", {}))
    return ODMTWrapper(backbone, toy_features(), config, hidden_size=8, check=False, **arguments)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backbone", [SASRec, MyModel], ids=lambda kind: kind.__name__)
def test_weights_added_to_a_16_bit_backbone_stay_float32(half, backbone, tmp_path):
    whole = backbone(8)
    model = make(whole.to(half)).eval()
    assert {p.dtype for p in model.item_encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in model.backbones.parameters()} == {half}
    output = model(ITEM_IDS)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert all(logits.dtype == torch.float32 for logits in output.logits.values())
    assert all(p.grad.dtype == p.dtype for p in model.parameters() if p.grad is not None)
    plain = make(whole.float()).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(output.loss, plain(ITEM_IDS).loss, rtol=0.02, atol=0.02)

    found = model.recommend([[3, 1]], k=3)
    model.save_pretrained(tmp_path / "saved")
    for features in (None, toy_features()):
        loaded = ODMTWrapper.from_pretrained(tmp_path / "saved", backbone(8).to(half), features)
        assert {p.dtype for p in loaded.item_encoder.parameters()} == {torch.float32}
        assert {p.dtype for p in loaded.backbones.parameters()} == {half}
        assert loaded.recommend([[3, 1]], k=3) == found


def test_a_type_for_added_weights_can_be_asked_for():
    model = make(MyModel().bfloat16(), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(ITEM_IDS).loss.isfinite()
    assert make(MyModel().double()).item_encoder.id_embedding.weight.dtype == torch.float64
    with pytest.raises(TypeError, match="dtype=torch.int64 must be a floating-point type"):
        make(MyModel(), dtype=torch.int64)


class Rotating(nn.Module):
    """Rotates pairs of numbers by complex numbers in a buffer."""

    def __init__(self):
        super().__init__()
        self.mix = nn.GRU(8, 8, batch_first=True)
        angles = torch.arange(24.0).reshape(6, 4) / 10
        self.register_buffer("turns", torch.polar(torch.ones(6, 4), angles))

    def forward(self, inputs_embeds):
        pairs = inputs_embeds.float().unflatten(-1, (-1, 2)).contiguous()
        turned = torch.view_as_complex(pairs) * self.turns[: inputs_embeds.shape[1]]
        return self.mix(torch.view_as_real(turned).flatten(-2).to(inputs_embeds.dtype))[0]


def test_complex_buffers_stay_complex(tmp_path):
    model = make(Rotating()).eval()
    turns = model.unwrap_backbone().turns.clone()
    expected = model.recommend([[1, 2, 3]], k=4)
    model.save_pretrained(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = ODMTWrapper.from_pretrained(tmp_path / "saved", Rotating(), dtype=torch.float32)
        moved = make(Rotating()).to(torch.float64).to(torch.float32).half().float()
        for dtype in (torch.float64, torch.bfloat16, torch.float32):
            moved = moved.to(dtype)
            assert moved.unwrap_backbone().turns.is_complex()
    assert torch.equal(loaded.unwrap_backbone().turns, turns)
    assert loaded.recommend([[1, 2, 3]], k=4) == expected
    torch.testing.assert_close(moved.unwrap_backbone().turns, turns)
    assert moved.to("meta").unwrap_backbone().turns.dtype == torch.complex64


class Scorer(nn.Module):
    """Maps rows to scores, as needed for serving."""

    def __init__(self, model: ODMTWrapper):
        super().__init__()
        self.model = model
        self.catalogue = {s: v.clone() for s, v in model.encode_catalogue().items()}

    def forward(self, item_ids):
        states = self.model.encode_sequences(item_ids, item_embeddings=self.catalogue)
        return sum(states[source] @ self.catalogue[source].T for source in states)


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="torch 2.6 fixes the batch size of this export"
)
@pytest.mark.parametrize("backbone", [SASRec, GRU4Rec, MyModel], ids=lambda kind: kind.__name__)
def test_ids_to_scores_can_be_exported_for_any_batch(backbone):
    scorer = Scorer(make(backbone(8)).eval())
    example = torch.randint(1, 13, (3, 6))
    batch = torch.export.Dim("batch", min=2, max=512)
    exported = torch.export.export(scorer, (example,), dynamic_shapes=({0: batch},)).module()
    for size in (2, 5):
        item_ids = torch.randint(0, 13, (size, 6))
        item_ids[:, 2] = 1  # padding on both sides
        torch.testing.assert_close(exported(item_ids), scorer(item_ids))
        assert torch.equal(exported(item_ids).topk(3).indices, scorer(item_ids).topk(3).indices)


class LargestTensor(TorchDispatchMode):
    """Records the largest output of any operation."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        parts = result if isinstance(result, (tuple, list)) else (result,)
        for part in parts:
            if isinstance(part, torch.Tensor):
                self.most = max(self.most, part.numel())
        return result


def test_a_chunk_of_the_loss_bounds_the_largest_tensor():
    torch.manual_seed(0)
    users, slots, items, size = 30, 7, 200, 5
    model = ODMTWrapper(
        MyModel(),
        config=ODMTConfig(fusion="id_ensemble", loss_chunk_size=size),
        vocabulary=range(1, items + 1),
        hidden_size=8,
        check=False,
    )
    item_ids = torch.randint(1, items + 1, (users, slots))
    with LargestTensor() as largest:
        output = model(item_ids)
        output.loss.backward()
    distinct, positions = len(output.candidate_ids), len(output.labels)
    assert largest.most <= users * (distinct + 1)  # per sequence, never per position
    assert largest.most < positions * distinct / 5


def test_data_parallel_says_what_to_use():
    with pytest.raises(ValueError, match=r"torchrun.* The model itself is \.module"):
        make(MyModel())._replicate_for_data_parallel()  # as DataParallel does for several GPUs


def test_a_wrapped_model_says_where_the_model_is():
    wrapped = nn.DataParallel(make(MyModel()))
    with pytest.raises(TypeError, match=r"wrapped in DataParallel: pass its \.module"):
        evaluate(wrapped, toy_split().test)


def test_numpy_integers_as_sizes(tmp_path):
    split = toy_split(max_seq_length=np.int64(6))
    items = [f"item-{i}" for i in range(12)]
    backbone = SASRec(np.int64(8), num_layers=np.int32(1), max_seq_length=np.int64(6))
    model = ODMTWrapper(backbone, toy_features(item_ids=items), check=False)
    found = evaluate(model, split.test, k=(np.int64(2),), batch_size=np.int16(7), progress=False)
    assert found == evaluate(model, split.test, k=(2,), batch_size=7, progress=False)
    model.save_pretrained(tmp_path / "saved")
    loaded = ODMTWrapper.from_pretrained(tmp_path / "saved")
    assert loaded.recommend([["item-1"]], k=3) == model.recommend([["item-1"]], k=3)

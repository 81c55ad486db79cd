import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from extraction import extract_image_tokens, extract_text_tokens
from PIL import Image
from rounding import assert_rounded
from tiny_encoders import BERT, SIZES, TEXTS, VISION, bert, make_tokenizer, pictures, vit
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    ViTModel,
)

from odmt_sdk.features.extraction.text_tokens import TextExtractor
from odmt_sdk.features.extractor import EncodedBatch, collect, is_missing

ENCODERS = "odmt_sdk.features.extraction.pretrained_encoders"


class FixedOutput(nn.Module):
    """An encoder that returns the same output for any input."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, **inputs: torch.Tensor) -> object:
        return self.output


class Given:
    """An extractor that returns the given batches for any input."""

    unit = "picture"

    def __init__(self, batches: list[EncodedBatch]) -> None:
        self.batches = batches

    def encode(self, values, groups):
        return ((0, batch) for batch in self.batches)


def test_values_that_are_not_missing():
    present = ["a", b"", 0, 0.0, np.int64(3), Image.new("L", (1, 1)), np.zeros(2), [None]]
    assert not any(is_missing(value) for value in present)


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    model, tokenizer = bert()
    model.half().save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    model, processor = vit()
    model.save_pretrained(tmp_path / "vit")
    processor.save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_text_encoders_load_from_a_folder_and_compute_in_single_precision(text_folder):
    extracted = extract_text_tokens(TEXTS, text_folder, progress=False)
    pair = AutoModel.from_pretrained(text_folder, dtype=torch.float32), make_tokenizer()
    expected = extract_text_tokens(TEXTS, pair, progress=False)
    torch.testing.assert_close(extracted.tokens, expected.tokens)


def test_image_encoders_load_from_a_folder(image_folder):
    extracted = extract_image_tokens(pictures(3), str(image_folder), progress=False)
    pair = ViTModel.from_pretrained(image_folder), AutoImageProcessor.from_pretrained(image_folder)
    expected = extract_image_tokens(pictures(3), pair, progress=False)
    torch.testing.assert_close(extracted.tokens, expected.tokens)


def test_extraction_leaves_random_state_alone(text_folder, image_folder):
    before = torch.get_rng_state()
    extract_text_tokens(TEXTS, text_folder, progress=False)
    extract_image_tokens(pictures(3), image_folder, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_missing_in_a_checkpoint_are_the_same_each_time(tmp_path):
    model, tokenizer = BertModel(BERT, add_pooling_layer=False), make_tokenizer()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    first, second = (TextExtractor(tmp_path).provenance["weights"] for _ in range(2))
    assert first == second


def test_a_name_that_leads_nowhere(tmp_path):
    with pytest.raises(OSError, match="cannot be loaded as text encoder.*tokenizer files"):
        extract_text_tokens(TEXTS, tmp_path / "absent", progress=False)


def test_a_folder_without_an_image_processor(text_folder):
    with pytest.raises(OSError, match=r"image encoder.*preprocessor_config\.json"):
        extract_image_tokens(pictures(1), text_folder, progress=False)


def test_the_users_model_is_left_as_it_was():
    model, tokenizer = bert()
    model.half().train()
    model.encoder.eval()
    modes = [module.training for module in model.modules()]
    extracted = extract_text_tokens(TEXTS, (model, tokenizer), progress=False)
    again = extract_text_tokens(TEXTS, (model, tokenizer), progress=False)
    assert torch.equal(extracted.tokens, again.tokens)  # dropout was off
    assert [module.training for module in model.modules()] == modes
    assert model.dtype == torch.float16


def test_training_modes_come_back_after_an_error():
    model = FixedOutput(None).train()
    with pytest.raises(TypeError, match="NoneType without last_hidden_state"):
        extract_text_tokens(TEXTS, (model, make_tokenizer()), progress=False)
    assert model.training


def test_clip_contributes_one_tower_to_each_modality(tmp_path):
    text = {**SIZES, "vocab_size": 40, "intermediate_size": 32, "eos_token_id": 3}
    config = CLIPConfig(text_config=text, vision_config=VISION)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    size = {"height": 16, "width": 16}
    CLIPImageProcessor(size=size, crop_size=size).save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    images = extract_image_tokens(pictures(2), tmp_path, progress=False)
    with torch.no_grad():
        pixels = processor(images=pictures(2), return_tensors="pt").pixel_values
        expected = model.vision_model(pixels).last_hidden_state
    assert images.tokens.shape == (2, 5, 16)
    torch.testing.assert_close(images.tokens, expected, rtol=1e-4, atol=1e-5)
    texts = extract_text_tokens(TEXTS, tmp_path, pooling="mean", progress=False)
    with torch.no_grad():
        ids = make_tokenizer()("red scarf", return_tensors="pt").input_ids
        expected = model.text_model(ids).last_hidden_state
    torch.testing.assert_close(texts.tokens[0, 1:5], expected[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="does not read the rest"):
        extract_text_tokens(TEXTS, tmp_path, progress=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tokens_are_stored_in_the_type_asked_for(dtype):
    encoder = bert()
    extracted = extract_text_tokens(TEXTS, encoder, dtype=dtype, progress=False)
    single = extract_text_tokens(TEXTS, encoder, progress=False)
    assert extracted.tokens.dtype == dtype
    torch.testing.assert_close(extracted.tokens, single.tokens.to(dtype))
    assert not extracted.tokens.is_inference()


@pytest.mark.parametrize(
    ("value", "message"),
    [(1e6, r"torch\.float16: the largest value of their batch is 1e\+06"), (float("nan"), "nan")],
)
def test_tokens_that_cannot_be_stored(value, message):
    state = torch.zeros(2, 4, 8)
    state[1, 2, 3] = value
    encoder = FixedOutput(SimpleNamespace(last_hidden_state=state)), make_tokenizer()
    with pytest.raises(ValueError, match=message):
        extract_text_tokens(
            ["red hat", "blue hat"],
            encoder,
            pooling="mean",
            dtype=torch.float16,
            progress=False,
        )


def test_a_later_batch_with_more_tokens_is_refused():
    batches = [
        EncodedBatch([row], torch.ones(1, 2 + row, 3), torch.tensor([2 + row]), {})
        for row in range(2)
    ]
    with pytest.raises(
        ValueError, match="picture of item 1 gives 3 tokens, but an earlier one gave 2"
    ):
        collect(Given(batches), {0: 0, 1: 1}, num_items=2, dtype=torch.float32, progress=False)


def test_progress_shows_the_number_of_items(capfd, monkeypatch):
    monkeypatch.setattr("odmt_sdk.features.extractor.shows_bars", lambda: True)
    extract_text_tokens(TEXTS, bert(), progress=True)
    assert "4/4" in capfd.readouterr().err
    extract_text_tokens(TEXTS, bert(), progress=False)
    assert "4/4" not in capfd.readouterr().err


WITHOUT_TORCHVISION = """
import sys
{prepare}
from extraction import extract_image_tokens
from extraction import extract_text_tokens

assert not any(name.startswith("torchvision") for name in sys.modules if sys.modules[name])
print(extract_text_tokens(["red hat", None], sys.argv[1], progress=False).lengths.tolist())
try:
    extract_image_tokens(["picture.png"], sys.argv[1], progress=False)
except ImportError as error:
    print(type(error).__name__, error)
"""
BROKEN = 'raise RuntimeError("operator torchvision::nms does not exist")'


@pytest.mark.parametrize("state", ["broken", "missing"])
def test_texts_need_no_torchvision_and_pictures_say_that_they_do(tmp_path, text_folder, state):
    prepare = 'sys.modules["torchvision"] = None'
    if state == "broken":
        prepare = "sys.path.insert(0, sys.argv[2])"
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
        metadata = tmp_path / "torchvision-0.99.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99\n")
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT_TORCHVISION.format(prepare=prepare),
            str(text_folder),
            str(tmp_path),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    lengths, error = result.stdout.strip().splitlines()[-2:]
    assert lengths == "[4, 0]"
    assert error.startswith("ImportError pictures need torchvision, which cannot be imported (")
    if state == "broken":
        assert "operator torchvision::nms does not exist" in error


def test_computing_in_bfloat16():
    """Encoders of both kinds return the same shapes, at a lower precision."""
    torch.manual_seed(0)
    for extract, values, encoder in (
        (extract_text_tokens, TEXTS, bert()),
        (extract_image_tokens, pictures(3), vit()),
    ):
        exact = extract(values, encoder, pooling="mean", progress=False).tokens
        coarse = extract(values, encoder, pooling="mean", precision="bfloat16", progress=False)
        assert_rounded(coarse.tokens, exact, torch.bfloat16, encoder[0].config.num_hidden_layers)
        assert not torch.equal(coarse.tokens, exact)
        assert next(encoder[0].parameters()).dtype == torch.float32
        same = extract(values, encoder, pooling="mean", precision="float32", progress=False)
        assert torch.equal(same.tokens, exact)
        with pytest.raises(ValueError, match="precision is 'half', but it must be 'auto'"):
            extract(values, encoder, precision="half", progress=False)


def test_automatic_precision_goes_by_the_device(monkeypatch):
    def tokens(**settings):
        encoder = bert()
        made = extract_text_tokens(TEXTS, encoder, progress=False, **settings).tokens
        half = extract_text_tokens(
            TEXTS, (encoder[0].bfloat16(), encoder[1]), progress=False, **settings
        )
        return made, half.tokens

    def without(device):
        return False

    monkeypatch.setattr(
        "odmt_sdk.features.extraction.pretrained_encoders.computes_in_bfloat16", without
    )
    torch.manual_seed(0)
    slow, halved = tokens()
    torch.manual_seed(0)
    assert torch.equal(slow, tokens(precision="float32")[0])
    monkeypatch.setattr(
        "odmt_sdk.features.extraction.pretrained_encoders.computes_in_bfloat16", lambda device: True
    )
    torch.manual_seed(0)
    fast, same = tokens()
    torch.manual_seed(0)
    assert torch.equal(fast, tokens(precision="bfloat16")[0])
    assert not torch.equal(fast, slow)
    assert torch.equal(same, halved)  # weights in half precision keep it


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({}, False), ({"avx512_f": True, "avx512_bf16": False}, False), ({"amx_bf16": True}, True)],
)
def test_a_cpu_computes_in_bfloat16_if_it_has_instructions_for_it(capabilities, expected):
    # in a separate process, because the tests' own settings hide the function
    code = f"""
import torch
torch.cpu.get_capabilities = lambda: {capabilities}
from odmt_sdk.features.extraction.pretrained_encoders import computes_in_bfloat16
print(computes_in_bfloat16(torch.device("cpu")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{expected}\n", done.stderr

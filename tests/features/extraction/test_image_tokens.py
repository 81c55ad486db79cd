import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from extraction import extract_image_tokens
from PIL import Image, ImageOps
from tiny_encoders import pictures, siglip, swin, vit
from transformers import ConvNextConfig, ConvNextModel, PreTrainedModel, ViTImageProcessor

from odmt_sdk.features.extraction.image_tokens import _default_workers
from odmt_sdk.features.extraction.pictures import open_picture, present_pictures


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_paths_bytes_and_pil_images_are_the_same_picture(tmp_path):
    image = pictures(1)[0]
    path = tmp_path / "picture.png"
    image.save(path)
    extracted = extract_image_tokens(
        [image, path, str(path), path.read_bytes(), Image.open(path)], vit(), progress=False
    )
    assert extracted.lengths.tolist() == [5] * 5
    for row in range(1, 5):
        torch.testing.assert_close(extracted.tokens[row], extracted.tokens[0])


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 90, (90, 90, 90)),
        ("LA", (90, 255), (90, 90, 90)),
        ("LA", (90, 0), (255, 255, 255)),
        ("La", (90, 255), (90, 90, 90)),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("RGBa", (10, 20, 30, 255), (10, 20, 30)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("HSV", (0, 0, 60), (60, 60, 60)),
        ("I;16", 90 * 257, (90, 90, 90)),
        ("I", 90, (90, 90, 90)),
        ("I", 90 * 257, (90, 90, 90)),
        ("F", 0.2, (51, 51, 51)),
        ("F", 90.0, (90, 90, 90)),
        ("F", 90.0 * 257, (90, 90, 90)),
    ],
)
def test_every_mode_becomes_rgb(mode, color, expected):
    picture = open_picture(Image.new(mode, (3, 2), color))
    assert (picture.mode, picture.size) == ("RGB", (3, 2))
    assert picture.getpixel((1, 1)) == expected


def test_palettes_with_and_without_a_transparent_color():
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    plain = open_picture(encoded(palette))
    assert [plain.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (0, 0, 255)]
    for kind in ("PNG", "GIF"):
        clear = open_picture(encoded(palette, kind, transparency=1))
        assert [clear.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_sixteen_bit_files_are_scaled_not_cut():
    levels = np.array([[0, 90 * 257, 65535]], dtype=np.uint16)
    picture = open_picture(encoded(Image.fromarray(levels)))
    assert [picture.getpixel((x, 0))[0] for x in range(3)] == [0, 90, 255]


def test_pictures_are_turned_upright():
    image = pictures(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    turned = open_picture(encoded(image, exif=exif))
    assert np.array_equal(turned, image.transpose(Image.Transpose.ROTATE_270))


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Nine broken images at positions 1, 3, 5, ..., between good ones."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    good = pictures(1)[0]
    jpeg = encoded(good, "JPEG", quality=95)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "good.jpg").write_bytes(jpeg)
    bad = [
        tmp_path / "empty.jpg",
        tmp_path / "page.jpg",
        str(tmp_path / "cut.jpg"),
        tmp_path / "absent.jpg",
        tmp_path,
        b"",
        jpeg[:100],
        encoded(Image.new("L", (200, 200))),  # a decompression bomb, by the limit above
        Image.new("L", (505, 5)),
    ]
    mixed: list[object] = [tmp_path / "good.jpg"]
    for picture in bad:
        mixed += [picture, tmp_path / "good.jpg"]
    return mixed


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_pictures_are_reported_and_stop_nothing(broken, num_workers):
    with pytest.warns(UserWarning, match="9 of 19 pictures could not be read.*and 4 more"):
        extracted = extract_image_tokens(
            broken, vit(), batch_size=4, num_workers=num_workers, progress=False
        )
    assert list(extracted.problems) == list(range(1, 19, 2))
    assert extracted.lengths.tolist() == [5, 0] * 9 + [5]
    assert extracted.tokens[1::2].abs().max() == 0
    for row in range(2, 19, 2):
        torch.testing.assert_close(extracted.tokens[row], extracted.tokens[0])
    for row, reason in {
        1: "empty.jpg: UnidentifiedImageError",
        5: "cut.jpg: OSError: image file is truncated",
        7: "FileNotFoundError",
        9: "IsADirectoryError",
        15: "DecompressionBombError",
        17: "ValueError: the picture is 505 x 5",
    }.items():
        assert reason in extracted.problems[row]


def test_a_batch_without_any_readable_picture():
    images = [b"", b"", b"", pictures(1)[0]]
    with pytest.warns(UserWarning, match="3 of 4 pictures"):
        extracted = extract_image_tokens(images, vit(), batch_size=2, progress=False)
    assert extracted.lengths.tolist() == [0, 0, 0, 5]


def test_no_readable_picture_at_all():
    with pytest.raises(ValueError, match="none of 2 items has a picture.*UnidentifiedImageError"):
        extract_image_tokens([b"", None], vit(), progress=False)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, "", " "], ids=repr)
def test_missing_pictures_are_no_problem(missing):
    extracted = extract_image_tokens([missing, *pictures(1)], vit(), progress=False)
    assert extracted.lengths.tolist() == [0, 5]
    assert extracted.problems == {}


def test_small_batches_by_default_on_a_cpu():
    model, processor = vit()
    sizes = []
    model.register_forward_hook(lambda module, args, output: sizes.append(len(output[0])))
    extract_image_tokens(pictures(9), (model, processor), progress=False)
    extract_image_tokens(pictures(9), (model, processor), batch_size=5, progress=False)
    assert sizes == [4, 4, 1, 5, 4]


def test_worker_processes_change_nothing():
    encoder = vit()
    images = [encoded(image) for image in pictures(10)]
    alone = extract_image_tokens(images, encoder, batch_size=3, num_workers=0, progress=False)
    helped = extract_image_tokens(images, encoder, batch_size=3, num_workers=2, progress=False)
    assert torch.equal(alone.tokens, helped.tokens)
    assert torch.equal(alone.lengths, helped.lengths)


@pytest.mark.parametrize(
    ("device", "cores", "start", "count", "expected"),
    [
        ("cpu", 2, "fork", 64, 0),
        ("cpu", 3, "fork", 64, 1),
        ("cpu", 8, "fork", 64, 4),
        ("cuda", 2, "fork", 64, 2),
        ("cuda", 8, "fork", 64, 4),
        ("cuda", 8, "fork", 63, 0),
        ("cuda", 8, "spawn", 64, 0),
    ],
)
def test_default_number_of_workers(monkeypatch, device, cores, start, count, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none: start)
    present = dict.fromkeys(range(count), "path")
    assert _default_workers(present, torch.device(device)) == expected
    present[0] = pictures(1)[0]
    assert _default_workers(present, torch.device(device)) == 0


def tokens_of(model: PreTrainedModel, processor: Callable, images: Sequence) -> torch.Tensor:
    with torch.no_grad():
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        return model(pixel_values=pixels).last_hidden_state


def test_a_class_token_of_the_encoder_comes_first():
    model, processor = vit()
    extracted = extract_image_tokens(pictures(3), (model, processor), progress=False)
    expected = tokens_of(model, processor, pictures(3))
    torch.testing.assert_close(extracted.tokens, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [siglip, swin])
def test_encoders_without_a_class_token_get_the_mean_in_front(build):
    model, processor = build(), vit()[1]
    extracted = extract_image_tokens(pictures(3), (model, processor), progress=False)
    expected = tokens_of(model, processor, pictures(3))
    torch.testing.assert_close(extracted.tokens[:, 1:], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(extracted.tokens[:, 0], expected.mean(1), rtol=1e-4, atol=1e-5)


def test_pooling_can_be_chosen():
    model, processor = vit()
    mean = extract_image_tokens(pictures(2), (model, processor), pooling="mean", progress=False)
    expected = tokens_of(model, processor, pictures(2))
    assert mean.lengths.tolist() == [6, 6]
    torch.testing.assert_close(mean.tokens[:, 0], expected.mean(1), rtol=1e-4, atol=1e-5)
    first = extract_image_tokens(
        pictures(2), (siglip(), processor), pooling="first", progress=False
    )
    assert first.lengths.tolist() == [4, 4]


@pytest.mark.parametrize("pooling", ["auto", "first"])
def test_feature_maps_become_their_mean_and_their_places_row_by_row(pooling):
    config = ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, image_size=16)
    model = ConvNextModel(config).eval()
    processor = ViTImageProcessor(size={"height": 16, "width": 32})
    extracted = extract_image_tokens(
        pictures(2), (model, processor), pooling=pooling, progress=False
    )
    maps = tokens_of(model, processor, pictures(2))
    assert maps.shape == (2, 12, 2, 4)
    assert extracted.tokens.shape == (2, 9, 12)
    for place, (y, x) in enumerate([(y, x) for y in range(2) for x in range(4)]):
        torch.testing.assert_close(
            extracted.tokens[:, 1 + place], maps[:, :, y, x], rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(extracted.tokens[:, 0], maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_a_processor_that_gives_no_common_size():
    images = [Image.new("RGB", (20, 30)), Image.new("RGB", (30, 20))]
    processor = ViTImageProcessor(do_resize=False)
    with pytest.raises(ValueError, match=r"shapes \[\(3, 20, 30\), \(3, 30, 20\)\]"):
        extract_image_tokens(images, (vit()[0], processor), progress=False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": "picture.jpg"}, TypeError, "images is a single str"),
        ({"images": [None, 5]}, TypeError, "image of item 1 is int"),
        ({"images": [np.zeros((2, 2, 3))]}, TypeError, "image of item 0 is ndarray"),
        ({"images": ["https://a.b/c.jpg"]}, ValueError, "image of item 0 is the URL.*download"),
        ({"images": [None]}, ValueError, "none of 1 items has a picture"),
        ({"pooling": "max"}, ValueError, "pooling is 'max'"),
        ({"batch_size": -1}, ValueError, "batch_size is -1"),
        ({"num_workers": -1}, ValueError, "num_workers is -1"),
        ({"encoder": None}, TypeError, "image encoder is NoneType.*image processor"),
    ],
)
def test_bad_arguments_for_pictures(arguments, error, message):
    arguments = {"images": pictures(1), "encoder": vit(), "progress": False, **arguments}
    with pytest.raises(error, match=message):
        extract_image_tokens(arguments.pop("images"), arguments.pop("encoder"), **arguments)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(orientation):
    image = pictures(1)[0].resize((6, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.open(BytesIO(encoded(image, exif=exif)))
    assert open_picture(turned).tobytes() == ImageOps.exif_transpose(turned).tobytes()


def test_damaged_exif_data_do_not_cost_the_picture(monkeypatch):
    image = pictures(1)[0]

    def fail(self, *_):
        raise ValueError("odd metadata")

    monkeypatch.setattr(Image.Exif, "tobytes", fail)  # as when odd values are written anew
    turned = image.copy()
    turned.getexif()[0x0112] = 6
    assert open_picture(turned).tobytes() == image.transpose(Image.Transpose.ROTATE_270).tobytes()
    monkeypatch.setattr(type(image), "getexif", fail)
    assert open_picture(image).tobytes() == image.tobytes()


@pytest.mark.parametrize("cell", [{"url": "https://shop.example/1.png"}, {"array": [1]}, {}])
def test_a_mapping_without_bytes_and_path_is_no_missing_picture(cell):
    with pytest.raises(TypeError, match="image of item 'mug' is dict, but an image must be a path"):
        present_pictures([cell], ["mug"])
    assert present_pictures([{"bytes": None, "path": None}], ["mug"]) == {}

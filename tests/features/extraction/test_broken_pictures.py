"""A folder with images of all kinds, some of them broken, as in real catalogues."""

import struct
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_encoders import pictures, vit

from odmt_sdk import ItemFeatures


def huge(png: bytes) -> bytes:
    """Return a small PNG file whose header claims 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.fixture
def folder(tmp_path) -> Path:
    plain = pictures(1)[0]
    plain.save(tmp_path / "plain.png")
    # Readable: equal to the plain image or to another known image.
    plain.save(tmp_path / "a.bmp")
    plain.quantize(255).save(tmp_path / "palette.png")
    transparent = plain.convert("RGBA")
    transparent.putalpha(0)
    transparent.save(tmp_path / "alpha.png")
    plain.convert("CMYK").save(tmp_path / "cmyk.tiff")
    plain.convert("L").save(tmp_path / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # rotate by 90 degrees clockwise
    plain.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    # Not readable.
    (tmp_path / "empty.jpg").touch()
    plain.save(tmp_path / "whole.jpg", quality=95)
    half = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(half[: len(half) // 2])
    (tmp_path / "page.jpg").write_text("<html>404 Not Found</html>")
    (tmp_path / "bomb.png").write_bytes(huge((tmp_path / "plain.png").read_bytes()))
    return tmp_path


READABLE = ["plain.png", "a.bmp", "palette.png", "alpha.png", "cmyk.tiff", "grey.png", "turned.png"]
BROKEN = {
    "empty.jpg": "UnidentifiedImageError",
    "cut.jpg": "OSError: image file is truncated",
    "page.jpg": "UnidentifiedImageError",
    "bomb.png": "DecompressionBombError",
    "absent.jpg": "FileNotFoundError",
}


@pytest.mark.parametrize("on_disk", [False, True])
def test_they_go_through_with_a_correct_report(folder, on_disk):
    names = [*READABLE[:3], *BROKEN, None, *READABLE[3:]]
    paths = [name and str(folder / name) for name in names]
    items = {"item_id": [name or "none" for name in names], "image": paths}
    torch.manual_seed(0)
    encoder = vit()
    settings = {"dtype": torch.float32, "num_workers": 0, "progress": False}
    path = folder.parent / "store" if on_disk else None
    with pytest.warns(UserWarning, match="5 of 12 pictures could not be read and count as missing"):
        features = ItemFeatures.from_items(items, image_encoder=encoder, path=path, **settings)
    report = features.report
    assert (report.num_items, report.present) == (13, {"image": 7})
    assert list(report.problems["image"]) == list(BROKEN)
    for name, reason in BROKEN.items():
        assert report.problems["image"][name].startswith(f"{folder / name}: ")
        assert reason in report.problems["image"][name]
    assert str(report).startswith(
        "image: 7 of 13 items; 1 without; 5 that could not be read:\n  'empty.jpg': "
    )
    lengths = dict(zip(items["item_id"], features["image"].lengths[1:].tolist(), strict=True))
    assert lengths == {"none": 0, **dict.fromkeys(BROKEN, 0), **dict.fromkeys(READABLE, 5)}

    plain = pictures(1)[0]
    expected = {
        "plain.png": plain,
        "a.bmp": plain,
        "palette.png": plain.quantize(255).convert("RGB"),
        "alpha.png": Image.new("RGB", plain.size, "white"),
        "cmyk.tiff": plain.convert("CMYK").convert("RGB"),
        "grey.png": plain.convert("L").convert("RGB"),
        "turned.png": plain,
    }
    good = {"item_id": list(expected), "image": list(expected.values())}
    right = ItemFeatures.from_items(good, image_encoder=encoder, **settings)
    found = features.select(expected)["image"].tokens
    torch.testing.assert_close(found, right["image"].tokens, rtol=1e-4, atol=1e-5)


def test_a_url_is_refused_before_any_work_with_what_to_do(folder):
    items = {"item_id": [1, 2], "image": [str(folder / "plain.png"), "https://a.b/c.jpg"]}
    message = (
        "image of item 2 is the URL 'https://a.b/c.jpg'; download the pictures first and give their"
    )
    with pytest.raises(ValueError, match=message):
        ItemFeatures.from_items(items, image_encoder=vit(), path=folder / "store", progress=False)
    assert not (folder / "store").exists()

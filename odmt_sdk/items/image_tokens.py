"""Tokens of pictures from any transformers vision encoder.

Letters: N pictures, b pictures of one batch, T tokens, d width of a token, H x W a feature map.
"""

import io
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import nn
from torch.utils.data import DataLoader

from odmt_sdk.items.extraction import (
    EncodedBatch,
    Encoder,
    ExtractedTokens,
    check_settings,
    collect,
    device_of,
    eval_mode,
    is_missing,
    last_hidden_state,
    load_encoder,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image"
ImagePooling = Literal["auto", "first", "mean"]

# How transformers and timm name the parameter behind a token that stands for the whole picture.
_CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")
# Resizing the shorter side of anything longer would need more memory than the picture deserves.
_MAX_ASPECT_RATIO = 100
# For fewer pictures, starting worker processes takes longer than they save.
_FEW_PICTURES = 64


def extract_image_tokens(
    images: Sequence["Picture | None"],
    encoder: Encoder,
    *,
    pooling: ImagePooling = "auto",
    batch_size: int | None = None,
    num_workers: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> ExtractedTokens:
    """Encode pictures into token matrices whose first token stands for the whole picture.

    Pictures are turned upright as their EXIF data says and converted to RGB, transparent ones on
    white. One that cannot be read counts as missing and is reported; it never stops the run.
    Pooled outputs of the encoders are not used: checkpoints often lack their weights.

    Args:
        images: N pictures, each a path, the bytes of a file, or a PIL image; None, NaN and blank
            text mean that the item has none. URLs are refused: download the pictures first.
        encoder: a folder or Hub name with a vision model and an image processor, or a pair (model,
            image processor). CLIP, SigLIP and their like contribute their vision part.
        pooling: where the first token comes from. "first": it is the encoder's own first token
            (CLS). "mean": the mean of all tokens is put in front of them. "auto": "first" if the
            encoder has a parameter for such a token, as ViT, DeiT, DINO and CLIP do, otherwise
            "mean" (SigLIP, Swin, and convolutional encoders).
        batch_size: pictures per batch. Default: 4 on a CPU, where larger batches run slower because
            they overflow its caches, else 32.
        num_workers: processes that read and prepare pictures beside the encoder. Default: as many
            as CPU cores, of which an encoder on the CPU keeps 2 to itself, and at most 4; none for
            fewer than 64 pictures, for PIL images, or where processes are not forked.
        device: where to run; default as in `load_encoder`.
        dtype: of the returned tokens; torch.float16 takes half the memory.
        progress: whether to show a progress bar.

    Returns:
        Tokens (N, T, d), lengths (N,) which are T or 0, and problems. A feature map (d, H, W) of a
        convolutional encoder becomes its mean and then its H * W places row by row.

    Raises:
        TypeError: if an image is none of the kinds above.
        ValueError: if no picture can be read, one is a URL, or a setting is out of range.
        ImportError: if torchvision is missing or broken.
        OSError: if the encoder cannot be loaded.

    Examples:
        >>> paths = ["images/scarf.jpg", None]
        >>> clip = "openai/clip-vit-base-patch32"
        >>> extracted = extract_image_tokens(paths, clip)                    # doctest: +SKIP
        >>> extracted.tokens.shape                                           # doctest: +SKIP
        torch.Size([2, 50, 768])
    """
    check_settings(1 if batch_size is None else batch_size, dtype)
    if pooling not in get_args(ImagePooling):
        raise ValueError(f"pooling is {pooling!r}, but it must be 'auto', 'first' or 'mean'")
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers is {num_workers}, but it must be 0 or more")
    _require_torchvision()
    present = _present_pictures(images)
    model, processor = load_encoder(encoder, "image", device)
    if batch_size is None:
        batch_size = 4 if device_of(model).type == "cpu" else 32
    if num_workers is None:
        num_workers = _default_workers(present, device_of(model))
    with eval_mode(model):
        return collect(
            encode_pictures(present, model, processor, pooling, batch_size, num_workers),
            num_items=len(images),
            num_present=len(present),
            kind="image",
            dtype=dtype,
            progress=progress,
        )


def _require_torchvision() -> None:
    try:
        import torchvision.transforms  # noqa: F401
    except Exception as error:  # a broken extension module raises more than ImportError
        raise ImportError(
            f"pictures need torchvision, which cannot be imported ({error}); install the release "
            f"that belongs to torch {torch.__version__}: pip install --force-reinstall torchvision"
        ) from error


def _present_pictures(images: Sequence["Picture | None"]) -> dict[int, "Picture"]:
    from PIL.Image import Image

    if isinstance(images, str | bytes | os.PathLike | Image):
        raise TypeError(f"images is a single {type(images).__name__}, but it must be a list")
    present: dict[int, Picture] = {}
    for row, picture in enumerate(images):
        if is_missing(picture):
            continue
        if not isinstance(picture, str | os.PathLike | bytes | Image):
            raise TypeError(
                f"image {row} is {type(picture).__name__}, but an image must be a path, bytes, a "
                "PIL image, or None where an item has none"
            )
        if isinstance(picture, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", picture):
            raise ValueError(
                f"image {row} is the URL {picture!r}; download the pictures first and give their "
                "paths"
            )
        present[row] = picture
    return present


def _default_workers(present: Mapping[int, "Picture"], device: torch.device) -> int:
    from PIL.Image import Image

    # Processes that are not forked import everything again and need a `__main__` guard.
    start = multiprocessing.get_start_method(allow_none=True)
    start = start or multiprocessing.get_all_start_methods()[0]  # the first is the default
    few = len(present) < _FEW_PICTURES
    if few or start != "fork" or any(isinstance(picture, Image) for picture in present.values()):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    spare = (cores or 1) - (2 if device.type == "cpu" else 0)
    return max(0, min(4, spare))


class _PreparedBatch(NamedTuple):
    rows: list[int]
    pixel_values: torch.Tensor | None  # (b, 3, height, width)
    problems: dict[int, str]


class _PreparePictures:
    """Read and preprocess the pictures of a batch; an object, so that workers can be sent it."""

    def __init__(self, pictures: Mapping[int, "Picture"], processor: Callable[..., Any]) -> None:
        self.pictures = pictures
        self.processor = processor

    def __call__(self, rows: list[int]) -> _PreparedBatch:
        opened: dict[int, Image] = {}
        problems: dict[int, str] = {}
        for row in rows:
            # Decoders raise whatever the bytes make them stumble over, and a broken picture must
            # not stop the run.
            try:
                opened[row] = open_picture(self.pictures[row])
            except Exception as error:
                problems[row] = f"{_describe(self.pictures[row])}{type(error).__name__}: {error}"
        rows = list(opened)
        if not rows:
            return _PreparedBatch([], None, problems)
        return _PreparedBatch(rows, self._preprocess(list(opened.values())), problems)

    def _preprocess(self, images: list["Image"]) -> torch.Tensor:
        try:
            pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
            shapes = {tuple(pixels.shape[1:])}
        except ValueError:  # pictures of different sizes make no tensor
            each = [self.processor(images=[image])["pixel_values"][0] for image in images]
            shapes = {tuple(picture.shape) for picture in each}
            if len(shapes) == 1:
                raise
        if len(shapes) > 1 or len(min(shapes)) != 3:
            raise ValueError(
                f"the image processor makes pictures of shapes {sorted(shapes)}, but all must have "
                "one shape (channels, height, width); let it resize or crop to a fixed size"
            )
        return pixels  # type: ignore[no-any-return]  # (b, 3, height, width)


def _describe(picture: "Picture") -> str:
    return f"{os.fspath(picture)}: " if isinstance(picture, str | os.PathLike) else ""


def open_picture(picture: "Picture") -> "Image":
    """Read a picture, turn it upright and convert it to RGB.

    Args:
        picture: a path, the bytes of a file, or a PIL image.

    Returns:
        A PIL image of mode RGB; transparent parts are white, 16 bits a channel become 8.

    Raises:
        OSError: if there is no such file, or it holds no picture or a truncated one.
        ValueError: if one side is over 100 times the other.

    Examples:
        >>> from PIL import Image
        >>> open_picture(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    from PIL import Image, ImageOps

    if isinstance(picture, Image.Image):
        image = picture
    else:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as file:
            file.load()
            image = file
    width, height = image.size
    if max(width, height) > _MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(f"the picture is {width} x {height}, one side over 100 times the other")
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_eight_bits(image: "Image") -> "Image":
    # PIL would cut off everything brighter than 255 instead of scaling.
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if image.mode.startswith("I;16"):
        white = 65535
    else:
        levels = (1, 255, 65535) if image.mode == "F" else (255, 65535)
        white = next((level for level in levels if values.max() <= level), levels[-1])
    return Image.fromarray((values / white * 255).clip(0, 255).round().astype(np.uint8))


def encode_pictures(
    pictures: Mapping[int, "Picture"],
    model: nn.Module,
    processor: Callable[..., Any],
    pooling: ImagePooling,
    batch_size: int,
    num_workers: int,
) -> Iterator[EncodedBatch]:
    """Encode pictures in batches, in the order given.

    Args:
        pictures: position of each picture with the picture.
        model: a vision encoder in evaluation mode.
        processor: its image processor.
        pooling: "auto", "first" or "mean", as in `extract_image_tokens`.
        batch_size: pictures per batch.
        num_workers: processes that read and prepare pictures; 0 for none.

    Yields:
        Batches that together hold every readable picture once and name the others as problems.
    """
    if pooling == "auto":
        pooling = "first" if _has_class_token(model) else "mean"
    weight = next(model.parameters(), torch.empty(0))
    prepared: DataLoader[int] = DataLoader(
        list(pictures),  # type: ignore[arg-type]  # a list is a dataset: it has length and items
        batch_size=batch_size,
        collate_fn=_PreparePictures(pictures, processor),
        num_workers=num_workers,
        generator=torch.Generator(),  # leaves the global random state alone
    )
    for rows, pixel_values, problems in prepared:
        if pixel_values is None:
            yield EncodedBatch([], torch.empty(0), torch.empty(0), problems)
            continue
        # Convolutions on a CPU run up to twice as fast with the channels last.
        pixel_values = pixel_values.to(
            device_of(model), weight.dtype, memory_format=torch.channels_last
        )
        with torch.inference_mode():
            tokens = last_hidden_state(model(pixel_values=pixel_values))
        tokens = _with_leading_token(tokens, pooling)
        lengths = torch.full((len(rows),), tokens.shape[1])
        yield EncodedBatch(rows, tokens, lengths, problems)


def _has_class_token(model: nn.Module) -> bool:
    return any(name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in model.named_parameters())


def _with_leading_token(
    tokens: torch.Tensor, pooling: Literal["first", "mean", "auto"]
) -> torch.Tensor:
    if tokens.ndim == 4:  # convolutional encoders have no token of their own for the whole
        tokens = tokens.flatten(2).transpose(1, 2)  # (b, d, H, W) -> (b, H * W, d)
        pooling = "mean"
    if pooling == "mean":
        mean = tokens.float().mean(1, keepdim=True).to(tokens.dtype)
        tokens = torch.cat([mean, tokens], dim=1)  # (b, T, d) -> (b, 1 + T, d)
    return tokens

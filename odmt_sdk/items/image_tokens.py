"""Tokens of pictures from any transformers vision encoder or torchvision classification model.

Letters: N pictures, b pictures of one batch, T tokens, d width of a token, H x W a feature map.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import nn
from torch.utils.data import DataLoader

from odmt_sdk.items.encoders import (
    Encoder,
    Precision,
    autocast_type,
    device_of,
    eval_mode,
    fingerprint,
    inference,
    last_hidden_state,
    load_encoder,
)
from odmt_sdk.items.extraction import (
    EncodedBatch,
    ExtractedTokens,
    check_batch_size,
    check_dtype,
    collect,
    warn_of_problems,
)
from odmt_sdk.items.pictures import Picture, describe_problem, open_picture, present_pictures
from odmt_sdk.items.token_reduction import Reduction, check_reduction, reduce_tokens
from odmt_sdk.items.torchvision_models import is_torchvision_model, load_torchvision_model

if TYPE_CHECKING:
    from PIL.Image import Image

ImagePooling = Literal["auto", "first", "mean"]

# How transformers and timm name the parameter behind a token that stands for the whole picture.
_CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")
# For fewer pictures, starting worker processes takes longer than they save.
_FEW_PICTURES = 64


def extract_image_tokens(
    images: Sequence["Picture | None"],
    encoder: Encoder,
    *,
    max_tokens: int | None = None,
    reduction: Reduction = "cut",
    pooling: ImagePooling = "auto",
    batch_size: int | None = None,
    num_workers: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    precision: Precision = "auto",
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
            image processor). CLIP, SigLIP and their like contribute their vision part. For
            torchvision's classification models "torchvision:NAME", or a pair (model, weights) or
            (model, transforms).
        max_tokens: tokens per picture at most, None = all; 1 keeps the first.
        reduction: how to get there, "cut" or "average", see `reduce_tokens`.
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
        precision: type to compute in; "auto" = bfloat16 where the device computes in it.
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
    check_dtype(dtype)
    _require_torchvision()
    present = present_pictures(images)
    extractor = ImageExtractor(
        encoder,
        max_tokens=max_tokens,
        reduction=reduction,
        pooling=pooling,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
        precision=precision,
    )
    extracted = collect(extractor, present, num_items=len(images), dtype=dtype, progress=progress)
    warn_of_problems(extracted.problems, len(present), extractor.unit)
    return extracted


def _require_torchvision() -> None:
    try:
        import torchvision.transforms  # noqa: F401
    except Exception as error:  # a broken extension module raises more than ImportError
        raise ImportError(
            f"pictures need torchvision, which cannot be imported ({error}); install the release "
            f"that belongs to torch {torch.__version__}: pip install --force-reinstall torchvision"
        ) from error


class ImageExtractor:
    """Makes tokens of pictures; the arguments are those of `extract_image_tokens`.

    Examples:
        >>> extractor = ImageExtractor("google/vit-base-patch16-224")        # doctest: +SKIP
    """

    unit = "picture"

    def __init__(
        self,
        encoder: Encoder,
        *,
        max_tokens: int | None = None,
        reduction: Reduction = "cut",
        pooling: ImagePooling = "auto",
        batch_size: int | None = None,
        num_workers: int | None = None,
        device: torch.device | str | None = None,
        precision: Precision = "auto",
    ) -> None:
        check_batch_size(1 if batch_size is None else batch_size)
        check_reduction(max_tokens, reduction)
        if pooling not in get_args(ImagePooling):
            raise ValueError(f"pooling is {pooling!r}, but it must be 'auto', 'first' or 'mean'")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers is {num_workers}, but it must be 0 or more")
        _require_torchvision()
        if is_torchvision_model(encoder):
            self.encoder = load_torchvision_model(encoder, device)
        else:
            self.encoder = load_encoder(encoder, "image", device)
        self.device = device_of(self.encoder.model)
        self.dtype = autocast_type(self.encoder.model, precision)
        self.batch_size = batch_size or (4 if self.device.type == "cpu" else 32)
        self.num_workers = num_workers
        self.max_tokens, self.reduction = max_tokens, reduction
        if pooling == "auto":
            pooling = "first" if _has_class_token(self.encoder.model) else "mean"
        self.pooling: ImagePooling = pooling

    @property
    def provenance(self) -> dict[str, Any]:
        """Encoder, revision, preprocessing: everything that decides what the tokens are."""
        return {
            "encoder": self.encoder.name,
            "revision": self.encoder.revision,
            "weights": fingerprint(self.encoder.model),
            "pooling": self.pooling,
            "preprocessing": {
                "max_tokens": self.max_tokens,
                "reduction": self.reduction if self.max_tokens is not None else None,
                **_settings_of(self.encoder.processor),
            },
            "computed_in": str(self.dtype).removeprefix("torch."),
        }

    def encode(
        self, values: Mapping[int, "Picture"], groups: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, EncodedBatch]]:
        """Encode pictures in batches, in the order given.

        Args:
            values: position of each picture with the picture.
            groups: positions that may share a batch.

        Yields:
            Index of the group, in order, and batches that together hold every readable picture once
            and name the others as problems.
        """
        batches = [
            (group, list(rows[start : start + self.batch_size]))
            for group, rows in enumerate(groups)
            for start in range(0, len(rows), self.batch_size)
        ]
        if not batches:
            return
        num_workers = self.num_workers
        if num_workers is None:
            num_workers = _default_workers(
                {row: values[row] for _, rows in batches for row in rows}, self.device
            )
        prepared: DataLoader[int] = DataLoader(
            range(max(values) + 1),  # type: ignore[arg-type]  # the position of a picture is it
            batch_sampler=[rows for _, rows in batches],
            collate_fn=_PreparePictures(values, self.encoder.processor),
            num_workers=num_workers,
            generator=torch.Generator(),  # leaves the global random state alone
        )
        with eval_mode(self.encoder.model):
            for (group, _), batch in zip(batches, prepared, strict=True):
                yield group, self._encode(batch)

    def _encode(self, batch: "_PreparedBatch") -> EncodedBatch:
        rows, pixel_values, problems = batch
        if pixel_values is None:
            return EncodedBatch([], torch.empty(0), torch.empty(0), problems)
        model = self.encoder.model
        weight = next(model.parameters(), torch.empty(0))
        # Convolutions on a CPU run up to twice as fast with the channels last.
        pixel_values = pixel_values.to(self.device, weight.dtype, memory_format=torch.channels_last)
        with inference(model, self.dtype):
            tokens = last_hidden_state(model(pixel_values=pixel_values))
            tokens = _with_leading_token(tokens, self.pooling)
            tokens = reduce_tokens(tokens, self.max_tokens, self.reduction)
        return EncodedBatch(rows, tokens, torch.full((len(rows),), tokens.shape[1]), problems)


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
                problems[row] = describe_problem(self.pictures[row], error)
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


def _settings_of(processor: Any) -> dict[str, Any]:
    """The settings of an image processor or of transforms, as JSON can hold them."""
    if not hasattr(processor, "to_dict"):
        return {"processor": str(processor)}
    # what is no plain value becomes its text
    settings: dict[str, Any] = json.loads(json.dumps(processor.to_dict(), default=str))
    return dict(sorted(settings.items()))


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

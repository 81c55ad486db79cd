"""Image tokens from any transformers vision encoder or torchvision classification model.

Letters: N images, b images of one batch, T tokens, d width of a token, H x W a feature map.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import nn
from torch.utils.data import DataLoader

from odmt_sdk.features.extraction.pictures import (
    Picture,
    describe_problem,
    open_picture,
    present_pictures,
)
from odmt_sdk.features.extraction.pretrained_encoders import (
    Encoder,
    Precision,
    autocast_type,
    computing_in,
    device_of,
    fingerprint,
    last_hidden_state,
    load_encoder,
)
from odmt_sdk.features.extraction.token_reduction import Reduction, check_reduction, reduce_tokens
from odmt_sdk.features.extraction.torchvision_models import (
    is_torchvision_model,
    load_torchvision_model,
)
from odmt_sdk.features.extractor import (
    EncodedBatch,
    check_batch_size,
    encode_together,
)
from odmt_sdk.features.modalities import register_modality
from odmt_sdk.modes import evaluating

if TYPE_CHECKING:
    from PIL.Image import Image

ImagePooling = Literal["auto", "first", "mean"]

# Names of the class token parameter in transformers and timm.
_CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")
# With fewer images, starting worker processes takes longer than it saves.
_FEW_PICTURES = 64


def _require_torchvision() -> None:
    try:
        import torchvision.transforms  # noqa: F401
    except Exception as error:  # a broken extension module raises more than ImportError
        raise ImportError(
            f"pictures need torchvision, which cannot be imported ({error}); install the release "
            f"that belongs to torch {torch.__version__}: pip install --force-reinstall torchvision"
        ) from error


@register_modality("image", present=present_pictures)
class ImageExtractor:
    """Encodes pictures as tokens; the first token represents the whole picture.

    Pictures are rotated by their EXIF data and converted to RGB; transparent parts become white. A
    picture that cannot be read counts as missing and is reported; it never stops the run. Pooled
    outputs of encoders are not used, because checkpoints often lack their weights. A feature map
    (d, H, W) of a convolutional encoder becomes its mean, followed by its H * W positions row by
    row.

    Args:
        encoder: a folder or Hub name with a vision model and an image processor, or a pair (model,
            image processor). Of multi-modal models such as CLIP and SigLIP, only the vision tower
            is used. For torchvision classification models, "torchvision:NAME", or a pair (model,
            weights) or (model, transforms).
        max_tokens: maximum number of tokens per picture, None = all; 1 keeps the first.
        reduction: how to reduce the tokens, "cut" or "average", see `reduce_tokens`.
        pooling: where the first token comes from. "first": it is the encoder's own first token
            (CLS). "mean": the mean of all tokens is prepended. "auto": "first" if the encoder has a
            parameter for such a token, as ViT, DeiT, DINO and CLIP do, otherwise "mean" (SigLIP,
            Swin, and convolutional encoders).
        batch_size: pictures per batch. Default: 4 on a CPU, where larger batches exceed the caches
            and run slower, else 32.
        num_workers: number of processes that read and preprocess pictures. Default: the number of
            CPU cores, minus 2 if the encoder runs on the CPU, and at most 4; none for fewer than 64
            pictures, for PIL images, or if processes are not forked.
        device: where to run; None = an accelerator if available.
        precision: dtype to compute in; "auto" = bfloat16 if the device supports it natively.

    Raises:
        ValueError: if a setting is out of range.
        ImportError: if torchvision is missing or broken.
        OSError: if the encoder cannot be loaded.

    Examples:
        >>> extractor = ImageExtractor("google/vit-base-patch16-224")        # doctest: +SKIP
    """

    unit = "picture"
    reads_files = True

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
        device = device_of(self.encoder.model)
        self.dtype = autocast_type(self.encoder.model, precision)
        self.batch_size = batch_size or (4 if device.type == "cpu" else 32)
        self.num_workers = num_workers
        self.max_tokens, self.reduction = max_tokens, reduction
        if pooling == "auto":
            pooling = "first" if _has_class_token(self.encoder.model) else "mean"
        self.pooling: ImagePooling = pooling

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything that determines the tokens: encoder, revision, preprocessing and so on."""
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
        """Encode images in batches, in the given order.

        Args:
            values: position -> image, for the items that have an image.
            groups: lists of positions; a batch never spans two groups.

        Yields:
            Group index, ascending, and a batch. Each readable image is in exactly one batch; the
            others are listed in the problems of a batch.
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
                {row: values[row] for _, rows in batches for row in rows},
                device_of(self.encoder.model),
            )
        prepared: DataLoader[int] = DataLoader(
            range(max(values) + 1),  # type: ignore[arg-type]  # items are their own positions
            batch_sampler=[rows for _, rows in batches],
            collate_fn=_PreparePictures(values, self.encoder.processor),
            num_workers=num_workers,
            generator=torch.Generator(),  # keeps the global random state unchanged
        )
        with evaluating(self.encoder.model):
            for (group, _), batch in zip(batches, prepared, strict=True):
                yield group, self._encode(batch)

    def _encode(self, batch: "_PreparedBatch") -> EncodedBatch:
        rows, pixel_values, problems = batch
        if pixel_values is None:
            return EncodedBatch([], torch.empty(0), torch.empty(0), problems)
        places = {row: place for place, row in enumerate(rows)}

        @torch.inference_mode()
        def tokens_of(some: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
            chosen = pixel_values
            if len(some) < len(rows):
                chosen = pixel_values[[places[row] for row in some]]
            return self._tokens(chosen)

        encoded = encode_together(rows, tokens_of)
        return encoded._replace(problems={**problems, **encoded.problems})

    def prepare(
        self, pictures: Mapping[int, "Picture"]
    ) -> tuple[dict[int, "Picture"], dict[int, str]]:
        """Return the pictures as they are; `tokens` opens them.

        Args:
            pictures: row -> picture.

        Returns:
            Row -> picture, and no problems.
        """
        return dict(pictures), {}

    def tokens(self, pictures: Sequence["Picture"]) -> tuple[torch.Tensor, torch.Tensor]:
        """Open and encode some pictures together, with gradients.

        Args:
            pictures: b pictures from `prepare`.

        Returns:
            Tokens (b, T, d), with the pooled token first, and lengths (b,).

        Raises:
            ValueError: if a picture cannot be read.
        """
        prepare = _PreparePictures(dict(enumerate(pictures)), self.encoder.processor)
        _, pixel_values, problems = prepare(list(range(len(pictures))))
        if problems or pixel_values is None:
            raise ValueError(f"a picture cannot be read: {next(iter(problems.values()))}")
        return self._tokens(pixel_values)

    def _tokens(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode pixels (b, 3, height, width) as tokens (b, T, d) and lengths (b,)."""
        model = self.encoder.model
        weight = next(model.parameters(), torch.empty(0))
        # Convolutions on a CPU run up to twice as fast in channels-last memory format.
        pixel_values = pixel_values.to(
            weight.device, weight.dtype, memory_format=torch.channels_last
        )
        with computing_in(model, self.dtype):
            tokens = last_hidden_state(model(pixel_values=pixel_values))
            tokens = _with_leading_token(tokens, self.pooling)
            tokens = reduce_tokens(tokens, self.max_tokens, self.reduction)
        return tokens, torch.full((len(tokens),), tokens.shape[1])


def _default_workers(present: Mapping[int, "Picture"], device: torch.device) -> int:
    from PIL.Image import Image

    # Spawned processes import everything again and need a `__main__` guard.
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
    """Loads and preprocesses the images of a batch; a class, so that workers can pickle it."""

    def __init__(self, pictures: Mapping[int, "Picture"], processor: Callable[..., Any]) -> None:
        self.pictures = pictures
        self.processor = processor

    def __call__(self, rows: list[int]) -> _PreparedBatch:
        opened: dict[int, Image] = {}
        problems: dict[int, str] = {}
        for row in rows:
            # Image decoders raise any type of exception, and a broken image must not stop the run.
            try:
                opened[row] = open_picture(self.pictures[row])
            except Exception as error:
                problems[row] = describe_problem(self.pictures[row], error)
        if not opened:
            return _PreparedBatch([], None, problems)
        try:
            return _PreparedBatch(list(opened), self._preprocess(list(opened.values())), problems)
        except Exception:  # image processors raise any type of exception too
            refused: dict[int, str] = {}
            for row, picture in opened.items():
                try:
                    self._preprocess([picture])
                except Exception as error:
                    refused[row] = describe_problem(self.pictures[row], error)
            if not refused or (len(opened) > 1 and len(refused) == len(opened)):
                raise
        good = {row: picture for row, picture in opened.items() if row not in refused}
        pixels = self._preprocess(list(good.values())) if good else None
        return _PreparedBatch(list(good), pixels, {**problems, **refused})

    def _preprocess(self, images: list["Image"]) -> torch.Tensor:
        try:
            pixels: torch.Tensor
            pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
            shapes = {tuple(pixels.shape[1:])}
        except ValueError:  # images of different sizes cannot be stacked
            each = [self.processor(images=[image])["pixel_values"][0] for image in images]
            shapes = {tuple(picture.shape) for picture in each}
            if len(shapes) == 1:
                raise
        if len(shapes) > 1 or len(min(shapes)) != 3:
            raise ValueError(
                f"the image processor makes pictures of shapes {sorted(shapes)}, but all must have "
                "one shape (channels, height, width); let it resize or crop to a fixed size"
            )
        return pixels  # (b, 3, height, width)


def _settings_of(processor: Any) -> dict[str, Any]:
    """Return the settings of an image processor or of transforms as JSON values."""
    if not hasattr(processor, "to_dict"):
        return {"processor": str(processor)}
    # other values are converted to strings
    settings: dict[str, Any] = json.loads(json.dumps(processor.to_dict(), default=str))
    return dict(sorted(settings.items()))


def _has_class_token(model: nn.Module) -> bool:
    return any(name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in model.named_parameters())


def _with_leading_token(
    tokens: torch.Tensor, pooling: Literal["first", "mean", "auto"]
) -> torch.Tensor:
    if tokens.ndim == 4:  # convolutional encoders have no class token
        tokens = tokens.flatten(2).transpose(1, 2)  # (b, d, H, W) -> (b, H * W, d)
        pooling = "mean"
    if pooling == "mean":
        mean = tokens.float().mean(1, keepdim=True).to(tokens.dtype)
        tokens = torch.cat([mean, tokens], dim=1)  # (b, T, d) -> (b, 1 + T, d)
    return tokens

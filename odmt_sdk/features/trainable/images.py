"""An image encoder that is trained with the model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from odmt_sdk.features.extraction.image_tokens import ImagePooling
from odmt_sdk.features.extraction.pretrained_encoders import Encoder, Precision
from odmt_sdk.features.extraction.token_reduction import Reduction
from odmt_sdk.features.trainable.encoder import TrainableEncoder
from odmt_sdk.tables import Table

if TYPE_CHECKING:
    from peft import LoraConfig


class TrainableImages(TrainableEncoder):
    """An image encoder that is trained with the model: `ODMTWrapper(..., encoders={"image": ...})`.

    It is the counterpart of `TrainableText` for pictures. In every step, the training process reads
    and preprocesses the pictures of the items in the batch.

    Args:
        encoder: folder or Hub name of a vision model, a pair (model, image processor),
            "torchvision:NAME", or a pair (torchvision model, its weights or transforms).
        items: table with the pictures of the model's items: paths, bytes or PIL images.
        image: name of the column of pictures.
        item_id: name of the column of item ids.
        lora: `peft.LoraConfig`; None = rank 8 and alpha 16 in every linear layer of a transformers
            model. Convolutional encoders need `LoraConfig(target_modules=[...])`.
        max_tokens: `max_image_tokens` of `from_items`.
        reduction: `image_reduction` of `from_items`.
        pooling: `image_pooling` of `from_items`.
        batch_size: pictures encoded at once; None = 4 on a CPU, else 32.
        precision: as for `TrainableText`.
        encoding: encoding of the text file `items`.
        csv_options: format of the .csv or .tsv file `items`.

    Raises:
        ImportError: if PEFT (`pip install odmt-sdk[peft]`) or torchvision is not installed.
        ValueError: if LoRA finds no layer to change, a column is missing, no item has a picture, or
            a setting is out of range.
        OSError: if the encoder cannot be loaded.

    Examples:
        >>> images = TrainableImages("google/vit-base-patch16-224", items)   # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: Encoder,
        items: Table,
        *,
        image: str = "image",
        item_id: str = "item_id",
        lora: "LoraConfig | None" = None,
        max_tokens: int | None = None,
        reduction: Reduction = "cut",
        pooling: ImagePooling = "auto",
        batch_size: int | None = None,
        precision: Precision = "auto",
        encoding: str = "utf-8",
        csv_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            "image",
            encoder,
            items,
            column=image,
            item_id=item_id,
            lora=lora,
            precision=precision,
            options={
                "max_tokens": max_tokens,
                "reduction": reduction,
                "pooling": pooling,
                "batch_size": batch_size,
            },
            encoding=encoding,
            csv_options=csv_options,
        )

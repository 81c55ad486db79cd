"""Tiny text and image encoders with random weights, which need no download.

A random network preserves much of its input: the attributes in a title or an image can be recovered
from the mean of its tokens by a linear map. That is enough for a quickstart and for tests. Use
pretrained encoders for real catalogues.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from transformers import BertModel, PreTrainedTokenizerFast, ResNetModel, ViTImageProcessor

_INIT_STD = 0.1  # large enough for the first token to attend to the words
_POSITION_SCALE = 0.2
_OUTPUT_SCALE = 5.0
_PATCH_SIZE = 16
_MAX_TOKENS = 64
_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def tiny_text_encoder(
    texts: Iterable[str | None], *, width: int = 64, seed: int = 0
) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """Build a small BERT with random weights, and a tokenizer with the words of the given texts.

    Args:
        texts: texts that define the vocabulary; entries may be None. Other words become the unknown
            token later.
        width: size of the token vectors, a multiple of 8.
        seed: seed of the weights; the global random state of torch is neither used nor changed.

    Returns:
        The model, in eval mode, and its tokenizer (lower case, words and punctuation).

    Raises:
        TypeError: if `texts` is a single string, or an entry is neither a string nor None.
        ValueError: if the texts have no words, or `width` is not a multiple of 8.

    Examples:
        >>> model, tokenizer = tiny_text_encoder(["a red mug", "a blue teapot"])
        >>> batch = tokenizer(["a blue mug"], return_tensors="pt")
        >>> model(**batch).last_hidden_state.shape  # [CLS] a blue mug [SEP]
        torch.Size([1, 5, 64])
    """
    from transformers import BertConfig, BertModel

    _check_width(width)
    tokenizer = _word_tokenizer(texts)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=width // 8,
        intermediate_size=4 * width,
        max_position_embeddings=_MAX_TOKENS,
        initializer_range=_INIT_STD,
        pad_token_id=tokenizer.pad_token_id,
    )
    with _seeded(seed), torch.no_grad():
        model = BertModel(config, add_pooling_layer=False)
        # the words should matter more than their positions
        model.embeddings.position_embeddings.weight.mul_(_POSITION_SCALE)
        model.embeddings.token_type_embeddings.weight.mul_(_POSITION_SCALE)
    return model.eval(), tokenizer


def tiny_image_encoder(
    *, width: int = 64, image_size: int = 64, seed: int = 0
) -> tuple[ResNetModel, ViTImageProcessor]:
    """Build a small residual network with random weights and its image processor.

    Args:
        width: number of channels of all layers and size of the token vectors, a multiple of 8.
        image_size: side length in pixels to which images are resized, a multiple of 16. Each patch
            of 16 x 16 pixels becomes a position of the feature map.
        seed: seed of the weights; the global random state of torch is neither used nor changed.

    Returns:
        The model, in eval mode, and its image processor.

    Raises:
        ValueError: if `width` is not a multiple of 8, or `image_size` is not a multiple of 16.

    Examples:
        >>> from PIL import Image
        >>> model, processor = tiny_image_encoder()
        >>> pixels = processor(images=[Image.new("RGB", (80, 60))], return_tensors="pt")
        >>> model(**pixels).last_hidden_state.shape  # 4 x 4 positions
        torch.Size([1, 64, 4, 4])
    """
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessor

    _check_width(width)
    if image_size < _PATCH_SIZE or image_size % _PATCH_SIZE:
        raise ValueError(
            f"image_size={image_size} must be a multiple of {_PATCH_SIZE}, the side of a patch"
        )
    config = ResNetConfig(
        layer_type="basic",
        hidden_act="gelu",
        embedding_size=width,
        hidden_sizes=[width, width],
        depths=[1, 1],
        downsample_in_first_stage=True,
    )
    with _seeded(seed), torch.no_grad():
        model = ResNetModel(config)
        # scale up random features, because those of pretrained encoders are closer to 1
        stages: Any = model.encoder.stages
        last = stages[-1].layers[-1]
        last.layer[-1].normalization.weight.mul_(_OUTPUT_SCALE)
        last.shortcut.normalization.weight.mul_(_OUTPUT_SCALE)
    return model.eval(), ViTImageProcessor(size={"height": image_size, "width": image_size})


def _word_tokenizer(texts: Iterable[str | None]) -> PreTrainedTokenizerFast:
    """Train a word-level tokenizer on the texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if isinstance(texts, str):
        raise TypeError("texts is a single string; pass a list of texts")
    pad, unknown, first, last = _SPECIAL_TOKENS
    tokenizer: Any = Tokenizer(models.WordLevel(unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=list(_SPECIAL_TOKENS), show_progress=False)
    known = []
    for position, text in enumerate(texts):
        if isinstance(text, str):
            known.append(text)
        elif text is not None:
            raise TypeError(f"text {position} is {text!r}, which is neither a string nor None")
    tokenizer.train_from_iterator(known, trainer)
    if tokenizer.get_vocab_size() == len(_SPECIAL_TOKENS):
        raise ValueError("there is no word in the texts; pass the texts to be encoded")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
        model_max_length=_MAX_TOKENS,
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch on the CPU and restore its random state afterwards."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


def _check_width(width: int) -> None:
    if width < 8 or width % 8:
        raise ValueError(f"width={width} must be a multiple of 8, the width of an attention head")

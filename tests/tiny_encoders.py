"""Tiny encoders with random weights, built from configurations, and inputs for them."""

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

WORDS = "a red blue wool silk scarf hat with long short sleeves for cold hot days".split()  # noqa: SIM905
TEXTS = [
    "red scarf",
    "a long red wool scarf with short sleeves for cold days",
    "hat",
    None,
    "blue silk hat for hot days",
]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT = BertConfig(vocab_size=40, intermediate_size=32, initializer_range=0.5, **SIZES)
VISION = {**SIZES, "intermediate_size": 32, "image_size": 16, "patch_size": 8}
VIT = ViTConfig(**VISION)


def make_tokenizer(special: bool = True) -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: row for row, word in enumerate([*names, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("removed")]
    )
    if not special:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def bert() -> tuple[BertModel, PreTrainedTokenizerFast]:
    return BertModel(BERT).eval(), make_tokenizer()


def vit() -> tuple[ViTModel, ViTImageProcessor]:
    return ViTModel(VIT).eval(), ViTImageProcessor(size={"height": 16, "width": 16})


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    noise = np.random.default_rng(seed).integers(0, 255, (count, 20, 30, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in noise]


def causal() -> tuple[GPT2Model, PreTrainedTokenizerFast]:
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2)
    tokenizer = make_tokenizer(special=False)
    assert tokenizer.pad_token is None
    return GPT2Model(config), tokenizer


def siglip() -> SiglipVisionModel:
    return SiglipVisionModel(SiglipVisionConfig(**VISION)).eval()


def swin() -> SwinModel:
    config = SwinConfig(
        image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
    )
    return SwinModel(config).eval()

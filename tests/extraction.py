"""Tokens of texts and pictures in memory, by the extractors of the package."""

import torch

from odmt_sdk.features.extraction.image_tokens import ImageExtractor
from odmt_sdk.features.extraction.pictures import present_pictures
from odmt_sdk.features.extraction.text_tokens import TextExtractor, present_texts
from odmt_sdk.features.extractor import ExtractedTokens, check_dtype, collect, warn_of_problems


def extract_text_tokens(
    texts, encoder, *, dtype=torch.float32, progress=True, **settings
) -> ExtractedTokens:
    return _extract(present_texts, TextExtractor, texts, encoder, dtype, progress, settings)


def extract_image_tokens(
    images, encoder, *, dtype=torch.float32, progress=True, **settings
) -> ExtractedTokens:
    return _extract(present_pictures, ImageExtractor, images, encoder, dtype, progress, settings)


def _extract(present, kind, cells, encoder, dtype, progress, settings):
    check_dtype(dtype)
    values = present(cells)
    extractor = kind(encoder, **settings)
    extracted = collect(extractor, values, num_items=len(cells), dtype=dtype, progress=progress)
    warn_of_problems(extracted.problems, len(values), extractor.unit)
    return extracted

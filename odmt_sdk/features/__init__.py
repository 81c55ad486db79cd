"""From raw items to frozen content tokens."""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk.features.extraction.array_tokens import ArrayExtractor
    from odmt_sdk.features.extraction.image_tokens import ImageExtractor
    from odmt_sdk.features.extraction.text_tokens import TextExtractor
    from odmt_sdk.features.extractor import EncodedBatch, ItemError, TokenExtractor
    from odmt_sdk.features.feature_set import FeatureSet
    from odmt_sdk.features.joined import JoinedFeatures
    from odmt_sdk.features.modality import ModalityTokens
    from odmt_sdk.features.report import ExtractionReport

__all__ = [
    "ArrayExtractor",
    "EncodedBatch",
    "ExtractionReport",
    "FeatureSet",
    "ImageExtractor",
    "ItemError",
    "JoinedFeatures",
    "ModalityTokens",
    "TextExtractor",
    "TokenExtractor",
]

_HOMES = {
    "ArrayExtractor": "odmt_sdk.features.extraction.array_tokens",
    "EncodedBatch": "odmt_sdk.features.extractor",
    "ExtractionReport": "odmt_sdk.features.report",
    "FeatureSet": "odmt_sdk.features.feature_set",
    "ImageExtractor": "odmt_sdk.features.extraction.image_tokens",
    "ItemError": "odmt_sdk.features.extractor",
    "JoinedFeatures": "odmt_sdk.features.joined",
    "ModalityTokens": "odmt_sdk.features.modality",
    "TextExtractor": "odmt_sdk.features.extraction.text_tokens",
    "TokenExtractor": "odmt_sdk.features.extractor",
}

__getattr__, __dir__ = hand_out(__name__, _HOMES)

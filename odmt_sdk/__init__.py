"""ODMT SDK: turn any sequence recommender into a multi-modal one.

Implements the ID-aware multi-modal item encoder and the online distillation of "Online
Distillation-enhanced Multi-modal Transformer for Sequential Recommendation" (ACM MM 2023,
https://arxiv.org/abs/2308.04067) around a sequence model of your own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odmt_sdk.backbones.check import check_backbone
    from odmt_sdk.backbones.gru4rec import GRU4Rec
    from odmt_sdk.backbones.hstu import HSTU
    from odmt_sdk.backbones.id_lookup import IdLookupBackbone
    from odmt_sdk.backbones.mamba import Mamba2
    from odmt_sdk.backbones.nextitnet import NextItNet
    from odmt_sdk.backbones.registry import register_adapter
    from odmt_sdk.backbones.sasrec import SASRec
    from odmt_sdk.config import ODMTConfig
    from odmt_sdk.data.collator import SequenceCollator
    from odmt_sdk.data.interactions import Interactions
    from odmt_sdk.data.shop import make_shop
    from odmt_sdk.data.splits import leave_one_out
    from odmt_sdk.data.time_split import time_split
    from odmt_sdk.errors import AdapterError
    from odmt_sdk.evaluation.evaluate import evaluate
    from odmt_sdk.figures.attention import draw_attention
    from odmt_sdk.figures.contributions import draw_contributions
    from odmt_sdk.figures.item_map import draw_item_map
    from odmt_sdk.figures.learning_curves import draw_learning_curves
    from odmt_sdk.figures.recommendations import draw_recommendations
    from odmt_sdk.hub.shipped import shipped_adapters
    from odmt_sdk.items.encoder import ItemEncoder
    from odmt_sdk.items.features import ItemFeatures
    from odmt_sdk.losses.mixin import OnlineDistillationMixin
    from odmt_sdk.pipeline import fit
    from odmt_sdk.training.lazy_adamw import LazyAdamW
    from odmt_sdk.training.trainer import ODMTTrainer
    from odmt_sdk.vocabulary import ItemVocabulary
    from odmt_sdk.wrapper import ODMTWrapper

_HOMES = {
    "AdapterError": "errors",
    "GRU4Rec": "backbones.gru4rec",
    "HSTU": "backbones.hstu",
    "IdLookupBackbone": "backbones.id_lookup",
    "Interactions": "data.interactions",
    "ItemEncoder": "items.encoder",
    "ItemFeatures": "items.features",
    "ItemVocabulary": "vocabulary",
    "LazyAdamW": "training.lazy_adamw",
    "Mamba2": "backbones.mamba",
    "NextItNet": "backbones.nextitnet",
    "ODMTConfig": "config",
    "ODMTTrainer": "training.trainer",
    "ODMTWrapper": "wrapper",
    "OnlineDistillationMixin": "losses.mixin",
    "SASRec": "backbones.sasrec",
    "SequenceCollator": "data.collator",
    "check_backbone": "backbones.check",
    "draw_attention": "figures.attention",
    "draw_contributions": "figures.contributions",
    "draw_item_map": "figures.item_map",
    "draw_learning_curves": "figures.learning_curves",
    "draw_recommendations": "figures.recommendations",
    "evaluate": "evaluation.evaluate",
    "fit": "pipeline",
    "leave_one_out": "data.splits",
    "make_shop": "data.shop",
    "register_adapter": "backbones.registry",
    "shipped_adapters": "hub.shipped",
    "time_split": "data.time_split",
}

__all__ = [
    "HSTU",
    "AdapterError",
    "GRU4Rec",
    "IdLookupBackbone",
    "Interactions",
    "ItemEncoder",
    "ItemFeatures",
    "ItemVocabulary",
    "LazyAdamW",
    "Mamba2",
    "NextItNet",
    "ODMTConfig",
    "ODMTTrainer",
    "ODMTWrapper",
    "OnlineDistillationMixin",
    "SASRec",
    "SequenceCollator",
    "check_backbone",
    "draw_attention",
    "draw_contributions",
    "draw_item_map",
    "draw_learning_curves",
    "draw_recommendations",
    "evaluate",
    "fit",
    "leave_one_out",
    "make_shop",
    "register_adapter",
    "shipped_adapters",
    "time_split",
]

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used, so that importing the package costs nothing."""
    if name in _HOMES:
        return getattr(import_module(f"odmt_sdk.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'odmt_sdk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

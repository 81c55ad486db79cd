"""ODMT SDK: turn any sequence recommender into a multi-modal one.

Implements the ID-aware multi-modal item encoder and the online distillation of "Online
Distillation-enhanced Multi-modal Transformer for Sequential Recommendation" (ACM MM 2023,
https://arxiv.org/abs/2308.04067) around a sequence model of your own.
"""

from typing import TYPE_CHECKING

from odmt_sdk.public_names import hand_out

if TYPE_CHECKING:
    from odmt_sdk import backbones as backbones
    from odmt_sdk import baselines as baselines
    from odmt_sdk import batch as batch
    from odmt_sdk import data as data
    from odmt_sdk import demo as demo
    from odmt_sdk import evaluation as evaluation
    from odmt_sdk import features as features
    from odmt_sdk import figures as figures
    from odmt_sdk import indexes as indexes
    from odmt_sdk import items as items
    from odmt_sdk import losses as losses
    from odmt_sdk import retrieval as retrieval
    from odmt_sdk import saving as saving
    from odmt_sdk import serving as serving
    from odmt_sdk import toy_shop as toy_shop
    from odmt_sdk.backbones.adapt import register_bridge
    from odmt_sdk.backbones.check.report import check_backbone
    from odmt_sdk.backbones.id_lookup.backbone import IdLookupBackbone
    from odmt_sdk.backbones.models.gru4rec import GRU4Rec
    from odmt_sdk.backbones.models.hstu import HSTU
    from odmt_sdk.backbones.models.mamba import Mamba2
    from odmt_sdk.backbones.models.nextitnet import NextItNet
    from odmt_sdk.backbones.models.sasrec import SASRec
    from odmt_sdk.config import ODMTConfig
    from odmt_sdk.data.collator import SequenceCollator
    from odmt_sdk.data.interactions import Interactions
    from odmt_sdk.data.readers.folder import load_folder
    from odmt_sdk.data.splits import leave_one_out
    from odmt_sdk.data.time_split import time_split
    from odmt_sdk.data.wines import load_wines
    from odmt_sdk.errors import AdapterError
    from odmt_sdk.evaluation.evaluate import evaluate
    from odmt_sdk.export.user_encoder import export_user_encoder
    from odmt_sdk.features.features import ItemFeatures
    from odmt_sdk.features.modalities import register_modality
    from odmt_sdk.features.trainable.images import TrainableImages
    from odmt_sdk.features.trainable.text import TrainableText
    from odmt_sdk.figures.attention import draw_attention
    from odmt_sdk.figures.item_map import draw_item_map
    from odmt_sdk.figures.learning_curves import draw_learning_curves
    from odmt_sdk.figures.recommendations import draw_recommendations
    from odmt_sdk.figures.score_contributions import draw_contributions
    from odmt_sdk.item_to_item import add_item_to_item
    from odmt_sdk.items.embedder import register_fusion
    from odmt_sdk.items.item_encoder import ItemEncoder
    from odmt_sdk.losses.online_distillation import OnlineDistillationMixin
    from odmt_sdk.losses.teaching import register_teaching_graph
    from odmt_sdk.outputs import ODMTOutput, Recommendations
    from odmt_sdk.pipeline import FitResult, fit
    from odmt_sdk.saving.shipped import shipped_adapters
    from odmt_sdk.source_weights import choose_source_weights
    from odmt_sdk.toy_shop.shop import make_shop
    from odmt_sdk.training.lazy_adamw import LazyAdamW
    from odmt_sdk.training.trainer import ODMTTrainer
    from odmt_sdk.training.tune import TuneResult, tune
    from odmt_sdk.vocabulary import ItemVocabulary
    from odmt_sdk.wrapper import ODMTWrapper

_HOMES = {
    "AdapterError": "odmt_sdk.errors",
    "FitResult": "odmt_sdk.pipeline",
    "GRU4Rec": "odmt_sdk.backbones.models.gru4rec",
    "HSTU": "odmt_sdk.backbones.models.hstu",
    "IdLookupBackbone": "odmt_sdk.backbones.id_lookup.backbone",
    "Interactions": "odmt_sdk.data.interactions",
    "ItemEncoder": "odmt_sdk.items.item_encoder",
    "ItemFeatures": "odmt_sdk.features.features",
    "ItemVocabulary": "odmt_sdk.vocabulary",
    "LazyAdamW": "odmt_sdk.training.lazy_adamw",
    "Mamba2": "odmt_sdk.backbones.models.mamba",
    "NextItNet": "odmt_sdk.backbones.models.nextitnet",
    "ODMTConfig": "odmt_sdk.config",
    "ODMTOutput": "odmt_sdk.outputs",
    "ODMTTrainer": "odmt_sdk.training.trainer",
    "ODMTWrapper": "odmt_sdk.wrapper",
    "OnlineDistillationMixin": "odmt_sdk.losses.online_distillation",
    "Recommendations": "odmt_sdk.outputs",
    "SASRec": "odmt_sdk.backbones.models.sasrec",
    "SequenceCollator": "odmt_sdk.data.collator",
    "TrainableImages": "odmt_sdk.features.trainable.images",
    "TrainableText": "odmt_sdk.features.trainable.text",
    "add_item_to_item": "odmt_sdk.item_to_item",
    "choose_source_weights": "odmt_sdk.source_weights",
    "check_backbone": "odmt_sdk.backbones.check.report",
    "draw_attention": "odmt_sdk.figures.attention",
    "draw_contributions": "odmt_sdk.figures.score_contributions",
    "draw_item_map": "odmt_sdk.figures.item_map",
    "draw_learning_curves": "odmt_sdk.figures.learning_curves",
    "draw_recommendations": "odmt_sdk.figures.recommendations",
    "evaluate": "odmt_sdk.evaluation.evaluate",
    "export_user_encoder": "odmt_sdk.export.user_encoder",
    "fit": "odmt_sdk.pipeline",
    "leave_one_out": "odmt_sdk.data.splits",
    "load_folder": "odmt_sdk.data.readers.folder",
    "load_wines": "odmt_sdk.data.wines",
    "make_shop": "odmt_sdk.toy_shop.shop",
    "register_adapter": "odmt_sdk.backbones.adapt",  # until the next release
    "register_bridge": "odmt_sdk.backbones.adapt",
    "register_fusion": "odmt_sdk.items.embedder",
    "register_modality": "odmt_sdk.features.modalities",
    "register_teaching_graph": "odmt_sdk.losses.teaching",
    "shipped_adapters": "odmt_sdk.saving.shipped",
    "TuneResult": "odmt_sdk.training.tune",
    "tune": "odmt_sdk.training.tune",
    "time_split": "odmt_sdk.data.time_split",
}

__all__ = [
    "HSTU",
    "AdapterError",
    "FitResult",
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
    "ODMTOutput",
    "ODMTTrainer",
    "ODMTWrapper",
    "OnlineDistillationMixin",
    "Recommendations",
    "SASRec",
    "SequenceCollator",
    "TrainableImages",
    "TrainableText",
    "TuneResult",
    "add_item_to_item",
    "check_backbone",
    "choose_source_weights",
    "draw_attention",
    "draw_contributions",
    "draw_item_map",
    "draw_learning_curves",
    "draw_recommendations",
    "evaluate",
    "export_user_encoder",
    "fit",
    "leave_one_out",
    "load_folder",
    "load_wines",
    "make_shop",
    "register_bridge",
    "register_fusion",
    "register_modality",
    "register_teaching_graph",
    "shipped_adapters",
    "time_split",
    "tune",
]

__version__ = "0.1.0.dev0"

_SUBMODULES = (
    "backbones",
    "baselines",
    "batch",
    "data",
    "demo",
    "evaluation",
    "export",
    "features",
    "figures",
    "hub",
    "indexes",
    "items",
    "losses",
    "retrieval",
    "saving",
    "serving",
    "toy_shop",
)

__getattr__, __dir__ = hand_out(__name__, _HOMES, submodules=_SUBMODULES)

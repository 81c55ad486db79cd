"""Loads the golden cases from the authors' program into an `ODMTWrapper`."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from odmt_sdk import ItemFeatures, ODMTConfig, ODMTWrapper, SASRec

GOLDEN = Path(__file__).parent / "golden"
CASES = ("base", "open_mask", "deep")
TOWERS = {"id": "id", "t": "text", "v": "image"}
RENAMES = (
    (r"^id_encoder\.", "item_encoder.id_embedding."),
    (r"^(id|text|image)_proj\.", r"item_encoder.projections.\1."),
    (r"^IMT\.transformer_blocks\.", "item_encoder.blocks."),
    (r"^(id|t|v)_dnns\.", lambda m: f"item_encoder.heads.{TOWERS[m[1]]}."),
    (
        r"^(id|t|v)_user_encoder\.transformer_encoder\.",
        lambda m: f"backbones.by_source.{TOWERS[m[1]]}.",
    ),
    (r"\.transformer_blocks\.", ".blocks."),
    (r"multi_head_attention\.layer_norm", "attention_norm"),
    (r"multi_head_attention\.w_Q", "attention.query"),
    (r"multi_head_attention\.w_K", "attention.key"),
    (r"multi_head_attention\.w_V", "attention.value"),
    (r"multi_head_attention\.fc", "attention.output"),
    (r"feed_forward\.w_1", "feed_forward.0"),
    (r"feed_forward\.w_2", "feed_forward.2"),
    (r"feed_forward\.layer_norm", "feed_forward_norm"),
)
UNUSED_THERE = {"IMT.layer_norm.weight", "IMT.layer_norm.bias", "IMT.token_type_embeddings.weight"}
OURS_ALONE = {
    "item_encoder.missing_tokens.text",
    "item_encoder.missing_tokens.image",
    "item_encoder.missing_tokens.id",
    "item_encoder.unseen",
    "item_log_probability",
}


@dataclass
class GoldenCase:
    settings: dict
    tensors: dict[str, torch.Tensor]
    features: ItemFeatures

    def named(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors with a prefix, `weight.` or `grad.`, by the package's names."""
        return {
            our_name(name.removeprefix(prefix)): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix) and name.removeprefix(prefix) not in UNUSED_THERE
        }

    def model(self) -> ODMTWrapper:
        s = self.settings
        ramp = s["rampup_epochs"]
        config = ODMTConfig.paper(
            num_layers=s["imt_layers"],
            num_heads=s["imt_heads"],
            id_visibility="one_way" if s["id_visibility"] == "v1" else "mutual",
            dropout=0.0,
            layer_norm_eps=s["layer_norm_eps"],
            distillation_temperature=s["temperature"],
            distillation_weight=1.0 if ramp >= 1 else ramp,
            distillation_warmup_epochs=ramp if ramp >= 1 else 0,
        )
        backbone = SASRec(
            s["hidden_size"],
            num_layers=s["user_layers"],
            num_heads=s["user_heads"],
            max_seq_length=s["max_length"],
            dropout=0.0,
            layer_norm_eps=s["layer_norm_eps"],
        )
        model = ODMTWrapper(backbone=backbone, item_features=self.features, config=config)
        model.set_item_popularity(self.tensors["in.item_probabilities"])
        loaded = model.load_state_dict(self.named("weight."), strict=False)
        assert set(loaded.missing_keys) == OURS_ALONE
        assert not loaded.unexpected_keys
        return model


def our_name(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def load_case(name: str) -> GoldenCase:
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    lengths = {"text": tensors["in.text_lengths"]}
    features = ItemFeatures.from_tensors(
        text=tensors["in.text_features"], image=tensors["in.image_features"], lengths=lengths
    )
    return GoldenCase(json.loads((GOLDEN / f"{name}.json").read_text()), tensors, features)

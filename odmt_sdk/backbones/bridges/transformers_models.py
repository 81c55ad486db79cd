"""Bridge for models of the transformers library that accept `inputs_embeds`.

Letters: B users, L positions, D hidden size, V vocabulary size of the language model.
"""

import inspect
import sys
from typing import Any, Literal

import torch
from torch import nn

from odmt_sdk.backbones.adapt import register_bridge
from odmt_sdk.backbones.bridge import BackboneBridge
from odmt_sdk.backbones.bridges.right_padding import real_counts, restore, right_pad
from odmt_sdk.backbones.signature.trial import (
    SAME_SHAPE,
    copy_module,
    differs,
    random_embeds,
    seeded,
    summary,
)
from odmt_sdk.backbones.undisturbed import tried

MaskForm = Literal["none", "causal", "padding"]
"""Attention mask that a model receives.

none: the model is causal by itself, and right padding needs no mask. causal: an additive mask
(B, 1, L, L). padding: a mask (B, L), which does not hide later positions.
"""
FIXED_ARGUMENTS = {"use_cache": False, "return_dict": True}


class RemovedEmbedding(nn.Module):
    """Placeholder for a removed token embedding; items bring their own embeddings."""

    def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
        """Refuse to look up tokens.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "the token embedding of this model was removed, because items have their own "
            "embeddings: call the model with inputs_embeds"
        )


class TransformersBackbone(BackboneBridge):
    """The body of a transformers model, without token embedding and LM head.

    Rows are right-padded: positions count from the first item, and a causal model sees no padding.
    Padding therefore does not change the results. An encoder receives a causal mask if it accepts
    one.

    Args:
        module: the body without token embedding, from `remove_token_embedding`.
        hidden_size: D.
        output_size: width of the last hidden state; None = D.
        mask_form: which attention mask the model receives.
        max_seq_length: number of positions in the position table; None if there is no table.

    Examples:
        >>> from transformers import GPT2Config, GPT2Model
        >>> from odmt_sdk.backbones.adapt import adapt_backbone
        >>> gpt2 = adapt_backbone(GPT2Model(GPT2Config(n_embd=8, n_head=2, n_layer=1)))
        >>> gpt2(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 8])
    """

    way_out_of_the_future = (
        "load it with attn_implementation='sdpa' or 'eager', which accept a causal mask, or choose "
        "a decoder"
    )

    def __init__(
        self,
        module: nn.Module,
        *,
        hidden_size: int,
        output_size: int | None = None,
        mask_form: MaskForm = "none",
        max_seq_length: int | None = None,
    ) -> None:
        super().__init__(
            module,
            hidden_size=hidden_size,
            output_size=output_size,
            max_seq_length=max_seq_length,
        )
        self.mask_form: MaskForm = mask_form
        parameters = inspect.signature(module.forward).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self.arguments = {
            name: value
            for name, value in FIXED_ARGUMENTS.items()
            if takes_any or name in parameters
        }

    def forward(self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Run the model on a batch of sequences.

        Args:
            inputs_embeds: (B, L, D).
            attention_mask: (B, L), 1 = real.

        Returns:
            (B, L, output size).
        """
        inputs, slots = right_pad(inputs_embeds, attention_mask)
        mask = _mask(self.mask_form, inputs, attention_mask)
        arguments = self.arguments if mask is None else {**self.arguments, "attention_mask": mask}
        hidden: torch.Tensor = self.module(inputs_embeds=inputs, **arguments)[0]
        return restore(hidden, slots).to(inputs_embeds.dtype)  # some models compute in float32


def _mask(form: MaskForm, inputs: torch.Tensor, attention_mask: torch.Tensor) -> Any:
    batch, length = attention_mask.shape
    if form == "none":
        return None
    if form == "padding":
        positions = torch.arange(length, device=inputs.device)
        return (positions < real_counts(attention_mask).unsqueeze(1)).long()  # (B, L)
    visible = torch.ones(length, length, dtype=torch.bool, device=inputs.device).tril()
    lowest = torch.finfo(inputs.dtype).min
    hidden = torch.zeros(length, length, dtype=inputs.dtype, device=inputs.device)
    return hidden.masked_fill(~visible, lowest).expand(batch, 1, length, length)


def remove_token_embedding(model: nn.Module) -> tuple[nn.Module, int]:
    """Copy the body of a transformers model without its token embedding.

    Args:
        model: a model with or without a head; it is not changed.

    Returns:
        The copy, and the width of its input embeddings.

    Raises:
        TypeError: if the model has no token embedding or does not accept `inputs_embeds`.
    """
    name = type(model).__name__
    body: Any = getattr(model, "base_model", model)
    try:
        embedding: Any = body.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embedding = None
    embedding = getattr(embedding, "base_layer", embedding)  # LoRA on the token embedding
    if getattr(model.config, "is_encoder_decoder", False):
        raise TypeError(
            f"{name} is an encoder with a decoder, which reads two sequences: pass one of the "
            "two, such as model.get_encoder(), or a decoder-only model"
        )
    takes = inspect.signature(body.forward).parameters
    if "inputs_embeds" not in takes or not isinstance(embedding, nn.Embedding):
        raise TypeError(
            f"{name} does not accept inputs_embeds instead of tokens: pass forward_fn= to define "
            "how it is called, or choose a text model"
        )
    # In the copy, every module that uses the (V, D) table is replaced, including tied ones.
    replaced: dict[int, Any] = {
        id(module): RemovedEmbedding()
        for module in body.modules()
        if getattr(module, "weight", None) is embedding.weight
    }
    return copy_module(body, replaced), embedding.embedding_dim


@register_bridge("transformers", matches=lambda b: _is_transformers_model(b), priority=-10)
def _build(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    body, width = remove_token_embedding(backbone)
    _remove_pooler(body, width)
    with tried(body):
        form, output_size = _find_mask_form(body, width)
    adapted = TransformersBackbone(
        body,
        hidden_size=width,
        output_size=output_size,
        mask_form=form,
        max_seq_length=_position_rows(body),
    )
    adapted.holds_copy = True
    return adapted


def _is_transformers_model(backbone: object) -> bool:
    """Whether this is a transformers model, without importing the library."""
    library = sys.modules.get("transformers.modeling_utils")
    return library is not None and isinstance(backbone, library.PreTrainedModel)


def _find_mask_form(body: nn.Module, width: int) -> tuple[MaskForm, int]:
    """Find the first mask form with which no position sees a later one, and the output width.

    Raises:
        ValueError: if the model does not run on `inputs_embeds`.
    """
    embeds = random_embeds(body, 2, 4, width)
    changed = embeds.clone()
    changed[:, 2:] = random_embeds(body, 2, 2, width, seed=1)
    mask = torch.ones(2, 4, dtype=torch.long, device=embeds.device)
    forms: tuple[MaskForm, ...] = ("none", "causal")
    for form in forms:
        adapted = TransformersBackbone(body, hidden_size=width, mask_form=form)
        try:
            with torch.no_grad(), seeded(body):
                before, after = adapted(embeds, mask), adapted(changed, mask)
        except Exception as error:  # a model may raise anything for an unsupported mask
            if form == "none":
                raise ValueError(
                    f"{type(body).__name__} does not run on inputs_embeds alone "
                    f"({summary(error)}): pass forward_fn= to define how it is called"
                ) from error
            continue
        output_size = before.shape[-1]
        if not differs(before[:, :2], after[:, :2], SAME_SHAPE):
            return form, output_size
    return "padding", output_size


def _remove_pooler(body: Any, width: int) -> None:
    """Remove the pooler over the first position, which would never be trained."""
    pooler = getattr(body, "pooler", None)
    if not isinstance(pooler, nn.Module):
        return
    body.pooler = None
    try:
        with tried(body), torch.no_grad(), seeded(body):
            body(inputs_embeds=random_embeds(body, 1, 2, width))
    except Exception:  # this model needs its pooler
        body.pooler = pooler


def _position_rows(body: nn.Module) -> int | None:
    """The number of positions in a learned position table, or None without one."""
    for name, module in body.named_modules():
        table = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and ("position" in table or table == "wpe"):
            padding = -1 if module.padding_idx is None else module.padding_idx
            return module.num_embeddings - int(getattr(module, "offset", padding + 1))
    return None

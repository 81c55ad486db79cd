"""Adapter for models of the transformers library that take `inputs_embeds`.

Letters: B users, L positions, D hidden size, V words of the vocabulary.
"""

import copy
import inspect
import sys
from typing import Any, Literal

import torch
from torch import nn

from odmt_sdk.backbones.adapter import BackboneAdapter
from odmt_sdk.backbones.alignment import real_counts, restore, right_pad
from odmt_sdk.backbones.registry import register_adapter
from odmt_sdk.backbones.trial import SAME_SHAPE, differs, random_embeds, seeded, summary

MaskForm = Literal["none", "causal", "padding"]
"""Which attention mask a model gets.

none: it is causal by itself, and right padding needs no mask. causal: an additive mask
(B, 1, L, L). padding: (B, L), which hides no future.
"""
FIXED_ARGUMENTS = {"use_cache": False, "return_dict": True}


class RemovedEmbedding(nn.Module):
    """Stands where a token embedding was: items bring their own embeddings."""

    def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
        """Refuse to look up tokens.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "the token embedding of this model was removed, since items bring their own: call it "
            "with inputs_embeds"
        )


class TransformersBackbone(BackboneAdapter):
    """The body of a transformers model, without token embedding and LM head.

    Rows are right-padded for it: positions count from the first item on, and a causal model sees no
    padding, so that padding changes nothing. Encoders get a causal mask where they accept one.

    Args:
        module: a body without token embedding, from `remove_token_embedding`.
        hidden_size: D.
        output_size: width of its last hidden state.
        mask_form: which attention mask it gets.
        max_seq_length: rows of its position table; None without one.

    Examples:
        >>> from transformers import GPT2Config, GPT2Model
        >>> from odmt_sdk.backbones.registry import adapt_backbone
        >>> gpt2 = adapt_backbone(GPT2Model(GPT2Config(n_embd=8, n_head=2, n_layer=1)))
        >>> gpt2(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 8])
    """

    way_out_of_the_future = (
        "load it with attn_implementation='sdpa' or 'eager', which take a causal mask, or choose "
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
        """Read sequences.

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
        return restore(hidden, slots).to(inputs_embeds.dtype)  # some keep float32 inside


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
    """Copy the body of a transformers model, all but its token embedding.

    Args:
        model: body or model with a head; it is not changed.

    Returns:
        The copy, and the width of the embeddings that it reads.

    Raises:
        TypeError: if it has no token embedding, or reads something else than embeddings.
    """
    name = type(model).__name__
    body: nn.Module = getattr(model, "base_model", model)
    try:
        embedding = body.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        embedding = None
    if getattr(model.config, "is_encoder_decoder", False):
        raise TypeError(
            f"{name} is an encoder with a decoder, which read two sequences: pass one of them, "
            "such as model.get_encoder(), or a decoder-only model"
        )
    takes = inspect.signature(body.forward).parameters
    if "inputs_embeds" not in takes or not isinstance(embedding, nn.Embedding):
        raise TypeError(
            f"{name} takes no inputs_embeds in place of tokens: say with forward_fn= how to call "
            "it, or choose a text model"
        )
    # A copy in which every module over the (V, D) table, however often it is tied, is replaced.
    replaced: dict[int, Any] = {
        id(module): RemovedEmbedding()
        for module in body.modules()
        if getattr(module, "weight", None) is embedding.weight
    }
    return copy.deepcopy(body, replaced), embedding.embedding_dim


@register_adapter("transformers", matches=lambda b: _is_transformers_model(b), priority=-10)
def _build(backbone: nn.Module, hidden_size: int | None) -> nn.Module:
    body, width = remove_token_embedding(backbone)
    modes = {module: module.training for module in body.modules()}
    body.eval()
    try:
        _remove_pooler(body, width)
        form, output_size = _find_mask_form(body, width)
    finally:
        for module, training in modes.items():
            module.training = training
    return TransformersBackbone(
        body,
        hidden_size=width,
        output_size=output_size,
        mask_form=form,
        max_seq_length=_position_rows(body),
    )


def _is_transformers_model(backbone: object) -> bool:
    """Whether it is one; no object is, as long as nobody imported the library."""
    library = sys.modules.get("transformers.modeling_utils")
    return library is not None and isinstance(backbone, library.PreTrainedModel)


def _find_mask_form(body: nn.Module, width: int) -> tuple[MaskForm, int]:
    """The first mask with which no position sees the next, and the width returned.

    Raises:
        ValueError: if the model cannot be run at all.
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
        except Exception as error:  # whatever a model raises on a mask of a form it does not know
            if form == "none":
                raise ValueError(
                    f"{type(body).__name__} does not run on inputs_embeds alone "
                    f"({summary(error)}): say with forward_fn= how to call it"
                ) from error
            continue
        output_size = before.shape[-1]
        if not differs(before[:, :2], after[:, :2], SAME_SHAPE):
            return form, output_size
    return "padding", output_size


def _remove_pooler(body: nn.Module, width: int) -> None:
    """Leave out the pooler over the first position, which would never be trained."""
    pooler = getattr(body, "pooler", None)
    if not isinstance(pooler, nn.Module):
        return
    body.pooler = None  # type: ignore[assignment]
    try:
        with torch.no_grad(), seeded(body):
            body(inputs_embeds=random_embeds(body, 1, 2, width))
    except Exception:  # this model cannot do without
        body.pooler = pooler


def _position_rows(body: nn.Module) -> int | None:
    """How many positions its table holds, if it has a learnt one."""
    for name, module in body.named_modules():
        table = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and ("position" in table or table == "wpe"):
            padding = -1 if module.padding_idx is None else module.padding_idx
            return module.num_embeddings - int(getattr(module, "offset", padding + 1))
    return None

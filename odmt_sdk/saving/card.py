"""The model card of an adapter: front matter that the Hub reads, and a page for people."""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from odmt_sdk.saving.card_details import CardDetails
from odmt_sdk.saving.description import Description
from odmt_sdk.saving.layout import LIBRARY

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

MARK = "<!-- Written by odmt-sdk with the adapter. Remove this line to keep a text of your own. -->"
METRIC = re.compile(r"(hit_rate|recall|ndcg|mrr)@\d+")
PAPER = "https://arxiv.org/abs/2308.04067"
CITATION = """@inproceedings{ji2023odmt,
  title     = {Online Distillation-enhanced Multi-modal Transformer for Sequential Recommendation},
  author    = {Ji, Wei and Liu, Xiangyan and Zhang, An and Wei, Yinwei and Ni, Yongxin and
               Wang, Xiang},
  booktitle = {Proceedings of the 31st ACM International Conference on Multimedia},
  year      = {2023},
  url       = {https://arxiv.org/abs/2308.04067}
}"""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card tells of the model itself.

    Args:
        name: repository or folder that the load snippet names.
        description: of the adapter.
        card: what the user adds.
        sources: names of the sources.
        num_weights: numbers in all weights.
        num_items: N; None for an adapter without a catalogue.
        item_ids: two of them for the snippet, fewer in a smaller catalogue.
        ready: whether item embeddings are saved.
        tables: split -> results as a Markdown table.
    """

    name: str
    description: Description
    card: CardDetails
    sources: Sequence[str]
    num_weights: int
    num_items: int | None
    item_ids: Sequence[Hashable]
    ready: bool
    tables: Mapping[str, str]


def render_card(facts: CardFacts) -> str:
    """Write the model card.

    Args:
        facts: what to tell.

    Returns:
        Markdown with front matter.
    """
    from huggingface_hub import ModelCardData

    card, description = facts.card, facts.description
    results = [
        _result(card, split, name, value)
        for split, found in card.results.items()
        for name, value in found.items()
        if METRIC.fullmatch(name) and math.isfinite(value)
    ]
    data = ModelCardData(
        language=card.language,
        license=card.license,
        library_name=LIBRARY,
        pipeline_tag="other",
        tags=["odmt", "recommendation", "sequential-recommendation", *description.widths],
        datasets=[card.dataset_id] if card.dataset_id else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=_title(facts) if results else None,
        eval_results=results or None,
    )
    parts = [
        f"# {_title(facts)}",
        MARK,
        _introduction(facts),
        f"## Use\n\n```python\n{_snippet(facts)}\n```",
        f"## Model\n\n{_model_table(facts)}",
        f"## Features it needs\n\n{_features(facts)}",
        f"## Training\n\n{_training(facts)}",
        f"## Results\n\n{_results(facts)}",
        f"## Limits\n\n{_limits(facts)}",
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _result(card: CardDetails, split: str, name: str, value: float) -> "EvalResult":
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="other",
        task_name="Sequential recommendation",
        dataset_type=card.dataset_id or "unpublished",
        dataset_name=card.dataset or card.dataset_id or "not named",
        dataset_split=split,
        metric_type=name,
        metric_name=name,
        metric_value=round(value, 6),
    )


def _title(facts: CardFacts) -> str:
    return _one_line(facts.card.title or re.split(r"[\\/]", facts.name.rstrip("/\\"))[-1])


def _introduction(facts: CardFacts) -> str:
    kinds = " and ".join(facts.description.widths) or "item IDs alone"
    text = (
        f"Recommends what a person will choose next, from the items chosen before. A "
        f"{facts.description.backbone.name} backbone reads the sequence; items are known by "
        f"{'their IDs, ' if facts.description.widths else ''}{kinds}. Made with `{LIBRARY}`, which "
        f"implements [ODMT]({PAPER})."
    )
    return "\n\n".join([text, *([facts.card.description] if facts.card.description else [])])


def _snippet(facts: CardFacts) -> str:
    backbone = facts.description.backbone
    own = backbone.built_in is None or not backbone.weights
    features = facts.num_items is None or not facts.ready
    lines = [f"from odmt_sdk import {'ItemFeatures, ' if features else ''}ODMTWrapper"]
    arguments = [repr(facts.name)]
    if own:
        what = "with its weights" if not backbone.weights else "its code is not in this adapter"
        lines.append(f"from my_code import {backbone.name}  # {what}")
        arguments.append(f"backbone={backbone.name}(...)")
    lines.append("")
    if features:
        encoders = [
            f"{modality}_encoder={str(facts.description.features[modality]['encoder'])!r}"
            for modality in facts.description.widths
            if facts.description.features.get(modality, {}).get("encoder")
        ]
        lines.append(f"features = ItemFeatures.from_items({', '.join(['items', *encoders])})")
        arguments.append("item_features=features")
    if facts.num_items is None:
        arguments.append("transfer=True")
    lines.append(f"model = ODMTWrapper.from_pretrained({', '.join(arguments)})")
    shown = [i for i in facts.item_ids if "`" not in str(i)]
    if facts.num_items is not None and shown:
        lines.append(f"found = model.recommend([{shown!r}], k={min(10, facts.num_items)})")
        lines.append("print(found.item_ids, found.scores)")
    return "\n".join(lines)


def _model_table(facts: CardFacts) -> str:
    description, config = facts.description, facts.description.config
    arguments = ", ".join(f"{k}={v!r}" for k, v in description.backbone.arguments.items())
    items = "none: for transfer to other catalogues" if facts.num_items is None else facts.num_items
    return _table(
        ("", ""),
        [
            ("backbone", f"{description.backbone.name}{f' ({arguments})' if arguments else ''}"),
            ("sources", ", ".join(facts.sources)),
            ("fusion", config.fusion),
            ("hidden size", config.hidden_size),
            ("longest sequence", config.max_seq_length),
            ("items", items),
            ("weights", f"{facts.num_weights:,}"),
        ],
    )


def _features(facts: CardFacts) -> str:
    if not facts.description.widths:
        return "None: it knows items by their IDs."
    rows = []
    for modality, width in facts.description.widths.items():
        about = facts.description.features.get(modality, {})
        encoder, revision = about.get("encoder"), about.get("revision")
        tokens = about.get("tokens", "not recorded")
        rows.append((modality, _encoder(encoder), revision or "not recorded", tokens, width))
    needed = (
        "It recommends from the item embeddings saved with it. To train it further, or to add "
        "items, extract features with the same encoders:"
        if facts.ready
        else "Extract them with the same encoders:"
    )
    header = ("modality", "encoder", "revision", "tokens", "values per token")
    text = f"{needed}\n\n{_table(header, rows)}"
    about = facts.description.features
    trained = [name for name in facts.description.widths if about.get(name, {}).get("trained")]
    if trained:
        text += (
            f"\n\nThe encoder of {' and '.join(trained)} was trained with it, by LoRA. Its LoRA "
            "weights are in this adapter; `from_pretrained(..., encoders=...)` puts them into the "
            "encoder named above."
        )
    return text


def _training(facts: CardFacts) -> str:
    card = facts.card
    data = card.dataset or card.dataset_id or "data that are not named here"
    if card.dataset_id:
        data = f"[{_one_line(data)}](https://huggingface.co/datasets/{card.dataset_id})"
    rows = list(card.training.items())
    return f"Trained on {data}." + (f"\n\n{_table(('', ''), rows)}" if rows else "")


def _results(facts: CardFacts) -> str:
    if not facts.tables:
        return "Not measured."
    parts = [f"On the {split} targets:\n\n{table}" for split, table in facts.tables.items()]
    note = (
        "Each target is ranked among all items of the catalogue. `fused` is the mean of all "
        "sources' scores, with item-to-item counts if the adapter has them; the other rows are "
        "each source alone."
    )
    return "\n\n".join([*parts, note])


def _limits(facts: CardFacts) -> str:
    usual = (
        "It reproduces the patterns of its training data, including popularity and all other "
        "biases. Scores order items for one person; they are not probabilities and cannot be "
        "compared between people. It recommends only items of its catalogue."
    )
    return "\n\n".join([usual, *([facts.card.limits] if facts.card.limits else [])])


def _encoder(name: object) -> str:
    """A link to an encoder of the Hub, or the name of a folder without the way to it."""
    text = str(name or "not recorded")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        return f"[{text}](https://huggingface.co/{text})"
    return re.split(r"[\\/]", text)[-1] or text


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_one_line(cell) for cell in line)} |" for line in lines)


def _one_line(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())

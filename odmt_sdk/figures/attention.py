"""Draws the attention of an item's sources: shaded words and a heat map over the image.

Letters: U items, H heads, T_m tokens of one item in modality m. Lengths are in inches, positions
are measured from the top left corner of the figure.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch

from odmt_sdk.figures.canvas import EMPTY, FAINT, RULE, blank_figure, source_colours
from odmt_sdk.figures.patch_grid import as_seen, patch_grid
from odmt_sdk.figures.tiles import GAP, HEADING, MARGIN, Sheet, read_picture
from odmt_sdk.figures.token_words import TokenWord, given_words, numbered_words, words_of_text
from odmt_sdk.paths import user_path

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from matplotlib.figure import Figure

    from odmt_sdk.features.feature_set import FeatureSet
    from odmt_sdk.features.modality import ModalityTokens
    from odmt_sdk.vocabulary import ItemVocabulary

PICTURE, SHARES, HEAT, WORDS = 1.7, 1.5, 2.1, 4.6  # widths of the columns
CHIP, CHIP_LINE, CHIP_GAP, PADDING = 0.19, 0.37, 0.06, 0.05
BAR = 0.75  # width of a bar of 100 %
SHADE = "#d7301f"
DARKEST = 0.8  # opacity


@runtime_checkable
class ReadableEncoder(Protocol):
    """An item encoder that returns its attention weights, such as `ItemEncoder`."""

    def attention(
        self, item_ids: torch.Tensor, features: Mapping[str, ModalityTokens] | None = None
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Return source -> source of the tokens it attends to -> weights (U, H, T_m)."""


class ReadingModel(Protocol):
    """The interface that the figure needs; `ODMTWrapper` implements it."""

    vocabulary: ItemVocabulary | None
    item_features: FeatureSet | None
    item_encoder: Any

    @property
    def device(self) -> torch.device:
        """Device of the weights."""

    def content_tokens(self, item_ids: torch.Tensor) -> Mapping[str, ModalityTokens]:
        """Return modality -> tokens (U, T, d) and lengths (U,) of rows (U,)."""


class _Item(NamedTuple):
    """How to show the tokens of the item."""

    words: Mapping[str, Sequence[TokenWord]]  # modality -> words; empty if the item lacks it
    grid: tuple[int, int] | None  # rows and columns of the image patches
    picture: Any
    absent: Sequence[str]


def draw_attention(
    model: ReadingModel,
    item_id: Hashable,
    *,
    text: str | None = None,
    tokenizer: Any = None,
    text_pooling: Literal["first", "mean"] = "first",
    words: Sequence[str] | None = None,
    image: Any = None,
    image_processor: Any = None,
    grid: tuple[int, int] | None = None,
    title: str | None = None,
    head: int | None = None,
    path: str | os.PathLike[str] | None = None,
    dpi: int = 110,
) -> Figure:
    """Draw the words and image patches that each source of an item attends to.

    The figure has one row per source: the ID token, and the first token of each modality. A row
    shows the attention of this token to all tokens of the item, in the last block of the item
    encoder: its distribution over the sources, a heat map over the image, and shaded words. Numbers
    are percentages of the source's total attention. The shades of a row are relative to its
    strongest patch and its strongest word.

    Lower blocks mix the tokens, so a patch in the last block may carry information from other
    patches. With `num_layers=1`, there is no mixing.

    Args:
        model: an `ODMTWrapper` with features and the fusion "odmt".
        item_id: the item.
        text: the text that its features were extracted from.
        tokenizer: the text encoder's tokenizer, a fast tokenizer of transformers.
        text_pooling: as in `ItemFeatures.from_items`.
        words: labels of the text tokens, instead of `text` and `tokenizer`.
        image: the item's image, as a path, the bytes of a file or a PIL image.
        image_processor: the vision encoder's image processor, to show the image as the encoder saw
            it. It is needed if it crops images. None = patches cover the whole image.
        grid: rows and columns of the patches, which are the last tokens of the modality "image".
            None = one leading token for the whole image, and a square grid.
        title: title of the figure; None = the text, or the item id if there is no text.
        head: an attention head in 0..H - 1; None = the mean of all heads.
        path: file to save the figure to; the suffix determines the format (.png, .pdf, .svg).
        dpi: pixels per inch of a saved bitmap.

    Returns:
        The figure, independent of pyplot and its global state.

    Raises:
        ValueError: if the model has no features or no attention weights, the item is unknown, or
            words, patches or head do not match the model.
        TypeError: if the image is of another type.
        ImportError: if matplotlib is not installed (`pip install odmt-sdk[figures]`).

    Examples:
        >>> figure = draw_attention(                                         # doctest: +SKIP
        ...     model, "mug-017", text=title, tokenizer=tokenizer, image="mug-017.jpg"
        ... )
    """
    weights, lengths = _weights(model, item_id, head)
    if (text is None) != (tokenizer is None) or (words is not None and text is not None):
        raise ValueError("give text= and tokenizer= together, or words= instead of both")
    item = _Item(
        {
            name: _words(name, length, text, tokenizer, text_pooling, words)
            for name, length in lengths.items()
        },
        patch_grid(lengths["image"], grid) if lengths.get("image", 0) > 1 else None,
        None if read_picture(image) is None else as_seen(image, image_processor),
        [name for name, length in lengths.items() if length == 0],
    )
    sources = list(weights)
    has_heat = "image" in lengths
    shares_left = MARGIN + (PICTURE + 2 * GAP if has_heat else 0)
    heat_left = shares_left + SHARES + GAP
    words_left = heat_left + (HEAT + 2 * GAP if has_heat else 0)
    width = words_left + WORDS + MARGIN
    measuring = Sheet(blank_figure(1, 1, dpi))
    lines = {name: _flow(measuring, found) for name, found in item.words.items()}
    chips = sum(
        CHIP_LINE * (1 + len(flow)) for name, flow in lines.items() if _as_words(item, name)
    )
    heat = HEAT * _ratio(item) + 0.4 if has_heat else 0
    row_height = max(heat, chips, 0.5 + 0.18 * len(sources)) + GAP
    height = max(
        MARGIN + 2 * HEADING + row_height * len(sources),
        MARGIN + 2 * HEADING + PICTURE * _ratio(item),
    )
    figure = blank_figure(width, height + MARGIN, dpi)
    sheet = Sheet(figure)
    sheet.heading(title or text or str(item_id), MARGIN, line=False)
    tokens = sum(lengths.values()) + 1
    which = "mean of the heads" if head is None else f"head {head}"
    sheet.write(
        f"attention in the last block, {which}; percent of what a source reads, an even share of "
        f"{tokens} tokens is {100 / tokens:.1f} %",
        MARGIN,
        MARGIN + HEADING,
        size=7,
        color=FAINT,
        va="center",
    )
    top = MARGIN + 2 * HEADING - 0.1
    if has_heat:
        _picture(sheet, item, MARGIN, top, PICTURE)
    colours = source_colours(["id", *lengths])
    for reader in ("id", *lengths):
        _shares(sheet, reader, weights[reader], colours, shares_left, top)
        if has_heat:
            _heat(sheet, item, weights[reader]["image"], heat_left, top)
        below = top
        for name, flow in lines.items():
            if _as_words(item, name):
                below = _chips(sheet, name, flow, weights[reader][name], words_left, below)
        top += row_height
    if path is not None:
        figure.savefig(user_path(path), dpi=dpi)
    return figure


@torch.no_grad()
def _weights(
    model: ReadingModel, item_id: Hashable, head: int | None
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, int]]:
    """Return source -> source -> attention weights (T_m,), and the number of tokens per source."""
    if model.item_features is None or model.vocabulary is None:
        raise ValueError(
            "this model has no item features: pass item_features= to ODMTWrapper or from_pretrained"
        )
    encoder = model.item_encoder
    if not isinstance(encoder, ReadableEncoder):
        raise ValueError(
            f"{type(encoder).__name__} has no attention to show: make the model with "
            "ODMTConfig(fusion='odmt')"
        )
    row = torch.tensor(model.vocabulary.rows([item_id]), device=model.device)
    features = model.content_tokens(row)
    found = encoder.attention(row, features)
    heads = found["id"]["id"].shape[1]
    if head is not None and not 0 <= head < heads:
        raise ValueError(f"head={head} must lie in 0..{heads - 1}, or be None for their mean")
    weights = {
        reader: {
            source: (w[0].mean(0) if head is None else w[0, head]).float().cpu()
            for source, w in by_source.items()
        }
        for reader, by_source in found.items()
    }
    return weights, {name: int(m.lengths[0]) for name, m in features.items()}


def _words(
    name: str,
    num_tokens: int,
    text: str | None,
    tokenizer: Any,
    pooling: str,
    words: Sequence[str] | None,
) -> list[TokenWord]:
    if num_tokens == 0 or name != "text":
        return numbered_words(num_tokens)
    if words is not None:
        return given_words(words, num_tokens)
    if text is not None:
        return words_of_text(text, tokenizer, num_tokens, mean_first=pooling == "mean")
    return numbered_words(num_tokens)


def _as_words(item: _Item, name: str) -> bool:
    """Check whether a modality is shown as words: all except images."""
    return name != "image"


def _ratio(item: _Item) -> float:
    """Return the height of the image relative to its width."""
    if item.picture is None:
        return 1.0
    ratio: float = item.picture.height / item.picture.width
    return min(1.5, ratio)


def _flow(sheet: Sheet, words: Sequence[TokenWord]) -> list[list[tuple[TokenWord, float]]]:
    """Break words into lines that fit the column; return them with their widths."""
    lines: list[list[tuple[TokenWord, float]]] = [[]]
    taken = 0.0
    for word in words:
        width = max(sheet.measure(word.label, size=8), 0.22) + 2 * PADDING
        if lines[-1] and taken + width > WORDS:
            lines.append([])
            taken = 0.0
        lines[-1].append((word, min(width, WORDS)))
        taken += width + CHIP_GAP
    return lines


def _picture(sheet: Sheet, item: _Item, left: float, top: float, width: float) -> None:
    height = width * _ratio(item)
    if item.picture is None:
        sheet.box(left, top, width, height, facecolor=EMPTY, zorder=-1)
        note = "no picture" if "image" in item.absent else "picture not given"
        sheet.write(note, left + width / 2, top + height / 2, size=7, color=FAINT, ha="center")
    else:
        sheet.show(item.picture, left, top, width, height)


def _shares(
    sheet: Sheet,
    reader: str,
    weights: Mapping[str, torch.Tensor],
    colours: Mapping[str, str],
    left: float,
    top: float,
) -> None:
    """Draw the distribution of a source's attention over the sources."""
    sheet.write(
        f"{reader} reads", left, top, size=9, weight="bold", color=colours[reader], va="top"
    )
    for place, source in enumerate(colours):
        share, y = float(weights[source].sum()), top + 0.27 + 0.18 * place
        sheet.write(source, left, y + 0.06, size=7, va="center")
        start = left + 0.42
        sheet.box(start, y, BAR * share, 0.12, facecolor=colours[source])
        sheet.write(
            f"{100 * share:.0f} %", start + BAR * share + 0.05, y + 0.06, size=7, va="center"
        )


def _heat(sheet: Sheet, item: _Item, weights: torch.Tensor, left: float, top: float) -> None:
    """Draw the image in grey with the shades of its patches on top."""
    height = HEAT * _ratio(item)
    if item.picture is None:
        sheet.box(left, top, HEAT, height, facecolor=EMPTY, zorder=-1)
    else:
        sheet.show(item.picture.convert("L").convert("RGB"), left, top, HEAT, height)
    below = top + height + 0.06
    if "image" in item.absent:
        note = "no picture: a learned token stands in"
    elif item.grid is None:
        note = "one token for the whole picture"
    else:
        rows, columns = item.grid
        leading = len(weights) - rows * columns
        patches = weights[leading:].view(rows, columns)  # (T,) -> (rows, columns)
        darkest = float(patches.max()) or 1.0
        sheet.show(_shade(patches / darkest), left, top, HEAT, height)
        sheet.box(left, top, HEAT, height, fill=False, edgecolor=RULE, linewidth=0.8)
        whole = float(weights[:leading].sum())
        note = f"darkest patch {100 * darkest:.2g} %, token of the whole {100 * whole:.2g} %"
    sheet.write(note, left, below, size=7, color=FAINT, va="top")


def _shade(strength: torch.Tensor) -> Any:
    """Convert strengths (...) in 0..1 to colours (..., 4)."""
    from matplotlib.colors import to_rgb

    rgb = torch.tensor(to_rgb(SHADE)).expand(*strength.shape, 3)
    return torch.cat([rgb, DARKEST * strength[..., None].clamp(0, 1)], dim=-1).numpy()


def _chips(
    sheet: Sheet,
    name: str,
    lines: Sequence[Sequence[tuple[TokenWord, float]]],
    weights: torch.Tensor,
    left: float,
    top: float,
) -> float:
    """Draw the shaded words of a modality; return the position below them."""
    words = [word for line in lines for word, _ in line]
    if not words:
        sheet.write(
            f"no {name}: a learned token stands in", left, top, size=7, color=FAINT, va="top"
        )
        return top + 2 * CHIP_LINE
    read = {word: float(weights[list(word.tokens)].sum()) for word in words}
    darkest = max(read[word] for word in words if not word.special or len(words) == 1) or 1.0
    for line in lines:
        x = left
        for word, width in line:
            sheet.box(x, top, width, CHIP, facecolor=EMPTY, zorder=0)
            shade = _shade(torch.tensor(read[word] / darkest))
            sheet.box(x, top, width, CHIP, facecolor=tuple(shade), zorder=1)
            style = {"ha": "center", "va": "center"}
            middle = x + width / 2
            slant = "italic" if word.special else "normal"
            sheet.write(word.label, middle, top + CHIP / 2, size=8, style=slant, zorder=2, **style)
            percent = f"{100 * read[word]:.1f}"
            sheet.write(percent, middle, top + CHIP + 0.07, size=6, color=FAINT, **style)
            x += width + CHIP_GAP
        top += CHIP_LINE
    return top + GAP

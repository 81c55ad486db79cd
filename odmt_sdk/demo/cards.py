"""Renders items as HTML. Titles and ids are untrusted text; pictures are data URIs made here."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from odmt_sdk.figures.canvas import source_colours

if TYPE_CHECKING:
    from odmt_sdk.demo.item_table import ItemTable
    from odmt_sdk.demo.recommender import Card


def escaped(text: object) -> str:
    """Escape text for HTML, and for the templates in which Gradio inserts HTML.

    Args:
        text: any text.

    Returns:
        HTML without tags, and without the braces and dollar signs that templates read.

    Examples:
        >>> escaped('<b>"${1}"</b>')
        '&lt;b&gt;&quot;&#36;&#123;1&#125;&quot;&lt;/b&gt;'
    """
    safe = html.escape(str(text), quote=True)
    for letter in "${}`\\":
        safe = safe.replace(letter, f"&#{ord(letter)};")
    return safe


def picture(table: ItemTable, row: int) -> str:
    """Render the picture of an item, or a placeholder with the first letters of its title."""
    found = table.picture(row)
    if found is not None:
        return f'<span class="odmt-picture"><img src="{found}" alt="" loading="lazy"></span>'
    letters = "".join(word[0] for word in table.titles[row].split()[:2] if word[0].isalnum())
    return f'<span class="odmt-picture odmt-none">{escaped(letters.upper() or "?")}</span>'


def small_cards(
    table: ItemTable, rows: Sequence[int], *, action: str, cold: frozenset[int] = frozenset()
) -> str:
    """Render items as buttons.

    Args:
        table: titles and pictures.
        rows: the items.
        action: "add" or "remove", what a click does.
        cold: items that training has never seen.

    Returns:
        HTML; a click on a button gives its `data-row`, or its `data-place` in `rows` to remove.
    """
    verb = {"add": "Add", "remove": "Remove"}[action]
    buttons = []
    for place, row in enumerate(rows):
        title = escaped(table.titles[row])
        buttons.append(
            f'<button type="button" class="odmt-small odmt-{action}" data-row="{row}" '
            f'data-place="{place}" aria-label="{verb} {title}" title="{title}">'
            f"{picture(table, row)}{_cold(row in cold)}"
            f'<span class="odmt-title">{title}</span></button>'
        )
    return f'<div class="odmt-smalls">{"".join(buttons)}</div>'


def recommendation_cards(table: ItemTable, cards: Sequence[Card], sources: Sequence[str]) -> str:
    """Render recommendations as cards with one bar per source.

    Args:
        table: titles and pictures.
        cards: the recommendations, best first.
        sources: the sources, in the model's order.

    Returns:
        HTML; a click on "add" gives the card's `data-row`.
    """
    if not cards:
        return notice("There is nothing left to recommend: the history holds every item.")
    colours = source_colours(sources)
    shares = [share for card in cards for share in card.shares.values()]
    low, high = min(0.0, *shares), max(0.0, *shares)
    length = (high - low) or 1.0
    legend = "".join(
        f'<span class="odmt-key"><i style="background:{colours[source]}"></i>{escaped(source)}'
        "</span>"
        for source in sources
    )
    articles = []
    for place, card in enumerate(cards, start=1):
        title = escaped(table.titles[card.row])
        item = escaped(table.vocabulary.ids([card.row])[0])
        bars = "".join(
            _bar(source, card.shares[source], card.places[source], low, length, colours)
            for source in sources
        )
        articles.append(
            f'<article class="odmt-card" data-item="{item}">'
            f'<div class="odmt-top">{picture(table, card.row)}'
            f'<span class="odmt-place">{place}</span>{_cold(card.cold)}'
            f'<button type="button" class="odmt-plus" data-row="{card.row}" '
            f'aria-label="Add {title} to the history" title="Add to the history">+</button></div>'
            f'<div class="odmt-title" title="{title}">{title}</div>'
            f'<div class="odmt-bars">{bars}</div>'
            f'<div class="odmt-score"><span>score</span><b>{card.score:+.2f}</b></div></article>'
        )
    return (
        f'<div class="odmt-legend">{legend}<span class="odmt-remark">what each source adds, '
        "compared with the average item</span></div>"
        f'<div class="odmt-cards">{"".join(articles)}</div>'
    )


def notice(text: str) -> str:
    """Render a message in place of cards."""
    return f'<div class="odmt-notice" role="status">{escaped(text)}</div>'


def _cold(cold: bool) -> str:
    if not cold:
        return ""
    return '<span class="odmt-cold" title="Training has never seen this item">new</span>'


def _bar(
    source: str,
    share: float,
    place: int,
    low: float,
    length: float,
    colours: Mapping[str, str],
) -> str:
    """One source's bar, on a scale of some length that begins at `low`; zero is marked."""
    left, width = 100 * (min(share, 0.0) - low) / length, 100 * abs(share) / length
    return (
        f'<div class="odmt-bar" title="{escaped(source)}: {share:+.2f}, place {place:,} by this '
        f'source alone"><span>{escaped(source)}</span>'
        f'<div style="--zero:{-100 * low / length:.1f}%"><i style="left:{left:.1f}%;'
        f'width:{width:.1f}%;background:{colours[source]}"></i></div><b>{share:+.2f}</b></div>'
    )


STYLE = """
.odmt{--odmt-soft:color-mix(in srgb,var(--body-text-color) 66%,transparent)}
.odmt .html-container{padding:0!important}
.odmt-head,.odmt-step,.odmt-smalls,.odmt-legend,.odmt-cards,.odmt-notice{
  color:var(--body-text-color);font-size:14px;line-height:1.35}
.odmt-head{padding:6px 0 0}
.odmt-head h1{font-size:26px;line-height:1.2;margin:0 0 4px;font-weight:700;letter-spacing:-.01em}
.odmt-head p{margin:0;color:var(--odmt-soft);font-size:15px}
.odmt-step{display:flex;gap:8px;align-items:center;margin:0;font-size:16px;font-weight:600}
.odmt-step i{display:inline-grid;place-items:center;width:22px;height:22px;border-radius:50%;
  background:#0072b2;color:#fff!important;font-size:12px;font-style:normal;font-weight:700}
.odmt-step small{font-weight:400;color:var(--odmt-soft);font-size:13px}
.odmt-smalls{display:grid;grid-template-columns:repeat(auto-fill,minmax(92px,1fr));gap:8px}
#odmt-found .odmt-smalls{max-height:430px;overflow-y:auto;padding:2px;
  overscroll-behavior:contain}
#odmt-examples{gap:8px}
#odmt-examples button{display:block;white-space:nowrap;overflow:hidden;
  text-overflow:ellipsis}
.odmt-smalls .odmt-small{position:relative;display:flex;flex-direction:column;padding:0;
  text-align:left;
  border:1px solid var(--border-color-primary);border-radius:10px;overflow:hidden;cursor:pointer;
  background:var(--block-background-fill);color:var(--body-text-color);min-width:0;font:inherit}
.odmt-small:hover,.odmt-small:focus-visible{border-color:#0072b2;outline:2px solid #0072b255}
.odmt-small .odmt-title{height:2.6em;font-size:11.5px;margin:6px 8px 7px;-webkit-line-clamp:2}
.odmt-small::after{position:absolute;right:5px;top:5px;width:20px;height:20px;line-height:19px;
  border-radius:50%;background:#000a;color:#fff;text-align:center;font-size:14px;opacity:0}
.odmt-add::after{content:"+"}
.odmt-remove::after{content:"\\00d7"}
.odmt-small:hover::after,.odmt-small:focus-visible::after,.odmt-remove::after{opacity:1}
.odmt-picture{display:grid;place-items:center;width:100%;aspect-ratio:1;overflow:hidden;
  background:var(--background-fill-secondary)}
.odmt-picture img{width:100%;height:100%;object-fit:contain;display:block;margin:0}
.odmt-none{color:var(--odmt-soft);font-size:22px;font-weight:600;
  letter-spacing:.04em}
.odmt-title{display:-webkit-box;-webkit-line-clamp:3;-webkit-box-orient:vertical;overflow:hidden;
  overflow-wrap:anywhere;line-height:1.3}
.odmt-cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(168px,1fr));gap:14px}
.odmt-card{border:1px solid var(--border-color-primary);border-radius:14px;overflow:hidden;
  background:var(--block-background-fill);display:flex;flex-direction:column;min-width:0}
.odmt-top{position:relative}
.odmt-card .odmt-title{font-size:13.5px;font-weight:600;height:3.9em;
  padding:0;margin:10px 12px 0}
.odmt-place,.odmt-cold{position:absolute;top:8px;border-radius:999px;font-size:12px;
  font-weight:700;line-height:22px;padding:0 8px}
.odmt-place{left:8px;background:#000a;color:#fff!important;min-width:6px;text-align:center}
.odmt-cold{right:8px;background:#1a8f4c;color:#fff!important}
.odmt-small .odmt-cold{left:5px;right:auto;top:5px;font-size:10px;line-height:17px;
  padding:0 6px}
.odmt-top .odmt-plus{position:absolute;right:8px;bottom:8px;width:30px;height:30px;
  border-radius:50%;
  border:0;background:#000a;color:#fff!important;font-size:19px;line-height:28px;
  cursor:pointer;padding:0}
.odmt-top .odmt-plus:hover,.odmt-top .odmt-plus:focus-visible{background:#0072b2}
.odmt-bars{margin:8px 12px 0;display:grid;gap:5px}
.odmt-bar{display:grid;grid-template-columns:38px 1fr 38px;gap:6px;align-items:center;
  font-size:11.5px;color:var(--odmt-soft)}
.odmt-bar>span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.odmt-bar>b{text-align:right;font-weight:500;font-variant-numeric:tabular-nums}
.odmt-bar>div{position:relative;height:9px;border-radius:3px;
  background:linear-gradient(90deg,transparent calc(var(--zero) - .5px),
  var(--odmt-soft) 0 calc(var(--zero) + .5px),transparent 0),
  color-mix(in srgb,var(--body-text-color) 7%,transparent)}
.odmt-bar i{position:absolute;top:0;bottom:0;border-radius:2px}
.odmt-score{display:flex;justify-content:space-between;margin:9px 12px 0;padding:7px 0 9px;
  border-top:1px solid var(--border-color-primary);font-size:12.5px;
  color:var(--odmt-soft)}
.odmt-score b{color:var(--body-text-color);font-variant-numeric:tabular-nums}
.odmt-legend{display:flex;flex-wrap:wrap;gap:4px 14px;margin:0 2px 10px;font-size:12.5px;
  color:var(--odmt-soft)}
.odmt-key{display:inline-flex;align-items:center;gap:6px;color:var(--body-text-color)}
.odmt-key i{width:11px;height:11px;border-radius:3px}
.odmt-notice{border:1px dashed var(--border-color-primary);border-radius:12px;padding:22px 18px;
  text-align:center;color:var(--odmt-soft);font-size:14px}
@media(max-width:640px){
  .odmt-cards{grid-template-columns:repeat(2,minmax(0,1fr));gap:10px}
  .odmt-bar{grid-template-columns:36px 1fr 36px;gap:4px;font-size:10.5px}
  .odmt-card .odmt-title{margin:8px 9px 0;font-size:12.5px}
  .odmt-bars{margin:8px 9px 0}.odmt-score{margin:8px 9px 0}
  .odmt-head h1{font-size:22px}
  #odmt-history .odmt-smalls{grid-auto-flow:column;grid-template-columns:none;
    grid-auto-columns:92px;overflow-x:auto;padding:1px}
  #odmt-found .odmt-smalls{max-height:316px}
}
"""

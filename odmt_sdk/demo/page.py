"""`build`: the page to try a model, made with Gradio."""

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from odmt_sdk.demo.cards import STYLE, escaped, notice, recommendation_cards, small_cards
from odmt_sdk.demo.item_table import ItemTable
from odmt_sdk.demo.recommender import MAX_K, Recommender
from odmt_sdk.errors import missing_library
from odmt_sdk.tables import Table
from odmt_sdk.wrapper import ODMTWrapper

FOUND = 18
MAX_WEIGHT = 4.0
LONGEST_EXAMPLE = 24

# Tells the server which button of a component was clicked.
_CLICKS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-row]');
  if (button) trigger('click', {
    row: Number(button.dataset.row), place: Number(button.dataset.place || 0)});
});
"""


def build(
    model: ODMTWrapper | str | Path | None = None,
    items: Table | None = None,
    image_folder: str | os.PathLike[str] | None = None,
    *,
    title_column: str | None = None,
    image_column: str = "image",
    examples: Mapping[str, Sequence[Hashable]] | None = None,
    k: int = 8,
    title: str | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Any:
    """Build a page to try a model in the browser.

    Visitors pick a history, and see the items that `model.recommend` recommends with their
    pictures, what each source adds to the score, and which items training has never seen. They can
    change the weights of the sources, switch the ID's source off and ask for more diversity.

    Pictures are decoded on the server and sent as thumbnails within the page. Only files that the
    table names are read; with `image_folder`, only files in it. The page has no telemetry.

    Args:
        model: a model, or a path, repository or "shipped:..." for `ODMTWrapper.from_pretrained`;
            None = a small drawn shop, whose model is trained the first time, in one to two minutes.
        items: table with `item_id`, and titles and pictures if there are any, as for
            `ItemFeatures.from_items`; None = item ids only.
        image_folder: folder of the pictures. Paths of the image column are relative to it; without
            such a column, the file `<item_id>.jpg`, `.jpeg`, `.png` or `.webp` is used.
        title_column: column of the titles; None = "title", "text" or "name", whichever there is.
        image_column: column of the pictures (paths, bytes or PIL images), if there is one.
        examples: name -> item ids of a history, oldest first, to begin with; None = popular items
            and the items most like them.
        k: number of recommendations to begin with, 1 to 24.
        title: heading of the page.
        loading: further arguments of `from_pretrained`, such as `backbone`.

    Returns:
        A `gradio.Blocks`. Serve it with its own `launch` method or `gradio.mount_gradio_app`; then
        the routes by which Gradio serves and stores files are open. The `launch` of this package
        closes them.

    Raises:
        ValueError: if `k` is out of range, the table does not fit the model, or an example has an
            unknown item.
        AdapterError: if the adapter cannot be loaded.
        ImportError: if Gradio is not installed (`pip install odmt-sdk[demo]`).

    Examples:
        >>> page = build("my-adapter", "items.parquet")                      # doctest: +SKIP
        >>> page.launch()                                                    # doctest: +SKIP
    """
    import_gradio()
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
        raise ValueError(f"k={k!r} must be a whole number from 1 to {MAX_K}")
    shown = read_shown(
        model,
        items,
        image_folder,
        title_column=title_column,
        image_column=image_column,
        examples=examples,
        title=title,
        loading=loading,
    )
    return _lay_out(shown, k)


class Shown(NamedTuple):
    """What a page shows.

    Args:
        recommender: the model and its items.
        histories: name -> rows of example histories.
        title: heading of the page.
    """

    recommender: Recommender
    histories: dict[str, list[int]]
    title: str


def read_shown(
    model: ODMTWrapper | str | Path | None,
    items: Table | None,
    image_folder: str | os.PathLike[str] | None,
    *,
    title_column: str | None,
    image_column: str,
    examples: Mapping[str, Sequence[Hashable]] | None,
    title: str | None,
    loading: Mapping[str, Any] | None,
) -> Shown:
    """Load the model and read the items that a page shows; see `build`.

    Raises:
        ValueError: if the table does not fit the model, or an example has an unknown item.
        AdapterError: if the adapter cannot be loaded.
    """
    if model is None:
        if items is not None or image_folder is not None:
            raise ValueError(
                "items= and image_folder= describe the items of a model: pass the model or adapter "
                "too, or pass none of them for the drawn shop"
            )
        from odmt_sdk.demo.drawn_shop import drawn_shop

        model, items, chosen = drawn_shop()
        examples = chosen if examples is None else examples
        title = title or "The drawn shop"
    elif not isinstance(model, ODMTWrapper):
        title = title or f"Recommendations of {Path(model).name}"
        model = ODMTWrapper.from_pretrained(model, **(loading or {}))
    elif loading:
        raise ValueError("loading= is for from_pretrained, but the model is already loaded")
    if model.vocabulary is None:
        raise ValueError("this model has no items yet: pass item_features= or call set_items")
    table = ItemTable(
        model.vocabulary,
        items,
        image_folder,
        title_column=title_column,
        image_column=image_column,
    )
    recommender = Recommender(model, table)
    if examples is None:
        histories = recommender.examples()
    else:
        histories = {name: model.vocabulary.rows(list(ids)) for name, ids in examples.items()}
    return Shown(recommender, histories, title or "Recommendations")


def import_gradio() -> Any:
    """Import Gradio.

    Raises:
        ImportError: if it is not installed, with the extra that installs it.
    """
    try:
        import gradio
    except ImportError as error:
        raise missing_library("the page needs Gradio", error, "demo") from error
    return gradio


class Page:
    """What the page answers to its visitors, as HTML.

    Args:
        recommender: recommends.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender, self.table = recommender, recommender.table

    def show(
        self, history: Sequence[int], k: Any, diversity: Any, use_id: Any, *weights: Any
    ) -> tuple[str, str]:
        """Render the history and the recommendations; errors are shown as a notice.

        Args:
            history: rows of items, oldest first.
            k: number of recommendations.
            diversity: 0 to 1.
            use_id: whether the source "id" takes part.
            *weights: one per source, in the model's order; none = equal weights.
        """
        recommender = self.recommender
        try:
            history = recommender.checked(history)
            chosen = small_cards(self.table, history, action="remove", cold=recommender.cold)
        except ValueError as error:
            return notice(str(error)), notice(str(error))
        if not history:
            empty = notice("The history is empty. Pick items below, or an example.")
            return empty, notice("Recommendations appear here.")
        try:
            cards = recommender.recommend(
                history,
                k=_number(k, "The number of recommendations", whole=True),
                weights={
                    source: _number(weight, f"The weight of {source}")
                    for source, weight in zip(recommender.sources, weights, strict=False)
                },
                use_id=bool(use_id),
                diversity=_number(diversity, "Diversity"),
            )
        except ValueError as error:
            return chosen, notice(str(error))
        return chosen, recommendation_cards(
            self.table, cards, tuple(cards[0].shares) if cards else ()
        )

    def search(self, query: Any) -> str:
        """Render the items that a search finds."""
        recommender = self.recommender
        rows = self.table.search(str(query or "")[:200], FOUND, recommender.popular)
        if not rows:
            return notice("No item has all of these words in its title.")
        return small_cards(self.table, rows, action="add", cold=recommender.cold)

    def add(self, history: Sequence[int], row: Any, *settings: Any) -> tuple[list[int], str, str]:
        """Add an item at the end of the history, and render; an item in the history moves there.

        Args:
            history: rows of items, oldest first.
            row: the item; an unknown one becomes a notice.
            *settings: as for `show`.

        Returns:
            The history, and what `show` renders.
        """
        try:
            history = self.recommender.checked([*(old for old in history if old != row), row])
        except ValueError as error:
            return list(history), self.show(history, *settings)[0], notice(str(error))
        return history, *self.show(history, *settings)

    def remove(
        self, history: Sequence[int], place: Any, *settings: Any
    ) -> tuple[list[int], str, str]:
        """Remove the item at a place, and render; a place that does not exist changes nothing."""
        history = [row for index, row in enumerate(history) if index != place]
        return history, *self.show(history, *settings)


def _number(value: Any, what: str, whole: bool = False) -> Any:
    try:
        number = float(value)
        if number != number:
            raise ValueError
        return int(number) if whole and number == int(number) else number
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{what} must be a number.") from None


def _lay_out(content: Shown, k: int) -> Any:
    """Place the widgets and connect them."""
    import gradio

    recommender, histories, title = content
    page = Page(recommender)
    sources, own = recommender.sources, recommender.model.source_weights
    start = list(next(iter(histories.values()), []))
    shown = page.show(start, k, 0.0, True)
    about = [
        f"{recommender.num_items:,} items",
        f"backbone {recommender.model.backbone_name}",
        f"sources {', '.join(sources)}",
    ]
    if recommender.cold:
        about.insert(1, f"{len(recommender.cold):,} of them never seen in training")

    plain = {"js_on_load": None, "apply_default_css": False, "elem_classes": ["odmt"]}

    def html(value: str, **settings: Any) -> Any:
        return gradio.HTML(value, **{**plain, **settings})

    with gradio.Blocks(title=title, analytics_enabled=False) as blocks:
        html(
            f"<style>{STYLE}</style><header class='odmt-head'><h1>{escaped(title)}</h1>"
            f"<p>{escaped(' · '.join(about))}</p></header>"
        )
        state = gradio.State(start)
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=5, min_width=320):
                html(_step(1, "History", "oldest first, click to remove"))
                history = html(shown[0], js_on_load=_CLICKS, elem_id="odmt-history")
                with gradio.Row(elem_id="odmt-examples"):
                    buttons = [
                        gradio.Button(_short(name), size="sm", min_width=120) for name in histories
                    ]
                    clear = gradio.Button("Clear", size="sm", min_width=60, elem_id="odmt-clear")
                html(_step(2, "Pick items", "click to add"))
                query = gradio.Textbox(
                    show_label=False,
                    placeholder="Search in titles and ids",
                    max_lines=1,
                    container=False,
                    elem_id="odmt-search",
                )
                found = html(page.search(""), js_on_load=_CLICKS, elem_id="odmt-found")
            with gradio.Column(scale=8, min_width=320):
                html(_step(3, "Recommendations", "+ adds an item to the history"))
                with gradio.Accordion("Settings", open=False, elem_id="odmt-settings"):
                    with gradio.Row():
                        number = gradio.Slider(
                            1, MAX_K, k, step=1, label="Recommendations", min_width=140
                        )
                        diversity = gradio.Slider(
                            0, 1, 0, step=0.05, label="Diversity", min_width=140
                        )
                    with gradio.Row():
                        weights = [
                            gradio.Slider(
                                0,
                                max(MAX_WEIGHT, own[name]),
                                own[name],
                                step=0.05,
                                label=f"Weight of {name}",
                                min_width=140,
                            )
                            for name in (sources if len(sources) > 1 else ())
                        ]
                    use_id = gradio.Checkbox(
                        True,
                        label="Use the ID's source",
                        visible="id" in sources and len(sources) > 1,
                        elem_id="odmt-use-id",
                    )
                cards = html(shown[1], js_on_load=_CLICKS, elem_id="odmt-recommended")

        settings = [number, diversity, use_id, *weights]
        event = {"api_visibility": "private", "show_progress": "hidden"}

        def picked(clicked: gradio.EventData, rows: list[int], *chosen: Any) -> Any:
            return page.add(rows, getattr(clicked, "row", None), *chosen)

        def dropped(clicked: gradio.EventData, rows: list[int], *chosen: Any) -> Any:
            return page.remove(rows, getattr(clicked, "place", None), *chosen)

        def replaced(rows: list[int]) -> Any:
            return lambda *chosen: (list(rows), *page.show(rows, *chosen))

        outputs = [state, history, cards]
        found.click(picked, [state, *settings], outputs, **event)
        cards.click(picked, [state, *settings], outputs, **event)
        history.click(dropped, [state, *settings], outputs, **event)
        clear.click(replaced([]), settings, outputs, **event)
        for button, rows in zip(buttons, histories.values(), strict=True):
            button.click(replaced(rows), settings, outputs, **event)
        for widget in settings:
            widget.change(page.show, [state, *settings], [history, cards], **event)
        query.change(page.search, query, found, **event)
    return blocks


def _step(number: int, name: str, remark: str) -> str:
    return f"<div class='odmt-step'><i>{number}</i>{name} <small>{remark}</small></div>"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_EXAMPLE else f"{name[: LONGEST_EXAMPLE - 1]}…"

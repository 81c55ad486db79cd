"""Draws the diagrams of the documentation as SVG, by `python docs/diagrams.py`.

A diagram is a list of boxes and arrows at fixed positions. The files are in docs/images. The boxes
of the model name their file and link to the entry on the API page that shows the code.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
FILL = {
    "data": "#f1f3f5",
    "id": "#ffe8cc",
    "text": "#d3f9d8",
    "image": "#d0ebff",
    "shared": "#e5dbff",
    "loss": "#ffe3e3",
}
FONT = "font-family='system-ui, sans-serif'"


@dataclass(frozen=True)
class Box:
    """A box of a diagram: corner, width, text, colour, and the API entry that it links to."""

    x: int
    y: int
    width: int
    title: str
    details: tuple[str, ...] = ()
    kind: str = "data"
    link: str = ""

    @property
    def height(self) -> int:
        """Space for the title and one line per detail."""
        return 34 + 17 * len(self.details)

    def svg(self) -> str:
        """The box and its lines of text, within a link if the box has one."""
        middle = self.x + self.width // 2
        lines = [
            f"<rect x='{self.x}' y='{self.y}' width='{self.width}' height='{self.height}' rx='8' "
            f"fill='{FILL[self.kind]}' stroke='#495057'/>",
            f"<text x='{middle}' y='{self.y + 22}' text-anchor='middle' font-size='15' "
            f"font-weight='600' fill='#212529' {FONT}>{escape(self.title)}</text>",
        ]
        for number, detail in enumerate(self.details):
            lines.append(
                f"<text x='{middle}' y='{self.y + 41 + 17 * number}' text-anchor='middle' "
                f"font-size='12' fill='#495057' {FONT}>{escape(detail)}</text>"
            )
        if self.link:
            lines = [f"<a href='../api/#{self.link}'><title>{self.link}</title>", *lines, "</a>"]
        return "\n".join(lines)


def arrow(start: tuple[int, int], end: tuple[int, int], label: str = "", *, curve: int = 0) -> str:
    """An arrow between two points, bent sideways by `curve` points."""
    (x1, y1), (x2, y2) = start, end
    bend_x, bend_y = (x1 + x2) // 2 + curve, (y1 + y2) // 2
    drawn = (
        f"<path d='M {x1} {y1} Q {bend_x} {bend_y} {x2} {y2}' fill='none' stroke='#495057' "
        "stroke-width='1.6' marker-end='url(#tip)'/>"
    )
    if label:
        drawn += (
            f"\n<text x='{(x1 + x2) // 2 + curve // 2 + 6}' y='{bend_y - 5}' font-size='12' "
            f"fill='#495057' {FONT}>{escape(label)}</text>"
        )
    return drawn


def under(box: Box) -> tuple[int, int]:
    """The middle of the lower edge."""
    return box.x + box.width // 2, box.y + box.height


def above(box: Box) -> tuple[int, int]:
    """The middle of the upper edge, with room for the tip of an arrow."""
    return box.x + box.width // 2, box.y - 3


def picture(width: int, height: int, title: str, *drawn: str) -> str:
    """A whole SVG file."""
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
            f"role='img' aria-label='{escape(title, quote=True)}' style='max-width:{width}px'>",
            "<defs><marker id='tip' viewBox='0 0 10 10' refX='8' refY='5' markerWidth='7' "
            "markerHeight='7' orient='auto-start-reverse'>"
            "<path d='M 0 0 L 10 5 L 0 10 z' fill='#495057'/></marker></defs>",
            f"<rect width='{width}' height='{height}' rx='12' fill='#ffffff'/>",
            *drawn,
            "</svg>",
            "",
        ]
    )


def model() -> str:
    """Items to item encoder to one backbone per source to losses."""
    inputs = {
        "id": Box(40, 20, 200, "ID", ("a row of a table", "items/item_encoder.py"), "id",
                  "odmt_sdk.ItemEncoder"),
        "text": Box(280, 20, 200, "text tokens", ("from a frozen text encoder",
                    "features/features.py"), "text", "odmt_sdk.ItemFeatures"),
        "image": Box(520, 20, 200, "image tokens", ("from a frozen image encoder",
                     "features/features.py"), "image", "odmt_sdk.ItemFeatures"),
    }  # fmt: skip
    encoder = Box(
        40, 137, 680, "ID-aware multi-modal transformer",
        ("the ID token reads the content tokens; one head per source",
         "items/item_encoder.py, items/id_mask.py"), "shared", "odmt_sdk.ItemEncoder",
    )  # fmt: skip
    backbones = {
        name: Box(40 + 240 * number, 257, 200, "your backbone",
                  (f"a copy for the {name} source", "backbones/per_source.py"), name,
                  "odmt_sdk.backbones.SequenceBackbone")
        for number, name in enumerate(inputs)
    }  # fmt: skip
    logits = {
        name: Box(40 + 240 * number, 375, 200, f"{name} logits",
                  ("state x item embeddings", "wrapper.py"), name, "odmt_sdk.ODMTOutput")
        for number, name in enumerate(inputs)
    }  # fmt: skip
    cross = Box(
        40, 500, 320, "next-item loss of each source",
        ("in-batch softmax, logQ-corrected", "losses/in_batch.py"), "loss",
        "odmt_sdk.OnlineDistillationMixin",
    )  # fmt: skip
    distil = Box(
        400, 500, 320, "online distillation",
        ("the mean of the logits teaches each source", "losses/distillation.py"), "loss",
        "odmt_sdk.losses.distillation_loss",
    )  # fmt: skip
    drawn: list[str] = []
    for name, box in inputs.items():
        x = box.x + 100
        drawn += [
            arrow(under(box), (x, encoder.y - 3)),
            arrow((x, encoder.y + encoder.height), above(backbones[name])),
            arrow(under(backbones[name]), above(logits[name])),
            arrow(under(logits[name]), (180 + 20 * (list(inputs).index(name) - 1), cross.y - 3)),
            arrow(under(logits[name]), (580 + 20 * (list(inputs).index(name) - 1), distil.y - 3)),
        ]
    boxes = [*inputs.values(), encoder, *backbones.values(), *logits.values(), cross, distil]
    return picture(
        760, 588, "The model: items, one backbone per source, losses",
        *(box.svg() for box in boxes), *drawn,
    )  # fmt: skip


def teaching() -> str:
    """The teachers and students of the three named graphs."""
    drawn: list[str] = []
    for number, (name, edges) in enumerate(
        (
            ("paper", (("id", "text"), ("id", "image"), ("mean", "id"))),
            ("ensemble", (("mean", "id"), ("mean", "text"), ("mean", "image"))),
            ("mutual", (("text + image", "id"), ("id + image", "text"), ("id + text", "image"))),
        )
    ):
        left = 20 + 300 * number
        drawn.append(
            f"<text x='{left + 130}' y='30' text-anchor='middle' font-size='16' font-weight='600' "
            f"fill='#212529' {FONT}>teaching_graph=&quot;{name}&quot;</text>"
        )
        for row, (teacher, student) in enumerate(edges):
            kind = teacher if teacher in FILL else "shared"
            first = Box(left, 50 + 60 * row, 124, teacher, kind=kind)
            second = Box(left + 170, 50 + 60 * row, 84, student, kind=student)
            start = (first.x + first.width, first.y + 17)
            drawn += [first.svg(), second.svg(), arrow(start, (second.x - 3, start[1]))]
    return picture(890, 240, "Who teaches whom", *drawn)


def data_flow() -> str:
    """From tables and pictures to recommendations."""
    items = Box(20, 20, 200, "items table", ("id, text, image",), "data")
    events = Box(20, 150, 200, "interactions table", ("user, item, time",), "data")
    features = Box(270, 20, 200, "ItemFeatures", ("frozen tokens, by item id", "features/"), "text")
    split = Box(270, 150, 200, "leave_one_out", ("train, validation, test", "data/"), "image")
    wrapper = Box(520, 70, 200, "ODMTWrapper", ("your backbone inside", "wrapper.py"), "shared")
    fit = Box(520, 205, 200, "fit", ("train, select, test", "pipeline.py"), "loss")
    adapter = Box(770, 205, 200, "adapter", ("safetensors and JSON", "saving/"), "data")
    found = Box(770, 70, 200, "recommend", ("your item ids, scores", "retrieval/"), "id")

    def across(start: Box, end: Box) -> str:
        return arrow(
            (start.x + start.width, start.y + start.height // 2),
            (end.x - 3, end.y + end.height // 2),
        )

    drawn = [
        across(items, features), across(events, split), across(features, wrapper),
        across(split, fit), arrow(under(wrapper), above(fit)), across(fit, adapter),
        across(wrapper, found), arrow(above(adapter), (870, found.y + found.height + 3)),
    ]  # fmt: skip
    boxes = (items, events, features, split, wrapper, fit, adapter, found)
    return picture(990, 300, "From tables to recommendations", *(b.svg() for b in boxes), *drawn)


DIAGRAMS = {"model.svg": model, "teaching.svg": teaching, "data-flow.svg": data_flow}


def main() -> None:
    """Write all diagrams."""
    for name, draw in DIAGRAMS.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()

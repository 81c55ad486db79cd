"""`make_space`: a folder for a Hugging Face Space that serves the page."""

import base64
import importlib.metadata
import json
import os
import shutil
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from odmt_sdk.demo.page import import_gradio, read_shown
from odmt_sdk.paths import user_path
from odmt_sdk.tables import Table
from odmt_sdk.wrapper import ODMTWrapper

_CARD = """---
title: {quoted}
emoji: 🛍️
colorFrom: blue
colorTo: green
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
license: {license}
short_description: Recommendations from IDs, texts and pictures
---

# {title}

Pick a history, and see what the model recommends, what each source adds to the score, and which
items training has never seen. The page is made by [ODMT SDK](https://arxiv.org/abs/2308.04067).
It needs no GPU, loads nothing from other servers, and has no telemetry.

To run it on your own machine: `pip install -r requirements.txt "gradio=={gradio}"` and
`python app.py`.
"""

_APP = '''"""Serves the page of this Space; `python app.py` serves it on your own machine."""

import json
import os
from pathlib import Path

from odmt_sdk.demo import launch

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    launch(
        HERE / "adapter",
        HERE / "items.jsonl",
        HERE / "images",
        examples=json.loads((HERE / "examples.json").read_text(encoding="utf-8")),
        title={title!r},
        # a Space is reached from outside its container
        host="0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1",
        port=int(os.environ.get("PORT", "7860")),
    )
'''

_PACKAGE = Path(__file__).parent.parent


def make_space(
    folder: str | os.PathLike[str],
    model: ODMTWrapper | str | Path | None = None,
    items: Table | None = None,
    image_folder: str | os.PathLike[str] | None = None,
    *,
    title_column: str | None = None,
    image_column: str = "image",
    examples: Mapping[str, Sequence[Hashable]] | None = None,
    title: str | None = None,
    license: str = "apache-2.0",
    loading: Mapping[str, Any] | None = None,
) -> Path:
    """Make a folder for a Hugging Face Space that shows a model in the browser, see `build`.

    The folder holds the program `app.py`, its requirements, the description of the Space, the
    adapter, titles and thumbnails of the items, examples, and the source of this package. Nothing
    is uploaded. `python folder/app.py` serves the same page on this machine, without a network.

    Args:
        folder: the folder to create; if it exists, it must be empty.
        model: a model, or a path, repository or "shipped:..."; None = a small drawn shop. Its
            backbone must be built in, so that the Space can create it.
        items: table with `item_id`, and titles and pictures if there are any.
        image_folder: folder of the pictures.
        title_column: column of the titles; None = "title", "text" or "name".
        image_column: column of the pictures.
        examples: name -> item ids of a history to begin with.
        title: name of the Space.
        license: license identifier of adapter and items on the Hub, such as "mit" or "other".
        loading: further arguments of `from_pretrained`.

    Returns:
        The folder.

    Raises:
        FileExistsError: if the folder is not empty.
        ValueError: as `build`.
        AdapterError: if the adapter cannot be loaded or saved.
        ImportError: if Gradio is not installed (`pip install odmt-sdk[demo]`).

    Examples:
        >>> make_space("my-space", "my-adapter", "items.parquet", "images")  # doctest: +SKIP
    """
    gradio = import_gradio()
    folder = user_path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists: remove it, or choose another folder")
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
    images = folder / "images"
    images.mkdir(parents=True)
    table, vocabulary = shown.recommender.table, shown.recommender.table.vocabulary
    shown.recommender.model.save_pretrained(folder / "adapter")
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        for row, item_id in enumerate(vocabulary, start=1):
            entry = {"item_id": item_id, "title": table.titles[row]}
            if picture := table.picture(row):
                entry["image"] = f"{row:07d}.jpg"
                data = base64.b64decode(picture.partition(",")[2])
                (images / f"{row:07d}.jpg").write_bytes(data)
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    histories = {name: list(vocabulary.ids(rows)) for name, rows in shown.histories.items()}
    needed = [
        requirement
        for requirement in importlib.metadata.requires("odmt-sdk") or ()
        if "extra ==" not in requirement
    ]
    words = {
        "title": shown.title,
        "quoted": json.dumps(shown.title, ensure_ascii=False),
        "license": license,
        "gradio": gradio.__version__,
    }
    texts = {
        "README.md": _CARD.format(**words),
        "app.py": _APP.format(**words),
        "examples.json": json.dumps(histories, ensure_ascii=False, indent=1),
        "requirements.txt": "\n".join(needed) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copytree(
        _PACKAGE,
        folder / _PACKAGE.name,
        ignore=shutil.ignore_patterns("__pycache__", "pretrained"),
    )
    return folder

"""A small catalogue with missing content, and its features on disk."""

from pathlib import Path

from tiny_encoders import pictures as draw_pictures

from odmt_sdk import ItemFeatures

COUNT = 23


def make_items(count: int = COUNT, start: int = 0) -> dict[str, list]:
    """Create items: every fifth without a title, every fourth without an image, a broken one."""
    positions = range(start, start + count)
    words = "red blue wool silk scarf hat long short".split()  # noqa: SIM905
    titles = [" ".join(words[: 1 + i % 8]) if i % 5 else None for i in positions]
    drawn = draw_pictures(start + count)[start:]
    images = [drawn[n] if i % 4 else None for n, i in enumerate(positions)]
    items = {"item_id": [f"item-{i}" if i % 2 else i for i in positions], "text": titles}
    return {**items, "image": [b"broken" if i == 6 else images[i - start] for i in positions]}


def store(items, path, **arguments):
    settings = {"shard_items": 4, "progress": False, "text_batch_size": 3, **arguments}
    return ItemFeatures.from_items(items, path=path, **settings)


def content(folder: Path) -> dict[str, bytes]:
    """Return the files of a store, except its moments."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "moments.safetensors"
    }

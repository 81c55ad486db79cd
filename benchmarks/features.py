"""What features cost: making them, training from disk, and memory as the catalogue grows.

    python benchmarks/features.py
    python benchmarks/features.py --data ml-100k-posters --text-encoder all-MiniLM-L6-v2 \
        --image-encoder mobilenet-v2

`--data` is a folder with `items.parquet` (item_id, title, ...) and `images/<item_id>.jpg`; without
it, a shop is drawn and encoders are tiny. Both sides of a ratio do the same work and alternate in
one run; the ratio is the median over pairs. Nothing is asserted but that both sides agree.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from odmt_sdk import ItemFeatures, ODMTWrapper, SASRec, make_shop
from odmt_sdk.items.encoders import load_encoder
from odmt_sdk.items.image_tokens import extract_image_tokens
from odmt_sdk.items.text_tokens import extract_text_tokens
from odmt_sdk.items.tiny_encoders import tiny_image_encoder, tiny_text_encoder
from odmt_sdk.tables import read_columns


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int) -> tuple[float, str]:
    """Median of their time over ours, and both medians in milliseconds."""
    times: list[list[float]] = [[], []]
    for sides in [(ours, theirs)] * (pairs + 1):
        for side, run in enumerate(sides):
            start = time.perf_counter()
            run()
            times[side].append(time.perf_counter() - start)
    ours_s, theirs_s = (side[1:] for side in times)  # the first pair warms up
    ratio = statistics.median(t / o for o, t in zip(ours_s, theirs_s, strict=True))
    each = [f"{1000 * statistics.median(side):,.1f} ms" for side in (ours_s, theirs_s)]
    return ratio, " against ".join(each)


def load(options: argparse.Namespace, folder: Path) -> tuple[list[str], list[Path]]:
    """Titles and pictures."""
    if options.data:
        table = read_columns(options.data / "items.parquet", ["item_id", "title"])
        titles = table["title"].tolist()[: options.items]
        there = [options.data / "images" / f"{item_id}.jpg" for item_id in table["item_id"]]
        return titles, [path for path in there if path.exists()][: options.items]
    shop = make_shop(num_items=max(50, options.items), num_users=5)
    paths = [folder / f"{number}.png" for number in range(options.items)]
    for path, picture in zip(paths, shop.items["image"], strict=False):
        picture.resize((300, 300)).save(path)
    return shop.items["title"][: options.items], paths


def text_extraction(titles: list[str], encoder: Any, pairs: int) -> str:
    """Sentence embeddings by `from_items`'s extraction and by sentence-transformers' `encode`."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return "text: sentence-transformers is not installed"
    if not isinstance(encoder, str):
        return "text: give --text-encoder, a folder, to compare with sentence-transformers"
    library = SentenceTransformer(encoder, device="cpu").float()
    library.max_seq_length = 29

    def ours() -> torch.Tensor:
        return extract_text_tokens(
            titles, library, max_tokens=29, pooled_only=True, progress=False
        ).tokens[:, 0]

    def theirs() -> torch.Tensor:
        return library.encode(
            titles, batch_size=64, convert_to_tensor=True, show_progress_bar=False
        )

    torch.testing.assert_close(ours(), theirs(), rtol=1e-3, atol=1e-4)
    ratio, each = paired(ours, theirs, pairs)
    return f"text: {ratio:.2f} times sentence-transformers ({len(titles)} titles, {each})"


def picture_extraction(paths: list[Path], encoder: Any, pairs: int, workers: int | None) -> str:
    """Tokens of pictures by `from_items`'s extraction, and by a loop over the pictures."""
    from PIL import Image

    model, processor = load_encoder(encoder, "image", "cpu")[:2]
    model.eval()

    def ours() -> torch.Tensor:
        settings = {"num_workers": workers, "pooling": "mean", "progress": False}
        return extract_image_tokens(paths, (model, processor), **settings).tokens[:, 1:]

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        found = []
        for path in paths:
            pixels = processor(images=[Image.open(path).convert("RGB")], return_tensors="pt")
            state = model(**pixels).last_hidden_state
            found.append(state.flatten(2).transpose(1, 2) if state.ndim == 4 else state)
        return torch.cat(found)

    torch.testing.assert_close(ours(), theirs(), rtol=1e-2, atol=1e-3)
    ratio, each = paired(ours, theirs, pairs)
    return f"pictures: {ratio:.2f} times a plain loop ({len(paths)} pictures, {each})"


def synthetic(path: Path, count: int) -> ItemFeatures:
    """A store of random vectors, 8 tokens of 64 values an item, made in blocks."""
    block = 100_000
    for start in range(0, count, block):
        ids = range(start, min(count, start + block))
        vectors = torch.randn(
            len(ids), 8, 64, generator=torch.Generator().manual_seed(start)
        ).half()
        ItemFeatures.from_items(
            {"item_id": ids}, arrays={"content": vectors}, path=path, progress=False
        )
    return ItemFeatures.open(path)


def training_step(features: ItemFeatures) -> Callable[[int], None]:
    """A function that makes one training step on random users."""
    torch.manual_seed(0)
    model = ODMTWrapper(SASRec(64, max_seq_length=12), features)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(number: int) -> None:
        users = torch.Generator().manual_seed(number)
        loss = model(torch.randint(1, features.num_items + 1, (64, 13), generator=users)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def training(folder: Path, pairs: int) -> str:
    """Steps that read their rows from disk, and from a tensor."""
    stored = synthetic(folder / "training", 10_000)
    in_memory = ItemFeatures(stored.vocabulary, {"content": stored["content"]})
    numbers = iter(range(10**6)), iter(range(10**6))
    steps = training_step(stored), training_step(in_memory)
    ratio, each = paired(
        lambda: steps[0](next(numbers[0])), lambda: steps[1](next(numbers[1])), 10 * pairs
    )
    return f"training steps from disk: {100 / ratio - 100:+.1f} % of those in memory ({each})"


MEMORY = """
import sys
from pathlib import Path
import torch
from odmt_sdk import ItemFeatures

def resident(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024

before = resident("RssAnon")
features = ItemFeatures.open(sys.argv[1])
for number in range(200):
    rows = torch.randint(1, features.num_items + 1, (800,))
    features.gather(rows)
print(f"{resident('RssAnon') - before:.0f} {resident('RssFile'):.0f}")
"""


def memory(folder: Path, counts: list[int]) -> list[str]:
    """Memory of a process that opens a store and reads 200 batches of it."""
    lines = []
    for count in counts:
        synthetic(folder / "memory", count)
        size = sum(path.stat().st_size for path in (folder / "memory").rglob("*") if path.is_file())
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(folder / "memory")],
            capture_output=True,
            text=True,
            check=True,
        )
        own, mapped = done.stdout.split()
        lines.append(
            f"memory at {count:,} items: {size / 2**20:,.0f} MB on disk, {own} MB of its own, "
            f"{mapped} MB mapped, which the system takes back when it needs it"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--text-encoder")
    parser.add_argument("--image-encoder")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--workers", type=int, help="processes that read pictures")
    parser.add_argument("--catalogues", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        titles, paths = load(options, folder)
        text_encoder = options.text_encoder or tiny_text_encoder(titles)
        image_encoder = options.image_encoder or tiny_image_encoder(image_size=224)
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        print(text_extraction(titles, text_encoder, options.pairs), flush=True)
        print(picture_extraction(paths, image_encoder, options.pairs, options.workers), flush=True)
        print(training(folder, options.pairs), flush=True)
        for line in memory(folder, options.catalogues):
            print(line, flush=True)


if __name__ == "__main__":
    main()

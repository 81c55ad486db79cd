"""Cost of features: extraction, training from disk, and memory as the catalogue grows.

    python benchmarks/features/features.py
    python benchmarks/features/features.py text pictures --data ml-100k-posters --threads 1 2 \
        --text-encoder all-MiniLM-L6-v2 --image-encoder mobilenet-v2
    python benchmarks/features/features.py memory --catalogues 10000 100000 1000000

`--data` is a folder with `items.parquet` (item_id, title, ...) and `images/<item_id>.jpg`. Without
it, the data are random and the encoders tiny. Both sides of a ratio do the same work and alternate
in one run; the ratio is the median over pairs. `--clock cpu` measures CPU time, for machines with
other load. The only assertion is that both sides agree.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from odmt_sdk import ItemFeatures, ODMTWrapper, SASRec, make_shop, register_modality
from odmt_sdk.data import read_columns
from odmt_sdk.features import EncodedBatch, ImageExtractor
from odmt_sdk.toy_shop import tiny_image_encoder, tiny_text_encoder

PARTS = ("text", "pictures", "training", "memory")
PRECISIONS = ("float32", "auto")
TOKENS, WIDTH = 8, 64  # of an item of the drawn catalogues
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def paired(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    pairs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, str]:
    """Median ratio of their time to ours, and both median times in milliseconds."""
    times: list[list[float]] = [[], []]
    for sides in [(ours, theirs)] * (pairs + 1):
        for side, run in enumerate(sides):
            start = clock()
            run()
            times[side].append(clock() - start)
    ours_s, theirs_s = (side[1:] for side in times)  # the first pair is the warm-up
    ratio = statistics.median(t / o for o, t in zip(ours_s, theirs_s, strict=True))
    each = [f"{1000 * statistics.median(side):,.1f} ms" for side in (ours_s, theirs_s)]
    return ratio, " against ".join(each)


def load(options: argparse.Namespace, folder: Path) -> tuple[list[str], list[Path]]:
    """Load the titles and the paths of the pictures."""
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


def text_extraction(titles: list[str], encoder: Any, options: argparse.Namespace) -> Iterator[str]:
    """Compare text extraction by `from_items` with `encode` of sentence-transformers."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        yield "text: sentence-transformers is not installed"
        return
    if not isinstance(encoder, str):
        yield "text: give --text-encoder, a folder, to compare with sentence-transformers"
        return
    library = SentenceTransformer(encoder, device="cpu").float()
    library.max_seq_length = 29

    def ours(precision: str) -> torch.Tensor:
        features = ItemFeatures.from_items(
            {"item_id": range(len(titles)), "text": titles},
            text_encoder=library,
            max_text_tokens=29,
            text_pooled_only=True,
            dtype=torch.float32,
            precision=precision,
            progress=False,
        )
        return features["text"].tokens[1:, 0]

    def theirs() -> torch.Tensor:
        return library.encode(
            titles, batch_size=64, convert_to_tensor=True, show_progress_bar=False
        )

    expected = theirs()
    torch.testing.assert_close(ours("float32"), expected, rtol=1e-3, atol=1e-4)
    for precision in PRECISIONS:
        away = difference(ours(precision), expected)
        ratio, each = paired(
            lambda precision=precision: ours(precision), theirs, options.pairs, options.clock
        )
        yield (
            f"text, {precision}: {ratio:.2f} times sentence-transformers in float32 "
            f"({len(titles)} titles, {each}; {away})"
        )


def difference(found: torch.Tensor, expected: torch.Tensor) -> str:
    """Relative error and cosine similarity of vectors (N, ..., d) to the expected ones."""
    relative = (found - expected).norm() / expected.norm()
    cosine = torch.cosine_similarity(found, expected, dim=-1)
    return f"differs by {100 * relative:.1f} %, mean cosine {cosine.mean():.4f}"


def picture_extraction(
    paths: list[Path], encoder: Any, options: argparse.Namespace
) -> Iterator[str]:
    """Compare image extraction by `from_items` with a loop over the pictures."""
    from PIL import Image

    loaded = ImageExtractor(encoder, device="cpu").encoder
    model, processor = loaded.model.eval(), loaded.processor

    def ours(precision: str) -> torch.Tensor:
        features = ItemFeatures.from_items(
            {"item_id": range(len(paths)), "image": paths},
            image_encoder=(model, processor),
            image_pooling="mean",
            num_workers=options.workers,
            dtype=torch.float32,
            precision=precision,
            progress=False,
        )
        return features["image"].tokens[1:, 1:]

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        found = []
        for path in paths:
            pixels = processor(images=[Image.open(path).convert("RGB")], return_tensors="pt")
            state = model(**pixels).last_hidden_state
            found.append(state.flatten(2).transpose(1, 2) if state.ndim == 4 else state)
        return torch.cat(found)

    expected = theirs()
    torch.testing.assert_close(ours("float32"), expected, rtol=1e-2, atol=1e-3)
    for precision in PRECISIONS:
        away = difference(ours(precision).mean(1), expected.mean(1))
        ratio, each = paired(
            lambda precision=precision: ours(precision), theirs, options.pairs, options.clock
        )
        yield (
            f"pictures, {precision}: {ratio:.2f} times a plain loop in float32 "
            f"({len(paths)} pictures, {each}; the mean token {away})"
        )


@register_modality("content")
class Drawn:
    """An extractor that returns random tokens for all items of a file at once."""

    unit = "content"

    def __init__(self, encoder: str) -> None:
        self.provenance = {"encoder": encoder}

    def encode(
        self, values: Mapping[int, Any], groups: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, EncodedBatch]]:
        for group, rows in enumerate(groups):
            tokens = torch.randn(
                len(rows), TOKENS, WIDTH, generator=torch.Generator().manual_seed(rows[0])
            )
            lengths = torch.full((len(rows),), TOKENS)
            yield group, EncodedBatch(list(rows), tokens, lengths, {})


def synthetic(path: Path, count: int) -> ItemFeatures:
    """A store of random vectors, written by the package's own writer."""
    return ItemFeatures.from_items(
        {
            "item_id": [f"item-{number}" for number in range(count)],
            "content": list(range(count)),
        },
        encoders={"content": "drawn at random"},
        path=path,
        progress=False,
    )


def training_step(features: ItemFeatures) -> Callable[[int], None]:
    """Return a function that runs one training step on random users."""
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
    """Compare training steps that read rows from disk with steps that read from a tensor."""
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
from odmt_sdk import ItemFeatures, LazyAdamW, ODMTConfig, ODMTWrapper, SASRec

def resident(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024

torch.manual_seed(0)
before = resident("RssAnon")
features = ItemFeatures.open(sys.argv[1])
config = ODMTConfig(sparse_id_gradients=True)
model = ODMTWrapper(SASRec(64, max_seq_length=12), features, config)
optimizer = LazyAdamW(model.parameters(), lr=1e-3)
for _ in range(int(sys.argv[2])):
    loss = model(torch.randint(1, features.num_items + 1, (64, 13))).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
table = model.item_encoder.id_embedding.weight
tensors = [table, *optimizer.state[table].values()]
learnt = sum(t.numel() * t.element_size() for t in tensors if torch.is_tensor(t)) / 2**20
print(f"{resident('RssAnon') - before:.0f} {learnt:.0f} {resident('RssFile'):.0f}")
"""


def memory(folder: Path, counts: list[int], steps: int) -> Iterator[str]:
    """Measure the memory of a process that trains on a feature store."""
    for count in counts:
        store = folder / f"memory-{count}"
        synthetic(store, count)
        size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(store), str(steps)],
            capture_output=True,
            text=True,
            check=True,
        )
        own, learnt, mapped = map(int, done.stdout.split())
        yield (
            f"memory at {count:,} items after {steps} steps: {size / 2**20:,.0f} MB on disk; "
            f"{own:,} MB of its own, of which the table of IDs and its optimizer states "
            f"are {learnt:,} MB at most; {mapped:,} MB mapped, which the system takes back when "
            "it needs it"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="*", default=PARTS, help=", ".join(PARTS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--text-encoder")
    parser.add_argument("--image-encoder")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--workers", type=int, help="processes that read pictures")
    parser.add_argument("--threads", type=int, nargs="*", default=[torch.get_num_threads()])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--catalogues", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=200, help="before memory is measured")
    options = parser.parse_args()
    options.clock = CLOCKS[options.clock]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for threads in options.threads:
            torch.set_num_threads(threads)
            print(f"torch {torch.__version__}, {threads} threads", flush=True)
            for line in measured(folder, options):
                print(line, flush=True)
        if "memory" in options.part:
            for line in memory(folder, options.catalogues, options.steps):
                print(line, flush=True)


def measured(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    """Run the paired comparisons."""
    titles, paths = load(options, folder)
    if "text" in options.part:
        encoder = options.text_encoder or tiny_text_encoder(titles)
        yield from text_extraction(titles, encoder, options)
    if "pictures" in options.part:
        encoder = options.image_encoder or tiny_image_encoder(image_size=224)
        yield from picture_extraction(paths, encoder, options)
    if "training" in options.part:
        yield training(folder, options.pairs)


if __name__ == "__main__":
    main()

"""Train the adapters that come with the package, on films with texts and posters.

Every adapter is trained once per seed; `metrics.json` keeps what each run found. A run that is
there already is not repeated, and one that was stopped, or is to have more epochs, goes on from its
last epoch. Those of the first seed are the ones to ship: copy their folders to
`odmt_sdk/shipped_adapters`.

    python benchmarks/train_adapters.py --data FOLDER --text-encoder DIR --image-encoder DIR
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from film_data import ENCODERS, film_features, film_interactions, split_in_windows
from film_texts import VERSIONS, VariedTexts, VaryWhileTraining
from torch import nn

from odmt_sdk import GRU4Rec, ODMTConfig, ODMTWrapper, SASRec, evaluate, fit
from odmt_sdk.data.splits import Split

HIDDEN_SIZE = 64
POSITIONS = 50
# Content learns to stand alone, text without a picture too: for new films, and other catalogues.
HIDDEN = {"id_dropout": 0.5, "modality_dropout": 0.2}
KEPT = ("hit_rate@10", "ndcg@10", "hit_rate@20", "ndcg@20")
SETTINGS: dict[str, Any] = {"batch_size": 32, "learning_rate": 2e-3, "epochs": 10, "patience": 10}
DATASET = "MovieLens-1M with texts and posters"
TERMS = (
    "Trained on MovieLens-1M, which is for research and not for commercial use, and asks to be "
    "acknowledged: F. Maxwell Harper and Joseph A. Konstan, 2015, The MovieLens Datasets: History "
    "and Context, https://doi.org/10.1145/2827872. The adapter holds learned weights and, where it "
    "recommends by them, film ids (MovieLens movieId, as strings); no texts, pictures, users or "
    "ratings. Its films are from before 2001, its users of the year 2000. The last two events of "
    "each user were not trained on: the second last chose the epoch, the last is the test."
)
PREPARE = (
    "Its features are one token a modality, standardized over the catalogue: "
    f'`ItemFeatures.from_items(films, text_encoder="{ENCODERS["text"]}", text_pooling="mean", '
    f'text_pooled_only=True, max_text_tokens=128, image_encoder="{ENCODERS["image"]}", '
    "max_image_tokens=1).standardize()`, where a text is the title with its year, then the genres, "
    "and people and plot where they are known."
)


@dataclass(frozen=True)
class Recipe:
    """How one adapter is made.

    Args:
        title: what it is for.
        backbone: makes its backbone.
        content: adapter that holds the same model without what belongs to single films, and what
            that one is for.
    """

    title: str
    backbone: Callable[[], nn.Module]
    content: tuple[str, str] | None = None


RECIPES = {
    "films-sasrec": Recipe(
        "Recommends films by their MovieLens id",
        lambda: SASRec(HIDDEN_SIZE, max_seq_length=POSITIONS),
        content=("films-content", "Starts a catalogue of other films"),
    ),
    "films-gru4rec": Recipe("The same with a recurrent backbone", lambda: GRU4Rec(HIDDEN_SIZE)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text-encoder", default=ENCODERS["text"], help="folder or Hub name")
    parser.add_argument("--image-encoder", default=ENCODERS["image"], help="folder or Hub name")
    parser.add_argument("--adapters", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=SETTINGS["epochs"])
    parser.add_argument("--features", type=Path, default=Path("outputs/features"))
    parser.add_argument("--output", type=Path, default=Path("outputs/adapters"))
    arguments = parser.parse_args()

    encoders = {"text": arguments.text_encoder, "image": arguments.image_encoder}
    whole = film_features(arguments.data, encoders, arguments.features).standardize()
    split, whole = split_in_windows(film_interactions(arguments.data), whole, POSITIONS)
    # Another catalogue may tell less of a film, and is standardized by what it tells.
    versions = [
        film_features(arguments.data, encoders, arguments.features, shorten=shorten)
        for shorten in VERSIONS
    ]
    features = VariedTexts(
        whole, [version.standardize().select(whole.vocabulary) for version in versions]
    )
    settings = {**SETTINGS, "epochs": arguments.epochs}
    for seed in arguments.seeds:
        for name in arguments.adapters:
            folder = arguments.output / name / f"seed-{seed}"
            found = folder / "metrics.json"
            done = json.loads(found.read_text())["settings"]["epochs"] if found.exists() else 0
            if done < arguments.epochs:
                metrics = train(name, split, features, seed, folder, settings)
                found.write_text(json.dumps(metrics, indent=1) + "\n")
            print(name, seed, found.read_text(), flush=True)


def train(
    name: str,
    split: Split,
    features: VariedTexts,
    seed: int,
    folder: Path,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Train one adapter and save it, and its content part, in folders of their names.

    Args:
        name: of the recipe.
        split: to train and measure on.
        features: of its films.
        seed: of the weights, the batches and dropout.
        folder: for the adapters, and what training writes.
        settings: of `fit`.

    Returns:
        Adapter -> validation and test metrics; and the settings.
    """
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    config = ODMTConfig(max_seq_length=POSITIONS, **HIDDEN)
    model = ODMTWrapper(recipe.backbone(), features, config, check=False)
    result = fit(
        model,
        split,
        folder / "training",
        seed=seed,
        resume=True,
        k=(10, 20),
        callbacks=[VaryWhileTraining(features)],
        disable_tqdm=True,
        **settings,
    )
    model.card.training["seed"] = str(seed)
    found = {name: save(model, name, recipe.title, folder, vars(result))}
    if recipe.content is not None:
        other, title = recipe.content
        model.save_pretrained(folder / other, content_only=True)
        # measured as it will be used: no film has an ID
        loaded = ODMTWrapper.from_pretrained(
            folder / other, item_features=features.features, transfer=True
        )
        results = {
            part: evaluate(loaded, getattr(split, part), k=(10, 20), progress=False)
            for part in ("validation", "test")
        }
        found[other] = save(model, other, title, folder, results)
    return {**found, "best_epoch": result.best_epoch, "settings": {**settings, **config.to_dict()}}


def save(
    model: ODMTWrapper, name: str, title: str, folder: Path, results: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Save an adapter with its card.

    Args:
        model: trained.
        name: of the adapter; without its items if it is the content part.
        title: what it is for.
        folder: to save it in.
        results: "validation" and "test" -> metrics.

    Returns:
        The metrics that the card tells.
    """
    kept = {
        part: {key: value for key, value in results[part].items() if key.endswith(KEPT)}
        for part in ("validation", "test")
    }
    card = model.card
    card.title, card.dataset, card.license, card.language = title, DATASET, "other", "en"
    card.description, card.limits = PREPARE, TERMS
    card.results.clear()
    card.results.update(kept)
    content_only = name not in RECIPES
    if content_only:
        card.description += (
            " Results are those of a catalogue of the same films in which no film has an ID."
        )
    model.save_pretrained(folder / name, content_only=content_only, repo_id=f"shipped:{name}")
    return kept


if __name__ == "__main__":
    main()

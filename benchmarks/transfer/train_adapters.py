"""Train the adapters shipped with the package, on films or on wines.

Every adapter is trained once per seed; `metrics.json` contains the results of each run. A finished
run is not repeated. A run that was stopped, or that is given more epochs, resumes after its last
epoch. The adapters of the first seed are shipped: copy their folders to `odmt_sdk/pretrained`.

    python benchmarks/transfer/train_adapters.py --data ml-1m-posters \\
        --text-encoder DIR --image-encoder DIR
    python benchmarks/transfer/train_adapters.py --domain wines --data xwines --text-encoder DIR
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

import torch
from film_data import ENCODERS, film_features, film_interactions
from torch import nn

from odmt_sdk import (
    GRU4Rec,
    Interactions,
    ItemFeatures,
    ODMTConfig,
    ODMTWrapper,
    SASRec,
    evaluate,
    fit,
    leave_one_out,
)
from odmt_sdk.data import Split
from transfer.item_texts import FILM_VERSIONS, WINE_VERSIONS, VariedTexts, VaryWhileTraining

HIDDEN_SIZE = 64
POSITIONS = 50
KEPT = ("hit_rate@10", "ndcg@10", "hit_rate@20", "ndcg@20")


@dataclass(frozen=True)
class Domain:
    """Settings of all adapters of a data set.

    Args:
        dataset: name of the data set in the model card.
        license: of the adapters.
        terms: terms and limits in the model card.
        prepare: how to extract features, in the model card.
        modalities: modalities of the items.
        versions: functions that shorten the texts that content adapters are trained on.
        hidden: dropout of IDs and modalities in content adapters, which prepares them for new items
            and for catalogues without pictures.
        fitting: arguments of `fit`.
    """

    dataset: str
    license: str
    terms: str
    prepare: str
    modalities: tuple[str, ...]
    versions: tuple[Callable[[str], str], ...]
    hidden: dict[str, float]
    fitting: dict[str, Any]


def _prepare(items: str, pictures: bool, text: str) -> str:
    image = f', image_encoder="{ENCODERS["image"]}", max_image_tokens=1' if pictures else ""
    return (
        f"Its features are one token a modality, standardized over the catalogue: "
        f'`ItemFeatures.from_items({items}, text_encoder="{ENCODERS["text"]}", '
        f'text_pooling="mean", text_pooled_only=True, max_text_tokens=128{image}).standardize()`, '
        f"where a text is {text}."
    )


HELD_OUT = (
    "The last two events of each user were not trained on: the second last chose the epoch, the "
    "last is the test."
)
DOMAINS = {
    "films": Domain(
        dataset="MovieLens-1M with texts and posters",
        license="other",
        terms="Trained on MovieLens-1M, which is for research and not for commercial use, and asks "
        "to be acknowledged: F. Maxwell Harper and Joseph A. Konstan, 2015, The MovieLens "
        "Datasets: History and Context, https://doi.org/10.1145/2827872. The adapter holds learned "
        "weights and, where it recommends by them, film ids (MovieLens movieId, as strings); no "
        "texts, pictures, users or ratings. Its films are from before 2001, its users of the year "
        f"2000. {HELD_OUT}",
        prepare=_prepare(
            "films",
            True,
            "the title with its year, then the genres, and people and plot where they are known",
        ),
        modalities=("text", "image"),
        versions=FILM_VERSIONS,
        hidden={"id_dropout": 0.5, "modality_dropout": 0.2},
        fitting={
            "learning_rate": 2e-3,
            "item_to_item": False,  # counts are data, and the films' may not be published
        },
    ),
    "wines": Domain(
        dataset="X-Wines Slim",
        license="cc0-1.0",
        terms="Trained on X-Wines Slim (CC0 1.0), whose authors ask for citation: Rogério Xavier "
        "de Azambuja, A. Jorge Morais and Vítor Filipe, 2023, X-Wines: A Wine Dataset for "
        "Recommender Systems and Machine Learning, Big Data and Cognitive Computing 7(1), 20, "
        "https://doi.org/10.3390/bdcc7010020. The adapter holds learned weights and, where it "
        "recommends by them, wine ids (WineID, as strings) and how often wines follow each other; "
        "no texts and no users. All ratings count as events, whether high or low; they are of the "
        "years 2012 to 2021. "
        f"{HELD_OUT}",
        prepare=_prepare(
            "wines",
            False,
            "the name, type, winery, region and country of a wine, and its grapes, body, acidity, "
            "alcohol and food where they are known, as in the items of `load_wines()`",
        ),
        modalities=("text",),
        versions=WINE_VERSIONS,
        hidden={"id_dropout": 0.5},
        fitting={"learning_rate": 2e-3},
    ),
}


@dataclass(frozen=True)
class Recipe:
    """Recipe for one adapter.

    Args:
        domain: the data.
        title: purpose of the adapter.
        backbone: creates the backbone.
        epochs: epochs of training at most.
        content_only: whether it is saved without the parts that belong to individual items, as a
            start for another catalogue.
    """

    domain: str
    title: str
    backbone: Callable[[], nn.Module]
    epochs: float
    content_only: bool = False


def _sasrec() -> nn.Module:
    return SASRec(HIDDEN_SIZE, max_seq_length=POSITIONS)


RECIPES = {
    "films-sasrec": Recipe("films", "Recommends films by their MovieLens id", _sasrec, 26),
    "films-gru4rec": Recipe(
        "films", "The same with a recurrent backbone", lambda: GRU4Rec(HIDDEN_SIZE), 26
    ),
    "films-content": Recipe("films", "Starts a catalogue of other films", _sasrec, 10, True),
    "wines-sasrec": Recipe("wines", "Recommends wines by their X-Wines id", _sasrec, 60),
    "wines-content": Recipe("wines", "Starts a catalogue of other wines", _sasrec, 10, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text-encoder", default=ENCODERS["text"], help="folder or Hub name")
    parser.add_argument("--image-encoder", default=ENCODERS["image"], help="folder or Hub name")
    parser.add_argument("--domain", default="films", choices=list(DOMAINS), help="what DATA is")
    parser.add_argument("--adapters", nargs="+", choices=list(RECIPES), help="default: its all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, help="default: as shipped")
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    parser.add_argument("--features", type=Path, default=Path("outputs/features"))
    parser.add_argument("--output", type=Path, default=Path("outputs/adapters"))
    arguments = parser.parse_args()

    domain = DOMAINS[arguments.domain]
    names = [name for name, recipe in RECIPES.items() if recipe.domain == arguments.domain]
    if foreign := sorted(set(arguments.adapters or ()) - set(names)):
        parser.error(f"{foreign} are not made of {arguments.domain}; these are: {names}")
    encoders = {"text": arguments.text_encoder, "image": arguments.image_encoder}
    encoders = {modality: encoders[modality] for modality in domain.modalities}
    whole = film_features(arguments.data, encoders, arguments.features)
    if arguments.domain == "films":
        interactions = film_interactions(arguments.data)
        whole = whole.select(interactions.item_ids)
    else:  # every item has many events; all of them are recommended
        interactions = Interactions.from_table(arguments.data / "interactions.parquet")
        interactions = interactions.min_length(5)
    whole = whole.standardize()
    split = leave_one_out(interactions, vocabulary=whole.vocabulary, max_seq_length=POSITIONS)

    def varied() -> VariedTexts:
        # Other catalogues may have shorter texts and are standardized with their own statistics, so
        # each version is standardized separately.
        versions = [
            film_features(arguments.data, encoders, arguments.features, shorten=shorten)
            for shorten in domain.versions
        ]
        return VariedTexts(
            whole, [version.select(whole.vocabulary).standardize() for version in versions]
        )

    for seed in arguments.seeds:
        for name in arguments.adapters or names:
            folder = arguments.output / name / f"seed-{seed}"
            found = folder / "metrics.json"
            done = json.loads(found.read_text())["settings"]["epochs"] if found.exists() else 0
            epochs = RECIPES[name].epochs if arguments.epochs is None else arguments.epochs
            if done < epochs:
                settings = {**domain.fitting, "epochs": epochs}
                if arguments.bf16:
                    settings |= {"bf16": True, "use_cpu": not torch.cuda.is_available()}
                features = varied() if RECIPES[name].content_only else whole
                metrics = train(name, split, features, seed, folder, settings)
                found.write_text(json.dumps(metrics, indent=1) + "\n")
            print(name, seed, found.read_text(), flush=True)


def train(
    name: str,
    split: Split,
    features: ItemFeatures | VariedTexts,
    seed: int,
    folder: Path,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Train one adapter and save it in a folder of its name.

    Args:
        name: name of the recipe.
        split: the split to train and evaluate on.
        features: features of its items; with varied texts for a content adapter.
        seed: seed of the weights, the batches and dropout.
        folder: folder for the adapter and the training output.
        settings: arguments of `fit`.

    Returns:
        "validation" and "test" metrics, the best epoch and the settings.
    """
    recipe = RECIPES[name]
    domain = DOMAINS[recipe.domain]
    torch.manual_seed(seed)
    hidden = domain.hidden if recipe.content_only else {}
    config = ODMTConfig(max_seq_length=POSITIONS, **hidden)
    model = ODMTWrapper(recipe.backbone(), features, config, check=False)
    varying = [VaryWhileTraining(features)] if isinstance(features, VariedTexts) else []
    result = fit(
        model,
        split,
        folder / "training",
        seed=seed,
        resume=True,
        k=(10, 20),
        callbacks=varying,
        disable_tqdm=True,
        **settings,
    )
    model.card.training["seed"] = str(seed)
    results: dict[str, Any] = {"validation": result.validation, "test": result.test}
    if isinstance(features, VariedTexts):
        model.save_pretrained(folder / name, content_only=True)
        # evaluated as it will be used: no item has an ID
        loaded = ODMTWrapper.from_pretrained(
            folder / name, item_features=features.features, transfer=True
        )
        for part in results:
            results[part] = evaluate(loaded, getattr(split, part), k=(10, 20), progress=False)
    found = save(model, name, folder, results)
    return {**found, "best_epoch": result.best_epoch, "settings": {**settings, **config.to_dict()}}


def save(
    model: ODMTWrapper, name: str, folder: Path, results: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Save an adapter with its model card.

    Args:
        model: the trained model.
        name: name of the recipe.
        folder: folder to save it in.
        results: "validation" and "test" -> metrics.

    Returns:
        The metrics in the model card.
    """
    recipe = RECIPES[name]
    domain = DOMAINS[recipe.domain]
    kept = {
        part: {key: value for key, value in results[part].items() if key.endswith(KEPT)}
        for part in ("validation", "test")
    }
    card = model.card
    card.title, card.dataset = recipe.title, domain.dataset
    card.license, card.language = domain.license, "en"
    card.description, card.limits = domain.prepare, domain.terms
    card.results.clear()
    card.results.update(kept)
    if recipe.content_only:
        card.description += (
            " Results are those of a catalogue of the same items in which no item has an ID."
        )
    model.save_pretrained(
        folder / name, content_only=recipe.content_only, repo_id=f"shipped:{name}"
    )
    return kept


if __name__ == "__main__":
    main()

"""Checks that features were prepared the way a model expects.

The preparation of features is their encoder, its weights, the pooling, and the moments used to
standardize them. Features that were prepared differently can have the same shapes, but their values
are not comparable.
"""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from odmt_sdk.features.feature_set import FeatureSet

_TOLERANCE = 1e-3  # in standard deviations; the last digits of sums depend on the machine

Moments = Mapping[str, torch.Tensor]


class Preparation(NamedTuple):
    """How features were prepared.

    Args:
        provenance: modality -> encoder, weights, pooling and so on; empty if unknown.
        moments: modality -> mean and standard deviation (2, d) float32 used to standardize it.
        widths: modality -> feature width d.
        complete: whether a modality without moments is certain not to be standardized.
    """

    provenance: Mapping[str, Mapping[str, Any]]
    moments: Moments
    widths: Mapping[str, int]
    complete: bool

    @classmethod
    def of(cls, features: FeatureSet) -> "Preparation":
        """Read the preparation recorded in features."""
        return cls(
            getattr(features, "provenance", {}) or {},
            getattr(features, "moments", {}) or {},
            features.widths,
            hasattr(features, "moments"),
        )


def moments_of(like: object) -> Moments:
    """Return the moments used to standardize features, or the features of a model.

    Args:
        like: `ItemFeatures`, `JoinedFeatures`, or a model.

    Returns:
        Modality -> mean and standard deviation (2, d).

    Raises:
        TypeError: if `like` is none of these.
    """
    for name in ("moments", "feature_moments"):
        found = getattr(like, name, None)
        if isinstance(found, Mapping):
            return found
    raise TypeError(
        f"like={type(like).__name__} has no moments: give a model or item features that were "
        "standardized"
    )


def same_moments(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Check whether two moments (2, d) are equal up to rounding."""
    if one.shape != other.shape:
        return False
    (mean, deviation), (other_mean, other_deviation) = one.double().cpu(), other.double().cpu()
    return bool(
        ((mean - other_mean).abs() <= _TOLERANCE * (deviation + mean.abs() * 1e-3)).all()
        and ((deviation - other_deviation).abs() <= _TOLERANCE * deviation).all()
    )


def prepare_like(
    features: FeatureSet,
    expected: Preparation,
    *,
    reader: str,
    own_moments: bool = False,
    stacklevel: int,
) -> FeatureSet:
    """Return features with the expected preparation, or raise an error.

    Raw features are standardized with the expected moments. Modalities that are not expected, or
    have another width, are not checked here.

    Args:
        features: the features to check.
        expected: how they should be prepared.
        reader: name of the object that expects it, for messages, such as "the model".
        own_moments: accept features standardized with their own moments, for another catalogue.
        stacklevel: stack level of the warning that the preparation cannot be compared.

    Returns:
        The features, standardized if needed.

    Raises:
        ValueError: if they were prepared differently. The message lists the differences and how to
            fix them.
    """
    given = Preparation.of(features)
    names = [name for name, width in expected.widths.items() if given.widths.get(name) == width]
    unknown, raw = [], False
    for name in names:
        before, now = expected.provenance.get(name, {}), given.provenance.get(name, {})
        if before and now:
            _compare_encoders(name, before, now, reader, stacklevel + 1)
        elif before or now:
            unknown.append(name)
        raw |= _needs_moments(name, expected, given, reader, own_moments)
    if unknown:
        known, other = (reader, "the features given")
        if not any(expected.provenance.get(name) for name in unknown):
            known, other = other, known
        warnings.warn(
            f"the provenance of {unknown} is recorded for {known} but not for "
            f"{other}, so it cannot be checked whether encoder and pooling are the same. "
            "ItemFeatures.from_items records it",
            UserWarning,
            stacklevel=stacklevel,
        )
    if not raw:
        return features
    standardize = getattr(features, "standardize", None)
    if standardize is None:
        raise ValueError(
            f"{reader} needs standardized features, but a {type(features).__name__} cannot be "
            "standardized: pass ItemFeatures"
        )
    standardized: FeatureSet = standardize(like=_Like(expected.moments))
    return standardized


class _Like(NamedTuple):
    moments: Moments


def _needs_moments(
    name: str, expected: Preparation, given: Preparation, reader: str, own_moments: bool
) -> bool:
    """Check whether features need standardizing; raise if they were standardized differently."""
    theirs, ours = expected.moments.get(name), given.moments.get(name)
    before, now = expected.provenance.get(name, {}), given.provenance.get(name, {})
    standardized = theirs is not None or before.get("standardized") is True
    is_standard = ours is not None or now.get("standardized") is True
    if standardized and not is_standard:
        if own_moments or theirs is None:
            raise ValueError(
                f"{reader} was trained with standardized {name} features, but these are not "
                "standardized: pass features.standardize()"
                + ("" if own_moments else " of all items it was trained with")
            )
        return True
    if (
        theirs is not None
        and ours is not None
        and not own_moments
        and not same_moments(theirs, ours)
    ):
        raise ValueError(
            f"the {name} features were standardized with other moments than those of {reader}, so "
            "the same item has different values: pass the features without standardize(), and "
            "they are standardized automatically; or pass features.standardize(like=...)"
        )
    if not standardized and is_standard and (before or expected.complete):
        raise ValueError(
            f"the {name} features are standardized, but those of {reader} were not: pass the "
            "features without standardize()"
        )
    return False


def _compare_encoders(
    name: str, before: Mapping[str, Any], now: Mapping[str, Any], reader: str, stacklevel: int
) -> None:
    """Raise if the encoder or pooling differs; warn if the preprocessing differs."""
    both = {key for key in before.keys() & now.keys() if before[key] and now[key]}
    different = []
    # Compare weights rather than names: a folder may have been moved or renamed.
    if "weights" in both:
        if before["weights"] != now["weights"]:
            different = [key for key in ("encoder", "revision") if before.get(key) != now.get(key)]
            different.append("weights")
    elif before.get("encoder") != now.get("encoder"):
        different.append("encoder")
    if "pooling" in both and before["pooling"] != now["pooling"]:
        different.append("pooling")
    if different:
        said = "; ".join(f"{key} {now.get(key)!r} and not {before.get(key)!r}" for key in different)
        raise ValueError(
            f"the {name} features were made in another way than those of {reader}: {said}. Extract "
            "them with the same encoder and settings"
        )
    if before.get("trained") != now.get("trained"):
        raise ValueError(
            f"the {name} features and those of {reader} come from different states of the encoder, "
            f"which was trained ({before.get('trained') or now.get('trained')}). To continue its "
            f"training, pass encoders={{{name!r}: ...}} and features from before its training; "
            "otherwise pass the features from encoded_features() of the model that trained it"
        )
    if "preprocessing" in both:
        details = _differences(before["preprocessing"], now["preprocessing"])
        if any(detail.startswith("vocabulary") for detail in details):
            raise ValueError(
                f"the {name} features were made with another tokenizer than those of {reader}: "
                f"{'; '.join(details)}. Extract them with the same tokenizer"
            )
        if details:
            warnings.warn(
                f"the {name} features were prepared in another way than those of {reader}: "
                f"{'; '.join(details)}",
                UserWarning,
                stacklevel=stacklevel,
            )


def _differences(before: Any, now: Any) -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            f"{key} is {str(now[key])[:80]}, not {str(before[key])[:80]}"
            for key in before
            if key in now and before[key] != now[key]
        ]
    # older adapters store the settings as one string
    if str(before) == str(dict(now) if isinstance(now, Mapping) else now):
        return []
    return [f"settings are {str(now)[:300]}, not {str(before)[:300]}"]

"""Common setup of all tests: no network, no accounts, seeded random numbers."""

import functools
import inspect
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

# huggingface_hub and matplotlib read these variables once, when they are imported. Set them before
# any import. The folder does not exist, so no cache or token of the user is found.
os.environ["HF_HOME"] = str(Path(__file__).parent / ".no-hugging-face-home")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("HF_TOKEN", None)

import numpy as np
import pytest
import torch
from engines import local_ray, local_spark  # noqa: F401
from hypothesis import register_random, settings

ENCODERS = "odmt_sdk.features.extraction.pretrained_encoders"

# No deadline, because the first example of a property often includes a slow lazy import.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))

_START_ENVIRONMENT = dict(os.environ)


class _TorchRandom:
    """Makes Hypothesis start every example from the same state of torch's generator."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_torch_random = _TorchRandom()  # Hypothesis keeps only a weak reference
register_random(_torch_random)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that compare rounded numbers, directly or through a helper function."""
    for item in items:
        if isinstance(item, pytest.Function):
            compares = _comparisons(item.path.read_text())
            if compares.search(inspect.getsource(item.function)):
                item.add_marker("numeric")


@functools.cache
def _comparisons(source: str) -> re.Pattern[str]:
    """Match comparisons of rounded numbers, and calls of functions in `source` with comparisons."""
    compares = r"assert_close|allclose|approx|rounding_|assert_rounded|one_step"
    functions = re.split(r"^(?=def )", source, flags=re.MULTILINE)
    for function in functions:
        if (name := re.match(r"def (\w+)", function)) and re.search(compares, function):
            compares += rf"|\b{name[1]}\("
    return re.compile(compares)


@pytest.fixture(scope="session")
def start_environment() -> dict[str, str]:
    """Return the environment variables before the package and any test module was imported."""
    return _START_ENVIRONMENT


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _same_precision_on_every_cpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "odmt_sdk.features.extraction.pretrained_encoders.computes_in_bfloat16",
            lambda device: False,
        )
        yield

"""What every test relies on: no network, no accounts, the same random numbers on every run."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

# Read once by huggingface_hub and matplotlib when they are imported, so they stand above every
# import that may bring them in. The folder does not exist: no cache or token of the user is found.
os.environ["HF_HOME"] = str(Path(__file__).parent / ".no-hugging-face-home")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("HF_TOKEN", None)

import numpy as np
import pytest
import torch
from hypothesis import register_random, settings

# The first example of a property often pays for a lazy import, so no example has a deadline.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))

_START_ENVIRONMENT = dict(os.environ)


class _TorchRandom:
    """Lets Hypothesis start every example from the same state of torch's generator."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_torch_random = _TorchRandom()  # Hypothesis holds it weakly
register_random(_torch_random)


@pytest.fixture(scope="session")
def start_environment() -> dict[str, str]:
    """The environment variables before any test module, and so the package, was imported."""
    return _START_ENVIRONMENT


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _same_precision_on_every_cpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("odmt_sdk.items.encoders.computes_in_bfloat16", lambda device: False)
        yield

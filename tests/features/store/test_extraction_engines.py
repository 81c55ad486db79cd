"""Features on disk that an engine writes in other processes: the same files, resumable."""

import pickle
import warnings

import pytest
import torch
from stored_catalogue import content, make_items, store

from odmt_sdk import ItemFeatures
from odmt_sdk.batch import RayExtraction


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*could not be read")
        warnings.filterwarnings("ignore", message=".*are encoded again")
        yield


class Elsewhere:
    """Sends recipes and jobs through pickle, as every engine does, and stops where it is told."""

    def __init__(self, jobs=99):
        self.jobs, self.done = jobs, 0

    def run(self, recipes, jobs):
        recipes, jobs = pickle.loads(pickle.dumps((recipes, jobs)))
        for job in reversed(jobs):  # in any order
            if self.done == self.jobs:
                raise KeyboardInterrupt
            self.done += 1
            job.write(recipes[job.modality].make(job.modality))
            yield job.size


def test_the_same_bytes_after_an_interruption(encoders, reference, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        store(make_items(), tmp_path / "out", engine=Elsewhere(5), **encoders)
    engine = Elsewhere()
    features = store(make_items(), tmp_path / "out", engine=engine, **encoders)
    assert engine.done == 2 * 6 - 5  # only the missing files
    assert content(tmp_path / "out") == content(reference)
    assert features.num_items == 23


def test_new_and_changed_items(encoders, tmp_path):
    items, more = make_items(), make_items(30)
    more["text"][3] = "another title"
    for folder, engine in (("here", None), ("there", Elsewhere())):
        store(items, tmp_path / folder, engine=engine, **encoders)
        store(more, tmp_path / folder, engine=engine, **encoders)
    assert content(tmp_path / "here") == content(tmp_path / "there")


def test_items_that_are_not_given_again_are_named(encoders, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        store(make_items(), tmp_path / "out", engine=Elsewhere(5), **encoders)
    with pytest.raises(ValueError, match="item 0 .*were not completed"):
        store(make_items(3, start=7), tmp_path / "out", engine=Elsewhere(), **encoders)


def test_a_worker_with_another_encoder_is_refused(encoders, tmp_path):
    class Another(Elsewhere):
        def run(self, recipes, jobs):
            made = {
                name: recipe._replace(provenance={**recipe.provenance, "computed_in": "bfloat16"})
                for name, recipe in recipes.items()
            }
            return super().run(made, jobs)

    with pytest.raises(ValueError, match="this worker has computed_in='float32', .*'bfloat16'"):
        store(make_items(), tmp_path / "out", engine=Another(), **encoders)


def test_an_engine_needs_a_folder(encoders):
    with pytest.raises(ValueError, match="pass path= too"):
        ItemFeatures.from_items(make_items(), engine=Elsewhere(), **encoders)


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray.data", None)
    with pytest.raises(ImportError, match=r"pip install odmt-sdk\[ray\]"):
        RayExtraction()


@pytest.mark.slow
def test_ray(local_ray, encoders, reference, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        store(make_items(), tmp_path / "out", engine=Elsewhere(5), **encoders)
    store(make_items(), tmp_path / "out", engine=RayExtraction(concurrency=2), **encoders)
    names = content(tmp_path / "out").keys()
    assert names == content(reference).keys()
    found, expected = ItemFeatures.open(tmp_path / "out"), ItemFeatures.open(reference)
    assert found.vocabulary == expected.vocabulary
    assert found.report == expected.report
    for name in ("text", "image"):
        assert torch.equal(found[name].lengths, expected[name].lengths)
        torch.testing.assert_close(found[name].tokens, expected[name].tokens, atol=4e-3, rtol=4e-3)

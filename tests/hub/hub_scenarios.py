# ruff: noqa: E402
"""Typical uses of the Hub, with a local server; `test_hub` runs them in a separate process.

The environment must be set before huggingface_hub is imported, because it is read only once.
"""

import functools
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from hub_server import Fault, HubServer

SERVER = HubServer()
os.environ["HF_ENDPOINT"] = SERVER.url
os.environ["HF_HUB_ETAG_TIMEOUT"] = "1"
os.environ["HF_HUB_DOWNLOAD_TIMEOUT"] = "2"
os.environ["HF_HUB_DISABLE_XET"] = "1"  # the server supports only LFS
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.pop("HF_HUB_OFFLINE", None)

import huggingface_hub
import pytest
import torch
from pages import code_blocks, newcomer_folder, run_blocks, train_one_epoch
from toys import MyModel, toy_features, toy_model, toy_split
from transformers import TrainingArguments

from odmt_sdk import (
    AdapterError,
    GRU4Rec,
    ODMTConfig,
    ODMTTrainer,
    ODMTWrapper,
    SASRec,
    shipped_adapters,
)

HISTORIES = [["item-3", "item-1"], ["item-4"]]
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    torch.manual_seed(0)
    SERVER.repositories.clear()
    SERVER.faults.clear()
    SERVER.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "cache")
    )


def load(name="me/adapter", **options):
    return ODMTWrapper.from_pretrained(name, **{"backbone": MyModel(), **options})


def same(model, other):
    return model.eval().recommend(HISTORIES, k=5) == other.recommend(HISTORIES, k=5)


def test_round_trip_to_a_fresh_process_elsewhere(tmp_path):
    features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
    model = ODMTWrapper(GRU4Rec(8), features, ODMTConfig(num_layers=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(3):
        model(torch.randint(1, 13, (8, 5))).loss.backward()
        optimizer.step()
    info = model.push_to_hub("adapter", token="hf_me", commit_message="The first one")
    assert info.commit_url.startswith(f"{SERVER.url}/me/adapter/commit/")
    assert set(SERVER.files("me/adapter")) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "item_embeddings.safetensors",
        "items.json",
        "model.safetensors",
    }
    assert SERVER.uploaded  # the weights were uploaded separately from the commit
    card = SERVER.files("me/adapter")["README.md"].decode()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "ODMTWrapper.from_pretrained('me/adapter')" in snippet
    script = f"{snippet}\nimport json\nprint(json.dumps(model.recommend({HISTORIES!r}, k=5)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "elsewhere")},
        check=False,
    )
    assert not done.returncode, done.stderr[-3000:]
    item_ids, scores = json.loads(done.stdout.splitlines()[-1])
    expected = model.eval().recommend(HISTORIES, k=5)
    assert (item_ids, scores) == (expected.item_ids, expected.scores)


class TestAccess:
    def test_private(self):
        model = toy_model()
        model.push_to_hub("me/adapter", private=True, token="hf_me")
        assert SERVER.repositories["me/adapter"].private
        with pytest.raises(
            AdapterError, match=r"no such repository, or it is private: .* pass token="
        ):
            load(token=False)
        with pytest.raises(AdapterError, match="no such repository, or it is private"):
            load(token="hf_other")
        assert same(model, load(token="hf_me"))

    def test_without_a_token_nothing_is_pushed(self):
        with pytest.raises(AdapterError, match="the Hub rejected the login: check the name; if it"):
            toy_model().push_to_hub("me/adapter", token=False)
        assert not SERVER.repositories

    def test_a_token_of_somebody_else(self):
        toy_model().push_to_hub("me/adapter", token="hf_me")
        before = dict(SERVER.files("me/adapter"))
        with pytest.raises(
            AdapterError, match="the token does not permit it: pass token= of an acc"
        ):
            toy_model().push_to_hub("me/adapter", token="hf_other")
        assert SERVER.files("me/adapter") == before

    def test_nothing_is_made_for_a_model_without_items(self):
        with pytest.raises(AdapterError, match="a model without items cannot be saved"):
            ODMTWrapper(MyModel()).push_to_hub("me/adapter", token="hf_me")
        assert not SERVER.repositories


class TestWhatIsNotThere:
    def test_repository(self):
        with pytest.raises(AdapterError, match="cannot load 'me/nothing', and there is no folder"):
            load("me/nothing", token="hf_me")

    def test_revision(self):
        toy_model().push_to_hub("me/adapter", token="hf_me")
        with pytest.raises(
            AdapterError, match="the repository has no such revision; pass a branch"
        ):
            load(revision="nowhere")

    def test_adapter_in_a_repository_of_something_else(self):
        SERVER.add_files("me/other", {"pytorch_model.bin": b"\x80\x04K\x01."})
        with pytest.raises(AdapterError, match="a file of the adapter is not in the repository"):
            load("me/other")
        SERVER.add_files("me/other", {"config.json": b'{"model_type": "bert"}'})
        with pytest.raises(AdapterError, match="is not an adapter of odmt-sdk"):
            load("me/other")

    def test_one_file(self):
        toy_model().push_to_hub("me/adapter", token="hf_me")
        SERVER.add_files("me/adapter", {"items.json": None})
        with pytest.raises(AdapterError, match="a file of the adapter is not in the repository"):
            load()


def test_revisions_branches_and_subfolders():
    first, second = toy_model(num_layers=1), toy_model(num_layers=2)
    commit = first.push_to_hub("me/adapter", token="hf_me").oid
    second.push_to_hub("me/adapter", token="hf_me")
    first.push_to_hub("me/adapter", token="hf_me", revision="experiment")
    first.push_to_hub("me/adapter", token="hf_me", subfolder="small/one")
    assert same(second, load())
    assert same(first, load(revision=commit))
    assert same(first, load(revision="experiment"))
    assert same(first, load(subfolder="small/one"))
    assert "small/one/config.json" in SERVER.files("me/adapter")


def test_pull_request():
    mine, theirs = toy_model(num_layers=1), toy_model(num_layers=2)
    mine.push_to_hub("me/adapter", token="hf_me")
    info = theirs.push_to_hub("me/adapter", token="hf_other", create_pr=True)
    assert info.pr_url == f"{SERVER.url}/me/adapter/discussions/1"
    assert same(mine, load())
    assert same(theirs, load(revision="refs/pr/1"))


def test_files_of_the_adapter_before_go_and_a_text_by_hand_stays():
    large = toy_model()
    large.push_to_hub("me/adapter", token="hf_me", max_shard_size="4KB")
    assert [n for n in SERVER.files("me/adapter") if n.startswith("model-00001-of-")]
    SERVER.add_files("me/adapter", {"notes.txt": b"mine", "README.md": b"By hand."})
    large.push_to_hub("me/adapter", token="hf_me", item_embeddings=False)
    files = SERVER.files("me/adapter")
    assert sorted(files) == [
        ".gitattributes",
        "README.md",
        "config.json",
        "items.json",
        "model.safetensors",
        "notes.txt",
    ]
    assert files["README.md"] == b"By hand."
    assert files["notes.txt"] == b"mine"


class TestTheConnection:
    def test_a_cut_download_is_resumed(self):
        class Large(MyModel):
            def __init__(self):
                super().__init__()
                self.register_buffer("large", torch.rand(3_000_000))  # 12 MB

        model = toy_model(Large(), share_backbone=True)
        model.push_to_hub("me/adapter", token="hf_me")
        SERVER.faults.append(Fault("GET .*/model.safetensors", cut_after=11 << 20))
        try:
            loaded = load(backbone=Large())
        except AdapterError as error:
            # huggingface_hub 1 leaves a cut download to the next call, which goes on with it
            assert huggingface_hub.__version__.startswith("1.")
            assert "the connection to the Hub failed: try again" in str(error)  # noqa: PT017
            loaded = load(backbone=Large())
        assert same(model, loaded)
        resumed = [r for r in SERVER.requests if re.search(r"model.safetensors bytes=[1-9]\d+-", r)]
        assert len(resumed) == 1

    def test_offline_from_the_cache(self):
        model = toy_model()
        with pytest.raises(AdapterError, match="it has not been downloaded before"):
            load(local_files_only=True)
        model.push_to_hub("me/adapter", token="hf_me")
        load()
        SERVER.requests.clear()
        assert same(model, load(local_files_only=True))
        assert not SERVER.requests

    def test_cache_dir_and_force_download(self, tmp_path):
        toy_model().push_to_hub("me/adapter", token="hf_me")
        for _ in range(2):
            load(cache_dir=tmp_path / "mine")
        assert (tmp_path / "mine" / "models--me--adapter").is_dir()
        gets = [request for request in SERVER.requests if "GET" in request and "model.s" in request]
        assert len(gets) == 1
        load(cache_dir=tmp_path / "mine", force_download=True)
        gets = [request for request in SERVER.requests if "GET" in request and "model.s" in request]
        assert len(gets) == 2

    @pytest.mark.parametrize("status", [500, 503])
    def test_server_errors(self, status, monkeypatch):
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        toy_model().push_to_hub("me/adapter", token="hf_me")
        SERVER.faults.append(Fault("HEAD", status=status, times=100))
        with pytest.raises(AdapterError, match="cannot load 'me/adapter'"):
            load()

    def test_server_errors_when_pushing(self):
        SERVER.faults.append(Fault("POST .*/commit/", status=500))
        with pytest.raises(AdapterError, match="the Hub could not process the request: try again"):
            toy_model().push_to_hub("me/adapter", token="hf_me")
        assert set(SERVER.files("me/adapter")) == {".gitattributes"}

    def test_slow_answers_are_waited_for(self):
        model = toy_model()
        model.push_to_hub("me/adapter", token="hf_me")
        SERVER.faults.append(Fault("HEAD", delay=1.5))  # longer than the timeout
        assert same(model, load())
        assert not SERVER.faults

    def test_nobody_answers(self, monkeypatch):
        toy_model().push_to_hub("me/adapter", token="hf_me")
        url = "http://127.0.0.1:9"  # nothing listens on this port
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        with pytest.raises(AdapterError, match="cannot create the repository 'me/adapter'"):
            toy_model().push_to_hub("me/adapter", token="hf_me")


class TestStrangers:
    def test_only_files_of_the_adapter_are_asked_for(self):
        model = toy_model()
        model.push_to_hub("me/adapter", token="hf_me")
        evil = ["pytorch_model.bin", "model.pkl", "training_args.bin", "modeling.py", "model.pt"]
        SERVER.add_files("me/adapter", {name: b"\x80\x04K\x01." for name in evil})
        SERVER.requests.clear()
        assert same(model, load())
        asked = {r.rsplit("/", 1)[1] for r in SERVER.requests if "/resolve/" in r}
        assert asked == {
            "config.json",
            "item_embeddings.safetensors",
            "items.json",
            "model.safetensors",
        }

    def test_item_embeddings_are_not_downloaded_in_vain(self):
        toy_model().push_to_hub("me/adapter", token="hf_me")
        features = toy_features(item_ids=[f"item-{i}" for i in range(12)])
        load(item_features=features)
        assert not [r for r in SERVER.requests if "GET" in r and "item_embeddings" in r]

    @pytest.mark.parametrize("name", ["../../evil.safetensors", "/etc/passwd", "model.bin"])
    def test_other_file_names_are_refused(self, name):
        toy_model().push_to_hub("me/adapter", token="hf_me")
        config = json.loads(SERVER.files("me/adapter")["config.json"])
        config["files"]["model"] = [name]
        SERVER.add_files("me/adapter", {"config.json": json.dumps(config).encode()})
        SERVER.requests.clear()
        with pytest.raises(AdapterError, match="which is not a valid name"):
            load()
        assert all("config.json" in request for request in SERVER.requests)


def test_a_trainer_pushes(tmp_path):
    split = toy_split()
    model = toy_model(SASRec(8, max_seq_length=6), num_layers=1)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        num_train_epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
        push_to_hub=True,
        hub_model_id="me/trained",
        hub_token="hf_me",
        hub_strategy="every_save",
        hub_always_push=True,
        use_cpu=True,
    )
    trainer = ODMTTrainer(
        model, arguments, k=(5, 10), train_dataset=split.train, eval_dataset=split.validation
    )
    trainer.train()
    trainer.evaluate(split.test, metric_key_prefix="test")
    trainer.push_to_hub(commit_message="Done", dataset="Circles", license="mit")
    loaded = ODMTWrapper.from_pretrained("me/trained")
    assert same(model, loaded)
    card = SERVER.files("me/trained")["README.md"].decode()
    assert "ODMTWrapper.from_pretrained('me/trained')" in card
    assert "On the test targets" in card
    assert "license: mit" in card
    assert not [
        name
        for name in SERVER.files("me/trained")
        if not name.endswith(("json", "tensors", "md", "attributes"))
    ]
    assert len(SERVER.repositories["me/trained"].commits) >= 3  # during training and at the end
    with pytest.raises(ValueError, match="the model card has no place for finetuned_from"):
        trainer.push_to_hub(finetuned_from="me/other")


def test_the_example(capsys, monkeypatch):
    example = Path(__file__).parents[2] / "examples" / "push_and_pull.py"
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    monkeypatch.setattr(sys, "argv", [str(example), "me/films"])
    runpy.run_path(str(example), run_name="__main__")
    commit, found = capsys.readouterr().out.splitlines()[-2:]
    assert commit.startswith(f"{SERVER.url}/me/films/commit/")
    assert found.startswith("[['film-")
    assert SERVER.repositories["me/films"].private
    assert "# What to watch next" in SERVER.files("me/films")["README.md"].decode()


def test_the_pretrained_adapters_are_pushed(capsys, monkeypatch):
    example = Path(__file__).parents[2] / "examples" / "push_adapters.py"
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    names = [adapter.name.partition(":")[2] for adapter in shipped_adapters()]
    assert names

    monkeypatch.setattr(sys, "argv", [str(example), "--namespace", "me"])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.count("not pushed: ") == len(names)
    assert not SERVER.requests

    monkeypatch.setattr(sys, "argv", [str(example), "--namespace", "me", "--push", "--private"])
    runpy.run_path(str(example), run_name="__main__")
    assert set(SERVER.repositories) == {f"me/odmt-{name}" for name in names}
    for adapter, name in zip(shipped_adapters(), names, strict=True):
        pushed = SERVER.files(f"me/odmt-{name}")
        assert SERVER.repositories[f"me/odmt-{name}"].private
        assert f"from_pretrained('me/odmt-{name}'" in pushed["README.md"].decode()
        for path in adapter.folder.iterdir():
            if path.name != "README.md":
                assert pushed[path.name] == path.read_bytes()
        if not adapter.num_items:
            continue
        shipped = ODMTWrapper.from_pretrained(adapter.name)
        pulled = ODMTWrapper.from_pretrained(f"me/odmt-{name}")
        histories = [shipped.vocabulary.item_ids[i : i + 5] for i in range(0, 100, 5)]
        assert pulled.recommend(histories, k=20) == shipped.recommend(histories, k=20)


def test_the_page_on_sharing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    model = toy_model(SASRec(8))
    model.push_to_hub("me/my-adapter", revision="v1.0")
    model.push_to_hub("me/films")
    names = {
        "model": model,
        "MyModel": functools.partial(SASRec, 8),
        "ODMTWrapper": ODMTWrapper,
        "books": toy_features(item_ids=[f"book-{i}" for i in range(12)]),
    }
    run_blocks(code_blocks("docs/sharing.md"), names)
    assert "book-3" in names["model"].vocabulary
    assert names["model"].card.license == "apache-2.0"


def test_the_page_on_pretrained_adapters(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    monkeypatch.chdir(newcomer_folder(tmp_path / "work", "my-film"))
    train_one_epoch(monkeypatch)
    names = run_blocks(code_blocks("docs/pretrained.md"), {})
    assert names["result"].test["ndcg@10"] >= 0
    assert SERVER.repositories["me/my-films-content"].private

"""Each command gives what the public call gives, and tells a mistake in one line."""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from odmt_sdk import ItemFeatures, ODMTWrapper, evaluate, leave_one_out, load_folder
from odmt_sdk.cli import main
from odmt_sdk.cli.entry_point import COMMANDS
from odmt_sdk.hub import describe_adapter, pull_folder
from odmt_sdk.retrieval import MaximalMarginalRelevance, fused_vectors
from odmt_sdk.toy_shop import tiny_text_encoder

ROOT = Path(__file__).parents[2]
SHIPPED = "shipped:films-sasrec"
TRAINING = "--hidden-size 8 --max-seq-length 4 --epochs 1 --k 1 5 --metric ndcg@5"
TRAINING += """ --training-args '{"use_cpu": true, "disable_tqdm": true}'"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a shop, an encoder, features and an adapter, all made by commands."""
    folder = tmp_path_factory.mktemp("work")
    shop = folder / "shop"
    shop.mkdir()
    titles = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("mug", "hat", "bag")]
    rows = [f"{row + 1},{title}" for row, title in enumerate(titles)]
    (shop / "items.csv").write_text("\n".join(["item_id,title", *rows]))
    events = [f"u{user},{(user + step) % 6 + 1},{step}" for user in range(12) for step in range(5)]
    (shop / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *events]))
    (folder / "my_tiny_model.py").write_text(
        textwrap.dedent(
            """
            from torch import nn

            class MyModel(nn.Module):
                def __init__(self, width=8, both=False):
                    super().__init__()
                    self.gru = nn.GRU(width, width, batch_first=True)
                    self.both = both

                def forward(self, x):
                    return self.gru(x.flip(1))[0].flip(1) if self.both else self.gru(x)[0]

            made = MyModel()
            """
        )
    )
    model, tokenizer = tiny_text_encoder(titles, width=8)
    model.save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("features shop features --text-encoder encoder --text-pooling mean") == 0
        assert run(f"fit shop --features features -o adapter {TRAINING}") == 0
    return folder


@pytest.fixture(autouse=True)
def _in_work(work, monkeypatch):
    monkeypatch.chdir(work)


def run(line):
    return main(shlex.split(line))


def found(capsys, line):
    """Return the JSON that a command prints."""
    capsys.readouterr()
    assert run(f"{line} --json") == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, line, code=1):
    """Return the error of a command, which is one line."""
    capsys.readouterr()
    assert run(line) == code
    out, error = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in error
    return error


def shown(capsys, line):
    capsys.readouterr()
    assert run(f"{line} --show-code") == 0
    return capsys.readouterr().out


@pytest.fixture
def model():
    return ODMTWrapper.from_pretrained("adapter")


def test_features_are_those_of_from_items(work):
    features = ItemFeatures.open("features")
    _, items = load_folder("shop")
    expected = ItemFeatures.from_items(
        items, text_encoder=str(work / "encoder"), text_pooling="mean", progress=False
    )
    assert features.vocabulary == expected.vocabulary
    assert torch.equal(features["text"].tokens, expected["text"].tokens)


def test_fit_trains_with_the_settings(model):
    assert (model.hidden_size, model.max_seq_length) == (8, 4)
    assert model.backbone_name == "SASRec"
    assert model.card.training["best epoch"] == "1"
    assert "standardized" in model.feature_provenance["text"]


def test_evaluate(model, capsys):
    interactions, _ = load_folder("shop")
    split = leave_one_out(interactions, vocabulary=model.vocabulary, max_seq_length=4)
    expected = evaluate(model, split.test, k=(1, 5))
    assert found(capsys, "evaluate adapter shop --k 1 5") == pytest.approx(expected)
    assert run("evaluate adapter shop --k 1 5") == 0
    assert f"| {expected['ndcg@5']:.4f} |" in capsys.readouterr().out.replace("  ", " ")


def test_recommend_and_similar_with_ids_that_are_numbers(model, capsys):
    expected = model.recommend([[1, 2]], k=2, items=[4, 5, 6])
    result = found(capsys, "recommend adapter 1 2 -k 2 --among 4 5 6")
    assert result == {"item_ids": expected.item_ids, "scores": expected.scores}
    expected = model.similar_items([3, 1], k=2, source="text")
    result = found(capsys, "similar adapter 3 1 --k 2 --source text")
    assert result == {"item_ids": expected.item_ids, "scores": expected.scores}


def test_recommend_for_people(capsys):
    expected = ODMTWrapper.from_pretrained(SHIPPED).recommend([["1", "3114"]], k=2)
    capsys.readouterr()
    assert run(f"recommend {SHIPPED} 1 3114 -k 2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == expected.item_ids[0]


def test_recommend_with_titles_and_diversity(model, capsys):
    vectors = fused_vectors(model.encode_catalogue(), ["text"])
    rerank = MaximalMarginalRelevance(vectors, diversity=0.9)
    expected = model.recommend([[1, 2]], k=4, rerank=rerank)
    assert expected != model.recommend([[1, 2]], k=4)
    line = "recommend adapter 1 2 -k 4 --diversity 0.9 --titles"
    names = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("mug", "hat", "bag")]
    titles = dict(enumerate(names, 1))
    for place in ("shop", "shop/items.csv"):
        result = found(capsys, f"{line} {place}")
        assert result["item_ids"] == expected.item_ids
        assert result["titles"] == [[titles[item] for item in expected.item_ids[0]]]
    assert run(f"{line} shop") == 0
    first = expected.item_ids[0][0]
    score = expected.scores[0][0]
    assert capsys.readouterr().out.splitlines()[0] == f"   1  {first}  {score:.4f}  {titles[first]}"
    assert found(capsys, "similar adapter 1 --k 1 --titles shop")["titles"][0][0] in titles.values()
    assert "diversity=2.0 must lie in 0..1" in refused(capsys, "recommend adapter 1 --diversity 2")
    Path("other.csv").write_text("item_id,title\n99,a lamp")
    said = refused(capsys, "recommend adapter 1 --titles other.csv")
    assert "none of the 1 items of the table is in the model" in said


def test_fit_trains_the_text_encoder(work, capsys, tmp_path):
    pytest.importorskip("peft")
    line = f"fit shop --text-encoder {work / 'encoder'} --text-pooling mean {TRAINING}"
    line += f" -o {tmp_path / 'adapter'} --train-text-encoder --lora-rank 2 --warmup-steps 0"
    code = shown(capsys, f"{line} --encoder-learning-rate 1e-2")
    assert "LoraConfig(r=2, lora_alpha=4, target_modules=" in code
    assert run(f"{line} --encoder-learning-rate 1e-2") == 0
    encoders = ODMTWrapper.from_pretrained(tmp_path / "adapter").encoders
    lora = [w for name, w in encoders.text.weights.items() if "lora_B" in name]
    assert {weight.shape[1] for weight in lora} == {2}
    assert any(bool(weight.any()) for weight in lora)
    assert found(capsys, f"recommend {tmp_path / 'adapter'} 1 2 -k 2")["item_ids"]


def test_info_shipped_and_pull(capsys, tmp_path):
    about = found(capsys, "info adapter")
    expected = describe_adapter("adapter")
    assert (about["num_items"], about["sources"]) == (6, ["id", "text"])
    assert about["files"] == expected.files
    assert expected.num_bytes == sum(
        p.stat().st_size for p in Path("adapter").glob("*.*") if p.name in about["files"]
    )
    assert run("info adapter") == 0
    assert "encoder encoder" in capsys.readouterr().out
    assert SHIPPED in [adapter["name"] for adapter in found(capsys, "shipped")]
    assert found(capsys, f"pull {SHIPPED} {tmp_path}/films") == {"folder": f"{tmp_path}/films"}
    again = pull_folder(tmp_path / "films", tmp_path / "copy")
    loaded = [ODMTWrapper.from_pretrained(path) for path in (SHIPPED, again)]
    assert loaded[0].recommend([["1"]]) == loaded[1].recommend([["1"]])
    assert "is not empty" in refused(capsys, f"pull {SHIPPED} {tmp_path}/films")


def test_push_is_refused_before_anything_is_made(capsys, monkeypatch):
    calls = []
    monkeypatch.setattr("odmt_sdk.hub.push.make_repository", lambda *a, **k: calls.append(a))
    assert "is not a saved adapter" in refused(capsys, "push shop me/shop")
    assert calls == []


def test_push_calls_the_public_functions(capsys, monkeypatch):
    calls = []

    class Commit:
        commit_url, pr_url = "https://hub/commit", None

    def push(folder, repo_id, **settings):
        calls.append((folder, repo_id, settings))
        return Commit()

    monkeypatch.setattr("odmt_sdk.hub.push.make_repository", lambda name, **settings: f"me/{name}")
    monkeypatch.setattr("odmt_sdk.hub.push.push_folder", push)
    assert found(capsys, "push adapter shop --create-pr")["commit_url"] == "https://hub/commit"
    assert calls == [(Path("adapter"), "me/shop", {"create_pr": True})]


def test_index_and_batch(model, capsys, tmp_path):
    pytest.importorskip("faiss")
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from odmt_sdk.indexes import ItemIndex

    assert found(capsys, f"index adapter {tmp_path}/index")["items"] == 6
    index = ItemIndex.open(tmp_path / "index", fingerprint=model.catalogue_fingerprint())
    assert index.item_ids == model.vocabulary.item_ids
    users = pa.table({"user_id": ["a"], "item_ids": [[1, 2]]})
    parquet.write_table(users, tmp_path / "users.parquet")
    line = f"batch adapter {tmp_path}/users.parquet {tmp_path}/out --k 2"
    assert found(capsys, line)["users"] == 1
    written = parquet.read_table(tmp_path / "out" / "part-00000.parquet").to_pydict()
    assert written["item_ids"] == model.recommend([[1, 2]], k=2).item_ids


def test_export(model, capsys, tmp_path, monkeypatch):
    calls = []

    def export(model, path, **settings):
        calls.append((model.num_items, path, settings))
        return range(6)

    monkeypatch.setattr("odmt_sdk.export.user_encoder.export_user_encoder", export)
    found(capsys, f"export adapter {tmp_path}/out --format onnx --top-k 3")
    assert calls == [(6, f"{tmp_path}/out", {"format": "onnx", "top_k": 3})]


def test_serve(capsys, monkeypatch):
    uvicorn = pytest.importorskip("uvicorn")
    testclient = pytest.importorskip("fastapi")
    calls = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **settings: calls.append((app, settings)))
    assert run("serve adapter --items shop/items.csv --text title --port 8123 --max-k 3") == 0
    ((app, settings),) = calls
    assert isinstance(app, testclient.FastAPI)
    assert (settings["host"], settings["port"]) == ("127.0.0.1", 8123)


def test_check(capsys):
    assert found(capsys, "check my_tiny_model:MyModel --hidden-size 8")["usable"]
    assert run("""check my_tiny_model:MyModel --backbone-args '{"both": true}'""") == 1
    assert re.search(r"error +causal", capsys.readouterr().out)
    assert "not a class or function" in refused(capsys, "check my_tiny_model:made", 2)
    assert "did you mean 'MyModel'" in refused(capsys, "check my_tiny_model:MyModle", 2)
    assert "there is no module 'absent'" in refused(capsys, "check absent:MyModel", 2)
    assert "did you mean 'sasrec'" in refused(capsys, "check sasrek", 2)
    assert "did you mean 'dropout'" in refused(
        capsys, """check sasrec --backbone-args '{"dropuot": 1}'""", 2
    )


def test_completion(capsys):
    pytest.importorskip("shtab")
    assert run("completion bash") == 0
    script = capsys.readouterr().out
    assert "--distillation-weight" in script
    assert all(name in script for name in COMMANDS)


@pytest.mark.parametrize(
    "line",
    [
        "recommend adapter 1 2 --k 3",
        "similar adapter 1",
        "info adapter",
        "shipped",
        "evaluate adapter shop --k 1 5",
        "check my_tiny_model:MyModel --hidden-size 8",
        "pull shipped:films-sasrec copied",
    ],
)
def test_the_shown_code_runs_and_does_the_same(line, capsys):
    code = shown(capsys, line)
    values = {"__name__": "__main__"}
    sys.path.insert(0, os.getcwd())
    try:
        exec(code, values)
    finally:
        sys.path.pop(0)
    printed = capsys.readouterr().out
    assert printed.endswith(f"{values['result']}\n")
    if line.startswith("recommend"):
        assert found(capsys, line)["item_ids"] == values["result"].item_ids


def test_the_shown_code_of_training(capsys, tmp_path):
    code = shown(
        capsys, f"fit shop --features features -o {tmp_path}/again --id-dropout 0.1 {TRAINING}"
    )
    assert "ODMTConfig(id_dropout=0.1)" in code
    exec(code, {"__name__": "__main__"})
    assert ODMTWrapper.from_pretrained(tmp_path / "again").config.id_dropout == 0.1
    code = shown(
        capsys,
        "tune shop --features features -o tuned --backbone-learning-rate 1e-3 --space "
        '\'{"backbone_dropout": [0.1], "backbone_learning_rate": [0.1]}\'',
    )
    assert "backbone_learning_rate=0.001" in code
    assert "def make_model(backbone_dropout):" in code
    assert "dropout=backbone_dropout" in code
    compile(code, "shown", "exec")


def test_a_file_of_settings(capsys, tmp_path):
    (tmp_path / "fit.toml").write_text(
        'data = "shop"\nfeatures = "features"\nid-dropout = 0.3\nepochs = 9\nk = [1, 5]\n'
        'output_dir = "x"\nstandardize = false\n[backbone_args]\nnum_layers = 1\n'
    )
    code = shown(capsys, f"fit --config {tmp_path}/fit.toml --epochs 2 --seed 3")
    for part in ("id_dropout=0.3", "epochs=2.0", "k=(1, 5)", "seed=3", "num_layers=1"):
        assert part in code
    assert "standardize" not in code
    (tmp_path / "fit.yaml").write_text("data: shop\nlearning_rate: 1e-3\nfusion: id\noutput_dir: x")
    code = shown(capsys, f"fit --config {tmp_path}/fit.yaml")
    assert "learning_rate=0.001" in code
    assert "vocabulary=split.vocabulary" in code


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"epoch": 3}', "did you mean 'epochs'"),
        ('{"epochs": "many"}', "is not a valid float"),
        ('{"standardize": 1}', "must be true or false"),
        ('{"k": 5}', "must be a list"),
        ('{"id_visibility": "none"}', "must be one of one_way, mutual"),
        ("[1]", "must hold names and values"),
        ("{", "is not valid"),
    ],
)
def test_mistakes_in_a_file_of_settings(content, message, capsys, tmp_path):
    (tmp_path / "fit.json").write_text(content)
    assert message in refused(capsys, f"fit shop --config {tmp_path}/fit.json", 2)


@pytest.mark.parametrize(
    ("line", "message", "code"),
    [
        ("recommend absent-folder/x/y 1", "is not a saved adapter", 1),
        ("recommend shop 1", "is not a saved adapter", 1),
        ("recommend adapter 99", "99", 1),
        ("recommend adapter 1 --k 0", "k=0", 1),
        ("recommend adapter", "required: ITEM", 2),
        ("recommend adapter 1 --kk 3", "unknown argument '--kk'; did you mean '--k'", 2),
        ("fit shop --features features -o adapter", "is not empty: pass --resume", 1),
        ("fit shop --features features", "give the folder for the adapter", 2),
        ("fit shop -o new", "the items have no features", 2),
        ("fit shop --items shop/items.csv -o new", "not both", 2),
        ("fit --interactions absent.csv --fusion id -o new", "no file absent.csv", 1),
        ("fit shop --features features -o new --user customer", "'customer' is not in", 1),
        ("fit shop --features features -o new --epohcs 3", "did you mean '--epochs'", 2),
        ("fit shop --features features -o new --dropout 2", "dropout=2.0 must be", 1),
        ("fit shop --features absent -o new", "absent", 1),
        ("tune shop --features features -o new", "--space JSON", 2),
        ("tune shop --features features -o new --space '{\"dropot\": [1]}'", "'dropout'", 2),
        ("fit shop --features features -o new --lora-rank 4", "needs --train-text-encoder", 2),
        ("fit shop --fusion id -o new --train-text-encoder", "needs --text-encoder NAME", 2),
        (
            "tune shop --features features -o new --space '{\"encoder_learning_rate\": [0.1]}'",
            "needs --train-text-encoder",
            2,
        ),
        ("evaluate adapter", "give a folder of tables", 2),
        ("features shop new", "give --text-encoder", 2),
        ("batch adapter absent.parquet new", "absent.parquet", 1),
        ("nothing", "invalid choice", 2),
    ],
)
def test_mistakes(line, message, code, capsys):
    assert message in refused(capsys, line, code)
    assert not Path("new").exists()


def test_debug_raises_and_interrupts_are_quiet(capsys, monkeypatch):
    with pytest.raises(RuntimeError, match="is not a saved adapter"):
        run("info shop --debug")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("odmt_sdk.cli.program.Program.run", interrupt)
    assert "interrupted" in refused(capsys, "shipped", 130)


def test_k_above_the_catalogue_gives_all_that_is_left(capsys):
    assert len(found(capsys, "recommend adapter 1 --k 100")["item_ids"][0]) == 5


def test_every_command_explains_itself(capsys):
    for name in COMMANDS:
        assert run(f"{name} --help") == 0
        text = capsys.readouterr().out
        assert "examples:" in text, name
        assert "--show-code" in text


def test_in_a_process(work):
    """`--help` needs no torch, and a reader that closes the pipe is no error."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = (
        "import sys; from odmt_sdk.cli import main; main(['fit', '--help']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--distillation-weight" in done.stdout
    piped = f"{shlex.quote(sys.executable)} -m odmt_sdk.cli --help | true"
    done = subprocess.run(
        piped, shell=True, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_the_page_names_every_command():
    page = (ROOT / "docs" / "command_line.md").read_text()
    assert [name for name in COMMANDS if f"`odmt-sdk {name}" not in page] == []
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    assert len(lines) > 15
    from odmt_sdk.cli.entry_point import build_parser

    for line in lines:
        words = shlex.split(line.partition(">")[0])
        if "--config" not in words:
            build_parser(words[1]).parse_args(words[1:])


def test_the_python_of_the_page_runs(work, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    page = (ROOT / "docs" / "command_line.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    features = ItemFeatures.open("features").standardize()
    split = leave_one_out(load_folder("shop").interactions, vocabulary=features.vocabulary)
    monkeypatch.chdir(tmp_path)
    values = {"features": features, "split": split}
    exec(block, values)
    assert len(values["result"].trials) == 2

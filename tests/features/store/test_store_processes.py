"""Features on disk, with killed processes and with processes that share the work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import LEFT_AT_EXIT, free_port, left_at_exit
from stored_catalogue import content, make_items

from odmt_sdk import ItemFeatures

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[2]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **variables,
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), *sys.path]),
    }
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=600
    )


KILLING = """
import os, random, shutil, signal, sys, time, traceback, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)  # a process with one thread can be forked
from stored_catalogue import content, make_items, store
from tiny_encoders import bert, vit

warnings.simplefilter("ignore")
encoders = {"text_encoder": bert(), "image_encoder": vit()}
reference, folder, kills = Path(sys.argv[1], "reference"), Path(sys.argv[1], "store"), 0
start = time.perf_counter()
store(make_items(), reference, **encoders)
whole, moments = time.perf_counter() - start, random.Random(0)
while kills < 10:
    shutil.rmtree(folder, ignore_errors=True)
    complete = False
    while not complete:
        child = os.fork()
        if child == 0:
            try:
                store(make_items(), folder, **encoders)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        if kills < 10:
            time.sleep(moments.uniform(0, whole / 2))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        kills += os.WIFSIGNALED(status)
        complete = not os.WIFSIGNALED(status)
    made, expected = content(folder), content(reference)
    assert made.keys() == expected.keys(), made.keys() ^ expected.keys()
    assert made == expected, [name for name in made if made[name] != expected[name]]
print(kills, "kills")
"""


def test_killed_at_ten_random_moments(tmp_path):
    done = run("-c", KILLING, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "10 kills\n"
    items = make_items()
    features = ItemFeatures.open(tmp_path / "store")
    assert features.vocabulary.item_ids == tuple(items["item_id"])
    present = [text is not None for text in items["text"]]
    assert (features["text"].lengths[1:] > 0).tolist() == present


SHARING = """
import os, sys, warnings
from pathlib import Path
import torch
from accelerate import PartialState
from stored_catalogue import make_items, store
from tiny_encoders import bert, vit

folder, ranks = Path(sys.argv[1]), int(sys.argv[2])
warnings.simplefilter("ignore")
encoders = {"text_encoder": bert(), "image_encoder": vit()}
shown, said = [], []
encoders["image_encoder"][0].register_forward_hook(lambda *arguments: shown.append(1))
torch.manual_seed(0)
for module in (encoders["text_encoder"][0], encoders["image_encoder"][0]):
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.5)
try:
    store({"item_id": ["a"], "image": [b"broken"]}, folder / "bad", **encoders, text="item_id")
except (ValueError, RuntimeError) as error:
    said.append(f"{type(error).__name__} refused")
features = store(make_items(), folder / "store", **encoders)
assert PartialState().num_processes == ranks, PartialState()
assert features.num_items == 23
said.append(f"rank {PartialState().process_index} made {len(shown)} batches")
Path(f"{folder}.{os.getpid()}.said").write_text("\\n".join(said))  # ranks may share one pipe
"""


def said_by_all_ranks(folder: Path) -> list[str]:
    files = folder.parent.glob(f"{folder.name}.*.said")
    return sorted(line for file in files for line in file.read_text().splitlines())


def test_two_processes_share_the_work_and_make_the_same_bytes(tmp_path):
    script = tmp_path / "share.py"
    script.write_text(SHARING)
    alone = run(str(script), str(tmp_path / "alone"), "1")
    assert alone.returncode == 0, alone.stderr[-4000:]
    script.write_text(LEFT_AT_EXIT + SHARING)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_port", str(free_port())]
    left = tmp_path / "left"
    shared = run(*launcher, str(script), str(tmp_path / "shared"), "2", LEFT_AT_EXIT=str(left))
    assert shared.returncode == 0, shared.stderr[-4000:]
    assert left_at_exit(left) == ["False", "False"]
    assert content(tmp_path / "shared" / "store") == content(tmp_path / "alone" / "store")
    assert said_by_all_ranks(tmp_path / "shared") == [
        "RuntimeError refused",  # the rank that waits for the failing one
        "ValueError refused",
        "rank 0 made 3 batches",
        "rank 1 made 3 batches",
    ]
    assert said_by_all_ranks(tmp_path / "alone") == ["ValueError refused", "rank 0 made 6 batches"]

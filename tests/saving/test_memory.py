"""Loading needs little more memory than the model itself."""

import json
from pathlib import Path

import pytest
from programs import run_python

SCRIPT = """
import json, sys, torch
from pathlib import Path
from odmt_sdk import ItemFeatures, ODMTConfig, ODMTWrapper, SASRec
torch.set_num_threads(1)

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

def make(width, num_items):
    return ODMTWrapper(SASRec(width), config=ODMTConfig(), vocabulary=range(num_items),
                       item_features=ItemFeatures.from_tensors(
                           item_ids=range(num_items), text=torch.zeros(num_items + 1, 1, 4)))

folder = Path(sys.argv[1])
if sys.argv[2] == "save":
    make(8, 10).save_pretrained(folder / "small")
    make(512, 9_000).save_pretrained(folder / "large", item_embeddings=False)
else:
    ODMTWrapper.from_pretrained(folder / "small")  # whatever is loaded with the first adapter
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory("VmRSS")
    model = ODMTWrapper.from_pretrained(folder / "large")
    print(json.dumps({
        "size": sum(file.stat().st_size for file in (folder / "large").iterdir()),
        "peak": memory("VmHWM") - before,
        "kept": memory("VmRSS") - before,
    }))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
def test_loading_100_mb_takes_no_more_than_a_fifth_above_its_size(tmp_path):
    run_python("-c", SCRIPT, tmp_path, "save", OMP_NUM_THREADS="1")
    found = json.loads(run_python("-c", SCRIPT, tmp_path, "load", OMP_NUM_THREADS="1"))
    print(found)
    assert 80e6 < found["size"] < 120e6
    assert found["kept"] > 0.9 * found["size"]  # the weights are in memory, not memory-mapped
    assert found["peak"] < 1.2 * found["size"]

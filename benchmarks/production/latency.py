"""Time of one history: the model in PyTorch, the exported graph, and ONNX Runtime.

    python -m benchmarks.production.latency [--repeats 500]

One thread, CPU time in milliseconds, shipped:films-sasrec.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.production.batch import ADAPTER, make_histories
from odmt_sdk import ODMTWrapper, export_user_encoder
from odmt_sdk.export import ExportedUserEncoder


def milliseconds(call: Callable[[list[list[str]]], object], histories: list[list[str]]) -> str:
    """Median and 95th percentile over single histories."""
    for history in histories[:20]:
        call([history])
    times = []
    for history in histories:
        start = time.process_time()
        call([history])
        times.append(1000 * (time.process_time() - start))
    return f"p50 {np.percentile(times, 50):6.2f} ms   p95 {np.percentile(times, 95):6.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=500)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    model = ODMTWrapper.from_pretrained(ADAPTER)
    histories = make_histories(model, repeats)
    print(f"model.encode_histories: {milliseconds(model.encode_histories, histories)}")
    print(f"model.recommend:        {milliseconds(model.recommend, histories)}")
    with tempfile.TemporaryDirectory() as name:
        for kind in ("torch_export", "onnx"):
            export_user_encoder(model, Path(name) / kind, format=kind)
            encoder = ExportedUserEncoder.open(Path(name) / kind, threads=1)
            print(f"{kind + ', encode:':24}{milliseconds(encoder.encode, histories)}")
            print(f"{kind + ', recommend:':24}{milliseconds(encoder.recommend, histories)}")


if __name__ == "__main__":
    main()

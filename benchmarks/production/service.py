"""Latency of the service at a fixed rate of requests, over loopback.

    python -m benchmarks.production.service [--rate 100] [--seconds 15]

The server is `examples/serve.py` with one thread of torch. Each request has one history and is sent
at its time, whether or not earlier ones are answered.
"""

import argparse
import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.production.batch import ADAPTER, make_histories

SERVE = Path(__file__).parents[2] / "examples" / "serve.py"


def start_server(port: int) -> subprocess.Popen:
    """The service as the docs start it, with one thread of torch."""
    command = [sys.executable, str(SERVE), ADAPTER, "--port", str(port), "--log-level", "warning"]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def ask(connection: http.client.HTTPConnection, history: list[str]) -> int:
    body = json.dumps({"histories": [history], "k": 10})
    connection.request("POST", "/recommend", body, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


def load(port: int, histories: list[list[str]], rate: float, workers: int) -> list[tuple]:
    """Seconds from the time each request was due to its answer, and its status."""
    due: queue.Queue = queue.Queue()
    found: list[tuple[float, str]] = []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while (entry := due.get()) is not None:
            when, history = entry
            try:
                status = str(ask(connection, history))
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status = type(error).__name__
            found.append((time.perf_counter() - when, status))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    for number, history in enumerate(histories):
        when = start + number / rate
        time.sleep(max(0.0, when - time.perf_counter()))
        due.put((when, history))
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    return found


def main() -> None:
    from odmt_sdk import ODMTWrapper

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    number = int(arguments.rate * arguments.seconds)
    histories = make_histories(ODMTWrapper.from_pretrained(ADAPTER), number)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start_server(port)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                ask(http.client.HTTPConnection("127.0.0.1", port, timeout=5), histories[0])
                break
            except OSError:
                time.sleep(0.2)
        load(port, histories[:50], arguments.rate, 8)  # warm
        found = load(port, histories, arguments.rate, 64)
    finally:
        server.terminate()
        server.wait(60)
    times = np.array([1000 * seconds for seconds, _ in found])
    errors = Counter(status for _, status in found if status != "200")
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    print(
        f"{arguments.rate:g} requests a second for {arguments.seconds:g} s: p50 {p50:.1f} ms, "
        f"p95 {p95:.1f} ms, p99 {p99:.1f} ms, "
        f"{errors.total()} errors of {len(found)} {dict(errors) or ''}"
    )


if __name__ == "__main__":
    main()

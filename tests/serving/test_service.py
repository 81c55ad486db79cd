"""The service on a local server: concurrent requests, reloads, invalid requests."""

import asyncio
import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from odmt_sdk import ItemFeatures, ODMTWrapper, SASRec
from odmt_sdk.outputs import Recommendations
from odmt_sdk.serving import Limits, create_app
from odmt_sdk.serving.app import _Served
from odmt_sdk.serving.batching import RequestBatcher, TooBusyError

uvicorn = pytest.importorskip("uvicorn", reason="needs odmt-sdk[serve]")
pytest.importorskip("fastapi", reason="needs odmt-sdk[serve]")

ITEM_IDS = list(range(101, 141))
LIMITS = Limits(
    max_request_bytes=20_000, max_histories=8, max_history_length=50, max_k=20, reload_seconds=0.1
)


def make_model(seed, features):
    torch.manual_seed(seed)
    return ODMTWrapper(SASRec(16, max_seq_length=6), features).eval()


@pytest.fixture(scope="module")
def features():
    torch.manual_seed(0)
    return ItemFeatures.from_tensors(
        item_ids=ITEM_IDS, text=torch.randn(41, 2, 8), image=torch.randn(41, 2, 6)
    )


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(app):
    """Run a server in a thread, on a free local port."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


def ask(port, path, body=None, *, raw=None):
    """Send a request on a new connection; return status and JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        if body is None and raw is None:
            connection.request("GET", path)
        else:
            data = raw if raw is not None else json.dumps(body).encode()
            connection.request("POST", path, data, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def model(features):
    return make_model(1, features)


@pytest.fixture(scope="module")
def port(model, tmp_path_factory):
    folder = model.save_pretrained(tmp_path_factory.mktemp("adapter"))
    metadata = {101: {"title": "A mug"}}
    with running(create_app(folder, metadata=metadata, limits=LIMITS)) as port:
        yield port


def some_histories(number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        [ITEM_IDS[row] for row in torch.randint(40, (length,), generator=generator).tolist()]
        for length in torch.randint(1, 9, (number,), generator=generator).tolist()
    ]


def test_recommends_what_the_model_does(port, model):
    histories = some_histories(8)
    status, answer = ask(port, "/recommend", {"histories": histories, "k": 5})
    assert status == 200
    expected = model.recommend(histories, k=5)
    found = answer["recommendations"]
    assert [[one["item_id"] for one in user] for user in found] == expected.item_ids
    for user, scores in zip(found, expected.scores, strict=True):
        assert [one["score"] for one in user] == pytest.approx(scores, rel=1e-4, abs=1e-5)
    titles = {one["item_id"]: one.get("title") for user in found for one in user}
    assert all((title == "A mug") == (item == 101) for item, title in titles.items())


def test_similar_items(port, model):
    status, answer = ask(port, "/similar", {"item_ids": [101, 7, 140], "k": 4, "source": "text"})
    assert status == 200
    expected = model.similar_items([101, 140], k=4, source="text").item_ids
    found = [[one["item_id"] for one in item] for item in answer["similar"]]
    assert found == [expected[0], [], expected[1]]


def test_health(port):
    status, answer = ask(port, "/health")
    assert (status, answer["status"], answer["items"]) == (200, "ok", 40)


def test_unknown_items_are_left_out_or_refused(port, model):
    asked = {"histories": [[101, 7], [7]], "k": 3}
    status, answer = ask(port, "/recommend", asked)
    assert status == 200
    found = [[one["item_id"] for one in user] for user in answer["recommendations"]]
    assert found == [model.recommend([[101]], k=3).item_ids[0], []]
    status, answer = ask(port, "/recommend", {**asked, "unknown": "error"})
    assert (status, answer["detail"][:21]) == (422, "item id 7 is unknown;")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"histories": []}, 422),
        ({"histories": [[101]], "k": 0}, 422),
        ({"histories": [[101]], "k": 21}, 422),
        ({"histories": [[101]], "k": "many"}, 422),
        ({"histories": [[1.5]]}, 422),
        ({"histories": [[True]]}, 422),
        ({"histories": [[None]]}, 422),
        ({"histories": [101]}, 422),
        ({"histories": "101"}, 422),
        ({"histories": [[101]] * 9}, 422),
        ({"histories": [[101] * 51]}, 422),
        ({"histories": [[101]], "kk": 3}, 422),
        ({"histories": [["x" * 30_000]]}, 413),
    ],
)
def test_malformed_and_huge_requests(port, body, status):
    assert ask(port, "/recommend", body)[0] == status
    assert ask(port, "/recommend", {"histories": [[101]]})[0] == 200


def test_bodies_that_are_no_json_or_lie_about_their_size(port):
    assert ask(port, "/recommend", raw=b"{")[0] == 422
    assert ask(port, "/recommend", raw=b"[" * 10_000)[0] in (400, 422)
    assert ask(port, "/similar", raw=b"\xff\xfe")[0] in (400, 422)
    chunks = iter([b'{"histories": [["', b"x" * 30_000, b'"]]}'])
    assert ask(port, "/recommend", raw=chunks)[0] == 413  # sent in chunks
    assert ask(port, "/similar", {"item_ids": [101], "source": "sound"})[0] == 422
    assert ask(port, "/recommend", {"histories": [[101]]})[0] == 200


@pytest.mark.parametrize("chunks", [1, 10], ids=["announced", "in-chunks"])
def test_a_client_that_still_sends_a_refused_body_sees_why(port, chunks):
    piece = b"x" * (500_000 // chunks)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def slowly():
        for _ in range(chunks):
            time.sleep(0.02)
            yield piece

    headers = {"content-type": "application/json"}
    body = piece if chunks == 1 else slowly()
    connection.request("POST", "/recommend", body, headers)
    response = connection.getresponse()
    assert response.status == 413
    assert "20000 bytes" in json.loads(response.read())["detail"]
    connection.close()


def test_a_refused_body_without_an_end_is_not_read_forever(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(
            b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 900000\r\n\r\n" + b"x" * 30_000
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_a_client_that_asks_before_it_sends_is_refused_at_once(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(
            b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"expect: 100-continue\r\ncontent-length: 900000\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_hundreds_of_requests_at_once(port, model):
    histories = some_histories(300, seed=3)
    expected = model.recommend(histories, k=5).item_ids

    def one(number):
        status, answer = ask(port, "/recommend", {"histories": [histories[number]], "k": 5})
        return status, [item["item_id"] for item in answer["recommendations"][0]]

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(one, range(300)))
    assert answers == [(200, items) for items in expected]


def test_reloads_under_load_without_a_dropped_request(features, tmp_path):
    before, after = make_model(1, features), make_model(2, features)
    folder = before.save_pretrained(tmp_path / "adapter")
    history = some_histories(1, seed=5)
    answers_of = [one.recommend(history, k=5).item_ids[0] for one in (before, after)]
    assert answers_of[0] != answers_of[1]
    seen, done = [], threading.Event()

    def client():
        while not done.is_set():
            status, answer = ask(port, "/recommend", {"histories": history, "k": 5})
            seen.append((status, [item["item_id"] for item in answer["recommendations"][0]]))

    with running(create_app(folder, limits=LIMITS)) as port:
        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        after.save_pretrained(folder)
        deadline = time.monotonic() + 60
        while ask(port, "/health")[1]["reloads"] < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        # if an adapter cannot be loaded, the current one stays active
        (folder / "config.json").write_text("{}")
        time.sleep(0.5)
        done.set()
        for thread in threads:
            thread.join(60)
        assert ask(port, "/health")[1]["reloads"] == 1
    assert {status for status, _ in seen} == {200}
    items = [items for _, items in seen]
    assert answers_of[0] in items
    assert items[-1] == answers_of[1]
    assert all(one in answers_of for one in items)


def test_both_steps_of_a_save_are_one_change(features, tmp_path):
    """`config.json` is written twice. A load that fails in between is tried again."""
    folder = make_model(1, features).save_pretrained(tmp_path / "adapter")
    served = _Served(folder, {})
    assert not served.changed()
    make_model(2, features).save_pretrained(folder)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text("{")  # a load would fail now
    assert served.changed()
    (folder / "new").write_text(config)
    os.replace(folder / "new", folder / "config.json")
    assert served.changed()
    served.reload()
    (folder / "new").write_text(config + "\n")
    os.replace(folder / "new", folder / "config.json")
    assert not served.changed()


def test_requests_under_way_are_answered_at_the_end(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "adapter")
    slow = Limits(batch_wait=1.0)
    with (
        concurrent.futures.ThreadPoolExecutor(5) as pool,
        running(create_app(folder, limits=slow)) as port,
    ):
        asked = [pool.submit(ask, port, "/recommend", {"histories": [[101]]}) for _ in range(5)]
        time.sleep(0.3)  # all five requests are waiting for a batch when the server is stopped
    assert [one.result(60)[0] for one in asked] == [200] * 5


def test_too_many_waiting_requests_are_refused(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "adapter")
    app = create_app(folder, limits=Limits(batch_wait=2.0, max_waiting=2))
    with running(app) as port, concurrent.futures.ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(ask, port, "/recommend", {"histories": [[101]]}) for _ in range(10)]
        counts = collections.Counter(one.result(60)[0] for one in asked)
    assert set(counts) == {200, 503}
    assert counts[200] >= 2
    assert counts[503] >= 1


def test_a_request_that_waits_for_too_long_is_refused(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "adapter")
    app = create_app(folder, limits=Limits(batch_wait=0.2, max_waiting_seconds=0.01))
    with running(app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps({"histories": [[101]]})
        connection.request("POST", "/recommend", body, {"content-type": "application/json"})
        response = connection.getresponse()
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert "try again later" in json.loads(response.read())["detail"]
        connection.close()
        assert ask(port, "/health")[0] == 200


def test_similar_items_are_bounded_too():
    def busy(*_):
        time.sleep(0.2)
        return Recommendations([], [])

    async def scenario():
        batcher = RequestBatcher(busy, batch_size=1, wait=0.0, max_waiting=2, max_seconds=0.1)
        batcher.start()
        asked = [asyncio.create_task(batcher.in_thread(busy)) for _ in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        await batcher.stop()
        return [type(one) for one in found]

    # the first one works, the second one waits for too long, the third one finds no room
    assert asyncio.run(scenario()) == [Recommendations, TooBusyError, TooBusyError]


@pytest.mark.slow
def test_the_example_keeps_idle_connections_and_ends_in_peace():
    """A client may send on a connection that has been idle for longer than uvicorn's default."""
    port, root = free_port(), Path(__file__).parents[2]
    command = [sys.executable, str(root / "examples" / "serve.py"), "shipped:films-sasrec"]
    server = subprocess.Popen(
        [*command, "--port", str(port)], env={**os.environ, "PYTHONPATH": str(root)}
    )
    try:
        deadline = time.monotonic() + 120
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            try:
                connection.connect()
                break
            except OSError:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.2)
        body = json.dumps({"histories": [["1", "3114", "588"]], "k": 3})
        for pause in (6.0, 0.0):
            connection.request("POST", "/recommend", body, {"content-type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200
            assert len(json.loads(response.read())["recommendations"][0]) == 3
            time.sleep(pause)
        connection.close()
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) in (0, -signal.SIGTERM)


def test_without_fastapi(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ImportError, match=r"pip install odmt-sdk\[serve\]"):
        create_app("shipped:films-sasrec")


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("max_k", 0, "1"), ("max_waiting_seconds", 0.0, "0.001"), ("batch_wait", -1.0, "0")],
)
def test_limits_out_of_range(name, value, least):
    with pytest.raises(ValueError, match=f"{name}={value} must be at least {least}"):
        Limits(**{name: value})

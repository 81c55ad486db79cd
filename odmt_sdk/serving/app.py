"""`create_app`: an HTTP service for an adapter with `/recommend`, `/similar` and `/health`."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from odmt_sdk.errors import missing_library
from odmt_sdk.outputs import Recommendations
from odmt_sdk.serving.batching import History, RequestBatcher, TooBusyError
from odmt_sdk.serving.limits import Limits
from odmt_sdk.wrapper import ODMTWrapper

logger = logging.getLogger(__name__)

# How much of a refused body is read and thrown away, and for how long, before the answer is sent
_DISCARD_BYTES = 1 << 20
_DISCARD_SECONDS = 2.0

RETRY_AFTER_SECONDS = 1  # sent with the status 503


def create_app(
    adapter: str | Path,
    *,
    metadata: Mapping[Hashable, Mapping[str, Any]] | None = None,
    limits: Limits | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Any:
    """Create the FastAPI application that serves an adapter.

    Concurrent requests are scored in one batch. A request that finds the queue full, or waits in it
    for too long, gets the status 503 and the header Retry-After. If the adapter is a local folder
    and a new adapter is saved there, the service loads the new one in the background and then
    switches to it; no request is dropped. During the switch both models are in memory. If the new
    adapter cannot be loaded, the error is logged and the service continues with the old one.

    Args:
        adapter: path, repository or "shipped:..." for `ODMTWrapper.from_pretrained`.
        metadata: item id -> fields to add to each recommended item, such as its title.
        limits: limits on requests; None = `Limits()`.
        loading: additional arguments of `from_pretrained`, such as `backbone` or `revision`.

    Returns:
        A `fastapi.FastAPI` application, for uvicorn or any other ASGI server.

    Raises:
        AdapterError: if the adapter cannot be loaded.
        ImportError: if FastAPI is not installed (`pip install odmt-sdk[serve]`).

    Examples:
        >>> app = create_app("shipped:films-sasrec")                            # doctest: +SKIP
        >>> uvicorn.run(app, port=8000, timeout_keep_alive=75)                  # doctest: +SKIP
    """
    try:
        from fastapi import FastAPI, HTTPException
        from fastapi.responses import JSONResponse
        from pydantic import BaseModel, Field, StrictInt, StrictStr
    except ImportError as error:
        raise missing_library("the service needs FastAPI", error, "serve") from error
    limits = limits or Limits()
    served = _Served(adapter, dict(loading or {}))
    batcher = RequestBatcher(
        served.recommend,
        batch_size=limits.batch_size,
        wait=limits.batch_wait,
        max_waiting=limits.max_waiting,
        max_seconds=limits.max_waiting_seconds,
    )
    known = metadata or {}
    item_id = StrictInt | StrictStr
    positive = Annotated[int, Field(ge=1, le=limits.max_k)]

    class Asked(BaseModel, extra="forbid"):
        k: positive = 10
        unknown: Literal["skip", "error"] = "skip"

    class AskedToRecommend(Asked):
        histories: Annotated[
            list[Annotated[list[item_id], Field(max_length=limits.max_history_length)]],
            Field(min_length=1, max_length=limits.max_histories),
        ]
        exclude_seen: bool = True

    class AskedForSimilar(Asked):
        item_ids: Annotated[list[item_id], Field(min_length=1, max_length=limits.max_histories)]
        source: str | None = None

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        batcher.start()
        watching = asyncio.create_task(_watch(served, limits.reload_seconds))
        yield
        watching.cancel()
        await batcher.stop()

    app: Any = FastAPI(title="ODMT recommendations", lifespan=lifespan)
    app.add_middleware(_BodyLimit, max_bytes=limits.max_request_bytes)

    def described(items: Sequence[Hashable], scores: Sequence[float]) -> list[dict[str, Any]]:
        return [
            {**known.get(item, {}), "item_id": item, "score": score}
            for item, score in zip(items, scores, strict=True)
        ]

    def check(item_ids: Sequence[Hashable]) -> None:
        unknown = served.unknown(item_ids)
        if unknown:
            raise HTTPException(
                422, f"item id {unknown[0]!r} is unknown; send unknown='skip' to leave it out"
            )

    async def recommend(asked: AskedToRecommend) -> dict[str, Any]:
        if asked.unknown == "error":
            for history in asked.histories:
                check(history)
        found = await batcher.recommend(asked.histories, k=asked.k, exclude_seen=asked.exclude_seen)
        return {
            "recommendations": [
                described(items, scores)
                for items, scores in zip(found.item_ids, found.scores, strict=True)
            ]
        }

    async def similar(asked: AskedForSimilar) -> dict[str, Any]:
        if asked.unknown == "error":
            check(asked.item_ids)
        if asked.source is not None and asked.source not in served.model.sources:
            raise HTTPException(
                422, f"source={asked.source!r} is unknown; known are {list(served.model.sources)}"
            )
        found = await batcher.in_thread(
            lambda: served.similar(asked.item_ids, asked.k, asked.source)
        )
        return {
            "similar": [
                described(items, scores)
                for items, scores in zip(found.item_ids, found.scores, strict=True)
            ]
        }

    async def too_busy(request: Any, error: Exception) -> Any:
        return JSONResponse(
            {"detail": "too many requests are waiting; try again later"},
            status_code=503,
            headers={"retry-after": str(RETRY_AFTER_SECONDS)},
        )

    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "adapter": str(adapter),
            "items": served.model.num_items,
            "loaded": served.loaded,
            "reloads": served.reloads,
        }

    app.add_exception_handler(TooBusyError, too_busy)
    app.add_api_route("/recommend", recommend, methods=["POST"])
    app.add_api_route("/similar", similar, methods=["POST"])
    app.add_api_route("/health", health, methods=["GET"])
    return app


class _Served:
    """The model that answers requests, with reloading.

    Args:
        adapter: the adapter to load.
        loading: additional arguments of `from_pretrained`.
    """

    def __init__(self, adapter: str | Path, loading: dict[str, Any]) -> None:
        self._adapter, self._loading = adapter, loading
        self.reloads = 0
        self._state = self._look()
        self.model = self._load()

    def _load(self) -> ODMTWrapper:
        save = self._save_id()
        model = ODMTWrapper.from_pretrained(self._adapter, **self._loading)
        model.encode_catalogue()
        self.loaded = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._loaded_save = save
        return model

    def _look(self) -> tuple[int, int] | None:
        """Modification time and inode of `config.json`; they change when an adapter is saved."""
        try:
            about = (Path(self._adapter).expanduser() / "config.json").stat()
        except OSError:
            return None  # not a local folder, or the folder is being replaced
        return about.st_mtime_ns, about.st_ino

    def _save_id(self) -> str | None:
        """The name that every save gets; None = unknown."""
        try:
            config = json.loads((Path(self._adapter).expanduser() / "config.json").read_bytes())
        except (OSError, ValueError):
            return None
        return config.get("save_id") if isinstance(config, dict) else None

    def changed(self) -> bool:
        """Whether another adapter has been saved in the folder since the last check.

        A save writes `config.json` twice: with the names of the new files, and once these have the
        names of the old ones.
        """
        state = self._look()
        if state is None or state == self._state:
            return False
        self._state = state
        save = self._save_id()
        return save is None or save != self._loaded_save

    def reload(self) -> None:
        """Load the new adapter next to the current model, then switch to it."""
        self.model = self._load()
        self.reloads += 1

    def unknown(self, item_ids: Sequence[Hashable]) -> list[Hashable]:
        """The ids that are not in the model's vocabulary."""
        vocabulary = self.model.vocabulary
        assert vocabulary is not None  # a loaded adapter has items
        return [item_id for item_id in item_ids if item_id not in vocabulary]

    def recommend(
        self, histories: Sequence[History], k: int, exclude_seen: bool
    ) -> Recommendations:
        """Recommend items; a history without known items gets an empty list."""
        model = self.model  # the same model for the whole batch, even if a reload finishes
        vocabulary = model.vocabulary
        assert vocabulary is not None
        kept = [index for index, h in enumerate(histories) if any(i in vocabulary for i in h)]
        result = Recommendations([[] for _ in histories], [[] for _ in histories])
        if kept:
            found = model.recommend(
                [histories[index] for index in kept],
                k=min(k, model.num_items),
                exclude_seen=exclude_seen,
                unknown="skip",
            )
            for index, items, scores in zip(kept, found.item_ids, found.scores, strict=True):
                result.item_ids[index], result.scores[index] = items, scores
        return result

    def similar(self, item_ids: Sequence[Hashable], k: int, source: str | None) -> Recommendations:
        """Find similar items; an unknown item gets an empty list."""
        model = self.model
        vocabulary = model.vocabulary
        assert vocabulary is not None
        kept = [index for index, item_id in enumerate(item_ids) if item_id in vocabulary]
        result = Recommendations([[] for _ in item_ids], [[] for _ in item_ids])
        if kept:
            found = model.similar_items([item_ids[index] for index in kept], k=k, source=source)
            for index, items, scores in zip(kept, found.item_ids, found.scores, strict=True):
                result.item_ids[index], result.scores[index] = items, scores
        return result


async def _watch(served: _Served, seconds: float) -> None:
    """Check for a new adapter at regular intervals and load it; 0 seconds = never."""
    while seconds:
        await asyncio.sleep(seconds)
        if served.changed():
            try:
                # in another thread, so that the old model continues to answer
                await asyncio.to_thread(served.reload)
                logger.info("loaded the new adapter")
            except Exception as error:  # the old model continues to answer
                logger.error(
                    "the new adapter cannot be loaded, so the service keeps the old one: %s", error
                )


class _BodyLimit:
    """Middleware that refuses request bodies over a size limit, with or without Content-Length."""

    def __init__(self, app: Any, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._max_bytes:
            # `Expect: 100-continue`: the client waits for the answer and has sent nothing yet
            await self._refuse(None if b"expect" in headers else receive, send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                await self._refuse(receive if more else None, send)
                return
        sent = False

        async def read() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, read, send)

    async def _refuse(self, receive: Any, send: Any) -> None:
        if receive is not None:
            # a client that still sends when the connection closes may never see the answer
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._discard(receive), _DISCARD_SECONDS)
        text = f'{{"detail":"the body is larger than {self._max_bytes} bytes"}}'.encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    async def _discard(self, receive: Any) -> None:
        """Read the rest of a body that is refused, up to a limit, without keeping it."""
        discarded, more = 0, True
        while more and discarded < _DISCARD_BYTES:
            message = await receive()
            discarded += len(message.get("body", b""))
            more = message.get("more_body", False)  # absent when the client has gone

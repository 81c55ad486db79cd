"""Batching of concurrent requests: their histories are scored together in one thread.

Scoring 64 histories takes little more time than scoring one. A request therefore waits a few
milliseconds for others, and all waiting requests form one batch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from odmt_sdk.outputs import Recommendations

History = Sequence[Hashable]


class TooBusyError(Exception):
    """The queue of waiting requests is full, or a request has waited in it for too long."""


@dataclass
class _Waiting:
    histories: Sequence[History]
    k: int
    exclude_seen: bool
    until: float
    answer: "asyncio.Future[Recommendations]"


class RequestBatcher:
    """Collects the histories of concurrent requests and scores them in batches.

    Args:
        recommend: `(histories, k, exclude_seen) -> recommendations`; called in a separate thread.
        batch_size: number of histories per batch.
        wait: seconds to wait for further requests.
        max_waiting: largest number of waiting requests.
        max_seconds: longest time in seconds that a request waits before it is scored.
    """

    def __init__(
        self,
        recommend: Callable[[Sequence[History], int, bool], Recommendations],
        *,
        batch_size: int,
        wait: float,
        max_waiting: int,
        max_seconds: float,
    ) -> None:
        self._recommend = recommend
        self._batch_size, self._wait = batch_size, wait
        self._max_waiting, self._max_seconds = max_waiting, max_seconds
        self._waiting: deque[_Waiting] = deque()
        self._others = 0  # other work that waits for the thread
        self._closing = False
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="odmt-recommend")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start answering requests; call it inside the event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer all waiting requests, then stop."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=True)

    async def recommend(
        self, histories: Sequence[History], *, k: int, exclude_seen: bool
    ) -> Recommendations:
        """Recommend for the histories of one request.

        Args:
            histories: lists of item ids.
            k: number of items per history.
            exclude_seen: whether to leave out the items of the history.

        Returns:
            Recommendations for the histories of this request.

        Raises:
            TooBusyError: if the queue is full, or the request has waited in it for too long.
        """
        self._check_room()
        answer: asyncio.Future[Recommendations] = asyncio.get_running_loop().create_future()
        until = time.monotonic() + self._max_seconds
        self._waiting.append(_Waiting(histories, k, exclude_seen, until, answer))
        self._arrived.set()
        return await answer

    async def in_thread(self, work: Callable[[], Recommendations]) -> Recommendations:
        """Run other work on the model in the scoring thread, between two batches.

        Args:
            work: the work.

        Returns:
            What the work returns.

        Raises:
            TooBusyError: if the queue is full, or the work has waited in it for too long.
        """
        self._check_room()
        until = time.monotonic() + self._max_seconds

        def in_time() -> Recommendations:
            if time.monotonic() > until:
                raise TooBusyError
            return work()

        self._others += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, in_time)
        finally:
            self._others -= 1

    def _check_room(self) -> None:
        if len(self._waiting) + self._others >= self._max_waiting:
            raise TooBusyError

    async def _run(self) -> None:
        while not self._closing or self._waiting:
            await self._arrived.wait()
            if self._histories_waiting() < self._batch_size and not self._closing:
                await asyncio.sleep(self._wait)
            batch = self._take()
            if not self._waiting and not self._closing:
                self._arrived.clear()
            for exclude_seen in (True, False):
                group = [one for one in batch if one.exclude_seen is exclude_seen]
                if group:
                    await self._answer(group, exclude_seen)

    def _histories_waiting(self) -> int:
        return sum(len(one.histories) for one in self._waiting)

    def _take(self) -> list[_Waiting]:
        """Take the oldest requests, up to a full batch; refuse those that waited for too long."""
        batch: list[_Waiting] = []
        size, now = 0, time.monotonic()
        while self._waiting:
            one = self._waiting[0]
            if one.answer.done():  # the client has disconnected
                self._waiting.popleft()
            elif one.until < now:
                self._waiting.popleft().answer.set_exception(TooBusyError())
            elif batch and size + len(one.histories) > self._batch_size:
                break
            else:
                batch.append(self._waiting.popleft())
                size += len(one.histories)
        return batch

    async def _answer(self, group: list[_Waiting], exclude_seen: bool) -> None:
        histories = [history for one in group for history in one.histories]
        k = max(one.k for one in group)  # the top k of a longer list are the same
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._recommend, histories, k, exclude_seen
            )
        except Exception as error:  # every waiting request must receive the error
            for one in group:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        start = 0
        for one in group:
            rows = slice(start, start + len(one.histories))
            start = rows.stop
            if not one.answer.done():  # the client may have disconnected
                one.answer.set_result(
                    Recommendations(
                        [items[: one.k] for items in found.item_ids[rows]],
                        [scores[: one.k] for scores in found.scores[rows]],
                    )
                )

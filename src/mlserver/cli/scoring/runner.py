"""Runs a job: many requests at once, again where that helps, results in the order of the input."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ...batching.batch import RowsDisagree, split
from ...errors import MLServerError
from ...types import InferenceRequest, InferenceResponse
from ..terminal import CommandError
from .client import Client, Refusal
from .items import ItemFailure, ItemResult, WorkItem

T = TypeVar("T")

LONGEST_PAUSE = 30.0
# Works in a row of which nothing was answered; after so many, a refused batch is no longer taken apart.
HOPELESS = 3
# Works that are read ahead, for each that is under way.
AHEAD = 4


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try again, and how long to wait before.

    Attributes:
        retries: Further tries.
        first_pause: Seconds before the first of them; the next waits twice as long, and so on.
        interval: Seconds that each thread waits before each request.
        jitter: Up to so many more, by chance.
    """

    retries: int = 3
    first_pause: float = 1.0
    interval: float = 0.0
    jitter: float = 0.0

    def pause(self, attempt: int, after: float | None) -> float:
        """Seconds before try number `attempt` (1 = the first repetition); what the server asked for counts first."""
        if after is not None:
            return min(after, LONGEST_PAUSE)
        return float(min(self.first_pause * 2 ** (attempt - 1), LONGEST_PAUSE))


class Unreachable(CommandError):
    """Nobody is there any more: it is no use to go on."""


class ScoringJob:
    """Sends works to a server.

    Args:
        client: Who asks.
        workers: How many requests are under way at once.
    """

    def __init__(self, client: Client, workers: int, patience: RetryPolicy) -> None:
        self._client = client
        self._workers = workers
        self._patience = patience
        self._stopped = threading.Event()
        self._hopeless = 0

    def run(self, works: Iterator[WorkItem]) -> Iterator[list[ItemResult]]:
        """What came of every work, in order.

        Raises:
            Unreachable: the server cannot be reached any more.
        """
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="infer")
        under_way: deque[Future[list[ItemResult]]] = deque()
        complete = False
        try:
            for work in works:
                under_way.append(pool.submit(self.do, work))
                while len(under_way) >= AHEAD * self._workers or (
                    under_way and under_way[0].done()
                ):
                    yield self._noted(under_way.popleft().result())
            while under_way:
                yield self._noted(under_way.popleft().result())
            complete = True
        finally:
            if not complete:
                self._stopped.set()
                self._client.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _noted(self, done: list[ItemResult]) -> list[ItemResult]:
        answered = any(each.failure is None for each in done)
        self._hopeless = 0 if answered else self._hopeless + 1
        return done

    def do(self, work: WorkItem) -> list[ItemResult]:
        """All of one work; what is refused is taken apart, so that only the guilty items fail."""
        failed = [ItemResult(item, failure=failure) for item, failure in work.failed.items()]
        if work.request is None:
            return failed
        return sorted([*failed, *self._ask(work, work.request)], key=lambda done: done.item)

    def _ask(self, work: WorkItem, request: InferenceRequest) -> list[ItemResult]:
        try:
            response = self._patiently(request)
            parts = [response] if len(work.items) == 1 else split(response, work.rows)
        except Refusal as error:
            return self._apart(work, error.message, error.again)
        except RowsDisagree:
            return self._apart(
                work, "the model's answer has another number of rows than the batch", False
            )
        except MLServerError as error:
            return self._apart(work, error.message, False)
        return [
            ItemResult(item, own_id, request.id, part)
            for item, own_id, part in zip(work.items, work.ids, parts, strict=True)
        ]

    def _apart(self, work: WorkItem, message: str, temporary: bool) -> list[ItemResult]:
        """Both halves on their own; everything fails if there are none, or if that would not help."""
        if work.halves is None or temporary or self._hopeless >= HOPELESS:
            return [ItemResult(item, failure=ItemFailure(message)) for item in work.items]
        first, second = work.halves()
        return [*self.do(first), *self.do(second)]

    def _patiently(self, request: InferenceRequest) -> InferenceResponse:
        """Raises `Refusal` after the last try, and `Unreachable` if that is why."""
        patience = self._patience
        if patience.interval or patience.jitter:
            self._stopped.wait(patience.interval + patience.jitter * random.random())
        return patiently(lambda: self._client.infer(request), patience, self._stopped)


def patiently(ask: Callable[[], T], patience: RetryPolicy, stopped: threading.Event) -> T:
    """Ask until there is an answer, a final refusal, or no try left.

    Raises:
        Refusal: the last one.
        Unreachable: nobody was there at the last try either.
    """
    attempt = 0
    while True:
        try:
            return ask()
        except Refusal as error:
            attempt += 1
            if error.again and attempt <= patience.retries and not stopped.is_set():
                stopped.wait(patience.pause(attempt, error.after))
                continue
            if error.unreachable:
                raise Unreachable(error.message) from None
            raise

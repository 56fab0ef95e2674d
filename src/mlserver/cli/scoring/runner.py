"""Scoring job: sends many requests at once, retries them, and yields results in input order."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ...batching.batch import RowsDisagree, split
from ...errors import MLServerError
from ...types import InferenceRequest, InferenceResponse
from ..terminal import CommandError
from .client import Client, RequestFailed
from .items import ItemFailure, ItemResult, WorkItem

T = TypeVar("T")

MAX_RETRY_DELAY = 30.0
# Consecutive work items without any response, after which failed requests are no longer split.
MAX_FAILED_WORK_ITEMS = 3
# Work items read ahead, for each request in flight.
READ_AHEAD = 4


@dataclass(frozen=True)
class RetryPolicy:
    """Number of retries and the delays between requests.

    Attributes:
        retries: Retries after the first attempt.
        first_delay: Seconds before the first retry; doubled for each further retry.
        interval: Seconds that each thread waits before each request.
        jitter: Maximum of a random delay in seconds, added to `interval`.
    """

    retries: int = 3
    first_delay: float = 1.0
    interval: float = 0.0
    jitter: float = 0.0

    def get_delay(self, retry: int, retry_after: float | None) -> float:
        """Return the seconds before a retry (1 = the first); the server's `Retry-After` wins."""
        if retry_after is not None:
            return min(retry_after, MAX_RETRY_DELAY)
        return float(min(self.first_delay * 2 ** (retry - 1), MAX_RETRY_DELAY))


class Unreachable(CommandError):
    """The server cannot be reached, after all retries; the job ends."""


class ScoringJob:
    """Sends work items to a server.

    Args:
        workers: Maximum number of requests in flight.
    """

    def __init__(self, client: Client, workers: int, retry_policy: RetryPolicy) -> None:
        self._client = client
        self._workers = workers
        self._retry_policy = retry_policy
        self._stopped = threading.Event()
        self._failed_work_items = 0

    def run(self, work_items: Iterator[WorkItem]) -> Generator[list[ItemResult]]:
        """Yield the results of every work item, in order.

        Raises:
            Unreachable: the server cannot be reached any more.
        """
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="infer")
        pending: deque[Future[list[ItemResult]]] = deque()
        is_complete = False
        try:
            for work_item in work_items:
                pending.append(pool.submit(self.score, work_item))
                while pending and self._must_collect(pending):
                    yield self._collect(pending)
            while pending:
                yield self._collect(pending)
            is_complete = True
        finally:
            if not is_complete:
                self._stopped.set()
                self._client.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _must_collect(self, pending: deque[Future[list[ItemResult]]]) -> bool:
        return pending[0].done() or len(pending) >= READ_AHEAD * self._workers

    def _collect(self, pending: deque[Future[list[ItemResult]]]) -> list[ItemResult]:
        """Wait for the oldest work item, and count consecutive work items without a response."""
        results = pending.popleft().result()
        has_response = any(result.failure is None for result in results)
        self._failed_work_items = 0 if has_response else self._failed_work_items + 1
        return results

    def score(self, work_item: WorkItem) -> list[ItemResult]:
        """Return the results of one work item; split failed requests, to isolate failing items."""
        failed = [ItemResult(item, failure=failure) for item, failure in work_item.failed.items()]
        if work_item.request is None:
            return failed
        results = failed + self._send(work_item, work_item.request)
        return sorted(results, key=lambda result: result.item)

    def _send(self, work_item: WorkItem, request: InferenceRequest) -> list[ItemResult]:
        is_single = len(work_item.items) == 1
        try:
            response = self._send_with_retries(request)
            responses = [response] if is_single else split(response, work_item.rows)
        except RequestFailed as error:
            return self._score_halves(work_item, error.message, error.is_retryable)
        except RowsDisagree:
            message = "the model's response has another number of rows than the request"
            return self._score_halves(work_item, message, False)
        except MLServerError as error:
            return self._score_halves(work_item, error.message, False)
        return [
            ItemResult(item, item_id, request.id, item_response)
            for item, item_id, item_response in zip(
                work_item.items, work_item.ids, responses, strict=True
            )
        ]

    def _score_halves(
        self, work_item: WorkItem, message: str, is_retryable: bool
    ) -> list[ItemResult]:
        """Score both halves of a failed work item.

        All items fail with the message if the work item cannot be split, if the failure is
        temporary, or if the last MAX_FAILED_WORK_ITEMS work items had no response at all.
        """
        is_futile = is_retryable or self._failed_work_items >= MAX_FAILED_WORK_ITEMS
        if work_item.halves is None or is_futile:
            return [ItemResult(item, failure=ItemFailure(message)) for item in work_item.items]
        first, second = work_item.halves()
        return [*self.score(first), *self.score(second)]

    def _send_with_retries(self, request: InferenceRequest) -> InferenceResponse:
        """Raises `RequestFailed` or `Unreachable` after the last retry."""
        policy = self._retry_policy
        if policy.interval or policy.jitter:
            self._stopped.wait(policy.interval + policy.jitter * random.random())
        return call_with_retries(lambda: self._client.infer(request), policy, self._stopped)


def call_with_retries(
    function: Callable[[], T], policy: RetryPolicy, stopped: threading.Event
) -> T:
    """Call a function until it succeeds, fails permanently, or no retry is left.

    Raises:
        RequestFailed: the error of the last attempt.
        Unreachable: the server could not be reached in the last attempt.
    """
    retry = 0
    while True:
        try:
            return function()
        except RequestFailed as error:
            retry += 1
            if error.is_retryable and retry <= policy.retries and not stopped.is_set():
                stopped.wait(policy.get_delay(retry, error.retry_after))
                continue
            if error.is_unreachable:
                raise Unreachable(error.message) from None
            raise

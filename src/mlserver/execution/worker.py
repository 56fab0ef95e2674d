"""A worker process: reads frames, lets the runner do what they ask, writes the answers.

Started by the pool as `python -m mlserver.execution.worker FD`. It ends when the server's end of the channel closes, and
the kernel ends it should the server be killed. It never imports a front end.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import trust
from ..errors import MLServerError
from ..logging import configure_logger, get_logger
from ..settings import ModelSettings, Settings
from ..stage import Call
from ..tracing import get_tracer_provider, publish
from ..types import InferenceRequest
from .channel import Channel, open_channel
from .executor import HTTPRequest
from .frames import Frame, Kind, pack_error, pack_response, unpack_request
from .runner import Runner

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = get_logger()


class _Inbox:
    """The requests of one stream, pulled from the server one at a time, so that neither end piles them up."""

    def __init__(self, pull: Callable[[], None]) -> None:
        self._pull = pull
        self._items: asyncio.Queue[InferenceRequest | None] = asyncio.Queue()

    def put(self, item: InferenceRequest | None) -> None:
        self._items.put_nowait(item)

    async def __aiter__(self) -> AsyncIterator[InferenceRequest]:
        while True:
            self._pull()
            item = await self._items.get()
            if item is None:
                return
            yield item


class _Stream(NamedTuple):
    """An open stream: the requests that came, and the right to send a response for each that the server asked for."""

    inbox: _Inbox
    wanted: asyncio.Semaphore


class Worker:
    """Answers frames. One task per request; the reply carries the nanoseconds the model took."""

    def __init__(self) -> None:
        self._runner = Runner()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, _Stream] = {}
        self._channel: Channel | None = None
        self._done: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tracing: TracerProvider | None = None
        self._thread = threading.get_ident()
        self._actions: dict[int, Callable[[Frame], Coroutine[Any, Any, None]]] = {
            Kind.INIT: self._init,
            Kind.LOAD: self._load,
            Kind.UNLOAD: self._unload,
            Kind.INFER: self._infer,
            Kind.STREAM: self._stream,
            Kind.ROUTE: self._route,
        }

    async def serve(self, end: socket.socket) -> None:
        """Work until the channel closes."""
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self._channel = await open_channel(end, self._on_frame, self._on_closed)
        self._send(Kind.HELLO, 0, {"pid": os.getpid()})
        await self._done
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.shutdown)

    def _send(self, kind: Kind, frame_id: int, head: Any, buffers: list[Any] | None = None) -> None:
        assert self._channel is not None
        self._channel.send(Frame(kind, frame_id, head, buffers or ()))

    def _on_closed(self, reason: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _on_frame(self, frame: Frame) -> None:
        action = self._actions.get(frame.kind)
        if action is not None:
            if frame.kind == Kind.STREAM:
                self._open_stream(frame.id)
            task = asyncio.get_running_loop().create_task(self._answer(action, frame))
            self._tasks[frame.id] = task
        elif frame.kind == Kind.PING:
            self._send(Kind.REPLY, frame.id, None)
        elif frame.kind == Kind.CANCEL:
            self._streams.pop(frame.id, None)
            task_to_cancel = self._tasks.pop(frame.id, None)
            if task_to_cancel is not None:
                task_to_cancel.cancel()
        elif frame.id in self._streams:
            stream = self._streams[frame.id]
            if frame.kind == Kind.PULL:
                stream.wanted.release()
            else:
                stream.inbox.put(unpack_request(frame.head, frame.buffers) if frame.kind == Kind.ITEM else None)

    async def _answer(self, action: Callable[[Frame], Coroutine[Any, Any, None]], frame: Frame) -> None:
        try:
            await action(frame)
        except asyncio.CancelledError as problem:
            # Cancelled by its caller (who no longer listens) or raised by the model itself (who must be answered).
            self._send(Kind.ERROR, frame.id, pack_error(problem))
        except Exception as problem:
            self._send(Kind.ERROR, frame.id, pack_error(problem))
        finally:
            self._tasks.pop(frame.id, None)

    # -- one method per kind of request --

    async def _init(self, frame: Frame) -> None:
        settings = Settings.from_frame(frame.head["settings"])
        configure_logger(settings)
        trust.apply(settings)
        sys.path[:0] = [path for path in frame.head["sys_path"] if path not in sys.path]
        from .. import metrics

        metrics.set_sink(self._send_metric)
        if settings.tracing_server:
            self._start_tracing(settings)
        self._send(Kind.REPLY, frame.id, None)

    def _start_tracing(self, settings: Settings) -> None:
        """Spans of the models' own code; without the libraries (in an environment of a model's) there are none."""
        try:
            self._tracing = get_tracer_provider(settings)
        except MLServerError as problem:
            logger.warning("%s", problem)
        if self._tracing is not None:
            publish(self._tracing)

    def _send_metric(self, observation: Sequence[Any]) -> None:
        """Pass on what a model logs, from whichever thread it does."""
        assert self._loop is not None
        if threading.get_ident() == self._thread:
            self._send(Kind.METRICS, 0, list(observation))
        else:
            self._loop.call_soon_threadsafe(self._send, Kind.METRICS, 0, list(observation))

    async def _load(self, frame: Frame) -> None:
        info = await self._runner.load(frame.head["key"], ModelSettings.from_frame(frame.head["settings"]))
        # A model's libraries are a million objects that live as long as it does: the collector need not visit them, and
        # requests need not wait for it.
        gc.freeze()
        self._send(Kind.REPLY, frame.id, info.to_plain())

    async def _unload(self, frame: Frame) -> None:
        done = await self._runner.unload(frame.head["key"])
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._send(Kind.REPLY, frame.id, done)

    async def _infer(self, frame: Frame) -> None:
        key, deadline, members, trace_parent, values = frame.head
        call = Call(deadline=deadline, members=members)
        if self._tracing is not None:
            call.trace_parent = trace_parent
        request = unpack_request(values, frame.buffers)
        started = time.perf_counter_ns()
        response = await self._runner.infer(key, request, call)
        elapsed = time.perf_counter_ns() - started
        buffers: list[Any] = []
        head = [elapsed, pack_response(response, buffers)]
        self._send(Kind.REPLY, frame.id, head, buffers)

    def _open_stream(self, frame_id: int) -> None:
        """At once, not when the stream's task first runs: the frames that follow may have come with this one."""
        inbox = _Inbox(lambda: self._send(Kind.PULL, frame_id, None))
        self._streams[frame_id] = _Stream(inbox, asyncio.Semaphore(0))

    async def _stream(self, frame: Frame) -> None:
        stream = self._streams[frame.id]
        try:
            async for response in self._runner.stream(frame.head["key"], aiter(stream.inbox)):
                await stream.wanted.acquire()
                buffers: list[Any] = []
                self._send(Kind.ITEM, frame.id, pack_response(response, buffers), buffers)
            self._send(Kind.END, frame.id, None)
        finally:
            self._streams.pop(frame.id, None)

    async def _route(self, frame: Frame) -> None:
        key, method, path, query, headers = frame.head
        body = bytes(frame.buffers[0]) if frame.buffers else b""
        request = HTTPRequest(method, path, query, [(name, value) for name, value in headers], body)
        response = await self._runner.route(key, request)
        self._send(Kind.REPLY, frame.id, [response.status, response.headers], [response.body])


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the server dies, however it dies. Elsewhere the closed channel ends the worker."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


# Container objects that are made between two looks of the collector; Python's own 700 are less than one batch makes.
GC_THRESHOLD = 20_000


def main() -> None:
    _die_with_parent()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGQUIT", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    run(Worker().serve(end))
    # Threads of the model's libraries may never end by themselves: the work is done, so leave.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where there is one, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


if __name__ == "__main__":
    main()

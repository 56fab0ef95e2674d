"""A worker process: receives frames, runs models and sends the answers.

The pool starts it as `python -m mlserver.parallel.worker.worker FD`. It exits when the server
closes the connection; the kernel kills it if the server dies. It never imports a front end.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from ... import isolation
from ...errors import MLServerError
from ...logging import configure_logger, get_logger
from ...security import code_policy
from ...settings import ModelSettings, Settings
from ...tracing import get_collector, get_tracer_provider, set_global_provider, shut_down
from ..child_main import extend_sys_path, run_child
from ..rpc.dispatcher import RPCHandler
from ..rpc.fd_passing import control_socket_from_fd, receive_fds
from ..rpc.protocol import Frame, MessageType
from .imported_modules import ImportedModules
from .model_runner import ModelRunner
from .session import PeerSession

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = get_logger()

# Threshold of the garbage collector's generation 0. One batch allocates more than the default 700
# objects.
GC_THRESHOLD = 20_000
# Objects that a fork does not freeze: a full collection of as many takes about 10 ms.
FREEZE_ABOVE = 100_000
# Seconds after a load at which new modules are reported: the load's own, and those that the first
# requests import.
REPORT_DELAYS = (5.0, 60.0)


class Worker:
    """The models of a worker process, and the sessions of the processes that call them.

    The server's session loads and unloads models and receives the metrics that they log; HTTP
    workers only call them.

    Args:
        is_forked: Whether this process is a fork of a template process.
    """

    def __init__(self, is_forked: bool = False) -> None:
        self._runner = ModelRunner(self._send_stalled, self._send_abandoned)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        server_handlers: dict[int, RPCHandler] = {
            MessageType.INIT: self._init,
            MessageType.LOAD: self._load,
            MessageType.UNLOAD: self._unload,
        }
        self._server = PeerSession(self._runner, server_handlers)
        self._tracing: TracerProvider | None = None
        self._collector = ""
        self._peers: set[asyncio.Task[None]] = set()
        self._loading: dict[str, asyncio.Event] = {}
        self._is_forked = is_forked
        self._is_frozen = False
        self._imported = ImportedModules()

    async def serve(self, end: socket.socket) -> None:
        """Serve until the server closes the connection."""
        await self._server.open(end)
        self._server.send(Frame(MessageType.READY, 0, {"pid": os.getpid()}))
        await self._server.wait_closed()
        if self._tracing is not None:
            await shut_down(self._tracing, self._collector)

    async def _init(self, frame: Frame) -> Frame:
        settings = Settings.from_frame(frame.head["settings"])
        configure_logger(settings)
        self._runner.request_timeout = settings.request_timeout
        self._runner.unload_timeout = settings.unload_timeout
        code_policy.install_policy(settings)
        extend_sys_path(frame.head["sys_path"])
        isolation.restrict(frame.head["allowed_code"])
        from ... import metrics

        metrics.set_sink(self._send_metric)
        metrics.adapt_when_imported()
        if get_collector(settings) is not None:
            self._start_tracing(settings)
        if "control_fd" in frame.head:
            control_socket = control_socket_from_fd(frame.head["control_fd"])
            self._loop.add_reader(control_socket, self._accept_peers, control_socket)
        return Frame(MessageType.REPLY, frame.id, None)

    def _start_tracing(self, settings: Settings) -> None:
        """Export spans of the models' code, if the environment of the worker has the libraries."""
        try:
            self._tracing = get_tracer_provider(settings)
            self._collector = str(get_collector(settings))
        except MLServerError as error:
            logger.warning("%s", error)
        if self._tracing is not None:
            set_global_provider(self._tracing)
            self._runner.is_traced = True

    def _accept_peers(self, control_socket: socket.socket) -> None:
        """Open a session for each HTTP worker whose connection has arrived."""
        for _, end in receive_fds(control_socket):
            task = self._loop.create_task(self._serve_peer(end))
            self._peers.add(task)
            task.add_done_callback(self._peers.discard)

    async def _serve_peer(self, end: socket.socket) -> None:
        peer = PeerSession(self._runner)
        await peer.open(end)
        await peer.wait_closed()

    def _send_metric(self, sample: Sequence[object]) -> None:
        """Send a metric that a model logs, from any thread."""
        frame = Frame(MessageType.METRICS, 0, list(sample))
        if threading.get_ident() == self._thread:
            self._server.send(frame)
        else:
            self._loop.call_soon_threadsafe(self._server.send, frame)

    def _send_stalled(self, key: str) -> None:
        self._server.send(Frame(MessageType.STALLED, 0, {"pid": os.getpid(), "key": key}))

    def _send_abandoned(self, key: str, count: int) -> None:
        head = {"pid": os.getpid(), "key": key, "count": count}
        self._server.send(Frame(MessageType.ABANDONED, 0, head))

    async def _load(self, frame: Frame) -> Frame:
        key, ended = frame.head["key"], asyncio.Event()
        self._loading[key] = ended
        try:
            settings = ModelSettings.from_frame(frame.head["settings"])
            info = await self._runner.load(key, settings, frame.head["trial_results"])
        finally:
            del self._loading[key]
            ended.set()
        self._freeze()
        for delay in REPORT_DELAYS:
            self._loop.call_later(delay, self._report_imports)
        return Frame(MessageType.REPLY, frame.id, info.to_plain())

    async def _unload(self, frame: Frame) -> Frame:
        if (ended := self._loading.get(frame.head["key"])) is not None:
            await ended.wait()  # the load was cancelled, and may succeed nevertheless
        is_unloaded = await self._runner.unload(frame.head["key"])
        if self._is_frozen:
            gc.unfreeze()
        gc.collect()
        self._freeze()
        return Frame(MessageType.REPLY, frame.id, is_unloaded)

    def _freeze(self) -> None:
        """Exclude the objects of models and their libraries from collections.

        They are up to a million objects that live as long as their model; a collection of them
        would delay requests. In a fork the libraries' objects are frozen already, by the template:
        thawing them writes into every page that the workers share.
        """
        if self._is_forked and not self._is_frozen and len(gc.get_objects()) < FREEZE_ABOVE:
            return
        gc.freeze()
        self._is_frozen = True

    def _report_imports(self) -> None:
        """Send the names of new modules, which the template imports for later workers."""
        names = self._imported.take_new()
        if names:
            self._server.send(Frame(MessageType.IMPORTED, 0, names))


async def _serve(end: socket.socket) -> None:
    await Worker().serve(end)


async def _serve_forked(end: socket.socket) -> None:
    await Worker(is_forked=True).serve(end)


def main(fd: int, is_forked: bool = False) -> NoReturn:
    """Run a worker.

    Args:
        fd: File descriptor of its connection to the server.
        is_forked: Whether this process is a fork of a template process.
    """
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    run_child(_serve_forked if is_forked else _serve, fd)


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""The server's end of one template process: import and fork requests, answered in order.

A template process (`parallel.worker.template`) has imported what workers need and nothing else; a
fork of it is a worker that shares these pages. It is one thread without an event loop, so a request
waits for the earlier ones.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from .forked import ForkedProcess
from .launchers import InterpreterLauncher, Launched
from .linux import start_adopting, stop_adopting

MAX_MESSAGE = 64 * 1024  # bytes


class TemplateEnded(Exception):
    """The template process ended before it answered."""


class ForkRefused(Exception):
    """The template cannot be forked; the text has the reason."""


class RequestNotSent(ForkRefused):
    """The request could not be sent to the template, which runs; others may be sent."""


class ModuleConflict(ForkRefused):
    """The template has imported a module that has the name of one that a model ships."""


class TemplateProcess:
    """A running template process.

    Args:
        command: Arguments that start it; its file descriptor is appended.
        variables: All of its environment variables.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self._control, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._answers: deque[asyncio.Future[dict[str, Any]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exit_code: asyncio.Future[int] | None = None
        self._ended = asyncio.Event()
        try:
            self._process: subprocess.Popen[bytes] = InterpreterLauncher(command, variables).start(
                [child_end.fileno()]
            )
        except BaseException:
            self._control.close()
            raise
        finally:
            child_end.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_ended(self) -> bool:
        return self._ended.is_set()

    def attach(self) -> None:
        """Receive answers on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._control, self._receive)

    async def import_modules(self, names: Sequence[str], is_background: bool = False) -> str | None:
        """Import modules; a module that cannot be imported is skipped.

        Args:
            is_background: Import with a tenth of a core, until `prioritize_imports`.

        Returns:
            Why the process cannot be forked afterwards, None if it can.

        Raises:
            TemplateEnded: the process ended first.
            RequestNotSent: the names cannot be sent.
        """
        request = {"import": list(names), "is_background": is_background}
        answer = await self._request(request, [])
        obstacle: str | None = answer["obstacle"]
        return obstacle

    def prioritize_imports(self) -> None:
        """Give imports in the background all processors: a fork waits for them."""
        self._request({"import": [], "is_background": False}, [])

    async def fork(
        self, fds: Sequence[int], variables: Mapping[str, str], shipped: Sequence[str]
    ) -> Launched:
        """Return a worker that has copies of these file descriptors.

        Args:
            variables: Environment variables that the worker sets before it loads a model.
            shipped: Top-level names of modules that a model ships, which must not be imported yet.

        Raises:
            ForkRefused: the process cannot be forked.
            RequestNotSent: the variables cannot be sent: they have more than about 208 KB.
            ModuleConflict: it has imported a module that the model ships.
            TemplateEnded: the process ended first.
            OSError: the system has no resources for another process.
        """
        request = {
            "fork": dict(variables),
            "server_pid": os.getpid(),
            "shipped": list(shipped),
        }
        start_adopting()
        answer = self._request(request, fds)
        # A cancelled caller leaves the request in the queue; the adoption lasts until its answer.
        answer.add_done_callback(lambda _: stop_adopting())
        try:
            values = await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(_end_unwanted)
            raise
        if values["obstacle"] is not None:
            raise ForkRefused(values["obstacle"])
        if values["conflict"] is not None:
            raise ModuleConflict(values["conflict"])
        if values["pid"] <= 0:
            raise OSError(-values["pid"], os.strerror(-values["pid"]))
        return Launched(ForkedProcess(values["pid"]), values["fds"], is_forked=True)

    def _request(
        self, request: dict[str, Any], fds: Sequence[int]
    ) -> asyncio.Future[dict[str, Any]]:
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if self.is_ended:
            _fail(answer, TemplateEnded())
            return answer
        message = msgspec.msgpack.encode(request)
        try:
            socket.send_fds(self._control, [message], list(fds))
        except ConnectionError:  # `_receive` reads the end, and then fails all answers
            pass
        except OSError as error:  # the message is too long, or the socket's queue is full
            text = f"a request of {len(message)} bytes could not be sent to the template process"
            _fail(answer, RequestNotSent(f"{text}: {error.strerror}"))
            return answer
        self._answers.append(answer)
        return answer

    def _receive(self) -> None:
        while True:
            try:
                message = self._control.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._on_ended()
                return
            answer = self._answers.popleft()
            if not answer.done():
                answer.set_result(msgspec.msgpack.decode(message))

    def _on_ended(self) -> None:
        if self.is_ended:
            return
        self._ended.set()
        if self._loop is not None:
            self._loop.remove_reader(self._control)
        self._control.close()
        self.kill()
        self._wait()
        while self._answers:
            _fail(self._answers.popleft(), TemplateEnded())

    def kill(self) -> None:
        """Send SIGKILL."""
        with suppress(OSError):
            self._process.kill()

    async def wait(self) -> int:
        """Return the exit code after the process has ended."""
        await self._ended.wait()
        return await asyncio.shield(self._wait())

    def _wait(self) -> asyncio.Future[int]:
        if self._exit_code is None:
            self._exit_code = asyncio.get_running_loop().run_in_executor(None, self._process.wait)
        return self._exit_code

    async def stop(self) -> None:
        """End the process; workers that it forked are not affected."""
        self.kill()
        self._on_ended()
        await self.wait()


def _fail(answer: asyncio.Future[dict[str, Any]], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # marks it as retrieved: its caller may be gone


def _end_unwanted(answer: asyncio.Future[dict[str, Any]]) -> None:
    """Kill the process of a fork whose caller was cancelled."""
    if answer.cancelled() or answer.exception() is not None:
        return
    pid = answer.result()["pid"]
    if pid > 0:
        with suppress(OSError):
            process = ForkedProcess(pid)
            process.kill()
            asyncio.get_running_loop().run_in_executor(None, process.wait)

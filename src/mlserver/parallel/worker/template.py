"""The template process: imports what workers need, and forks workers on request.

The server starts it as `python -m mlserver.parallel.worker.template FD` with one end of a socket
pair. It imports modules and does nothing else: no model, no event loop, no thread, no user code.

Each request is one message (MessagePack) and has one answer, in order:

- `{"import": [names], "is_background": whether workers run that need the processors}` ->
  `{"obstacle": why it cannot be forked now, or nil}`. In the background the imports get a small
  share of one processor, until the next message arrives: `processor_share`.
- `{"fork": {environment variables}, "server_pid": n, "shipped": [names]}`, with the worker's file
  descriptors -> `{"obstacle": why this process cannot be forked, or nil, "conflict": why it cannot
  be forked for this model, or nil, "pid": n (negative: an error number), "fds": [numbers]}`

A worker is forked twice, so that it becomes a child of the server (`processes.linux`), which reads
its exit code. The worker keeps running when this process dies, and the kernel kills it when the
server dies.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import select
import socket
import struct
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Any, NoReturn

import msgspec

from ..child_main import ignore_signals
from ..processes.linux import FORKING, TEMPLATE, WORKER, die_with_parent, set_process_name
from . import openblas
from .file_pages import release_file_pages
from .fork_safety import find_lasting_obstacle
from .processor_share import small_share

MAX_MESSAGE = 1024 * 1024  # bytes
MAX_FDS = 8
_PID = struct.Struct("<q")
# Seconds within which the kernel makes a forked worker a child of the server.
ADOPTION_TIMEOUT = 10.0
# Without a request for so long after a fork, the process releases memory that it needs for its
# imports only.
IDLE_SECONDS = 0.05


class Template:
    """The template's state.

    Args:
        control: The connection to the server.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)
        self._may_release = False
        self._known_fds = {0, 1, 2, control.fileno()}

    def serve(self) -> None:
        """Answer requests until the server closes the connection."""
        while True:
            if self._may_release and not self._wait(IDLE_SECONDS):
                self._may_release = False
                with small_share(self._wait):
                    release_file_pages()
            message, fds, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, MAX_FDS)
            if not message:
                return
            request = msgspec.msgpack.decode(message)
            if "import" in request:
                answer = self._import(request["import"], request["is_background"])
            else:
                answer = self._answer_fork(request, fds)
            self._control.send(msgspec.msgpack.encode(answer))

    def _wait(self, seconds: float) -> bool:
        """Wait for a message; return whether one has arrived."""
        return bool(self._poller.poll(1000 * seconds))

    def _import(self, names: Sequence[str], is_background: bool) -> dict[str, Any]:
        self._may_release = is_background
        with small_share(self._wait) if is_background else nullcontext():
            for name in names:
                import_quietly(name)
        return {"obstacle": find_lasting_obstacle(self._known_fds)}

    def _answer_fork(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        obstacle = find_lasting_obstacle({*self._known_fds, *fds})
        conflict = _find_shipped(request["shipped"])
        is_refused = obstacle is not None or conflict is not None
        pid = 0 if is_refused else self._fork(request, fds)
        self._may_release = True
        for fd in fds:
            os.close(fd)
        return {"obstacle": obstacle, "conflict": conflict, "pid": pid, "fds": fds}

    def _fork(self, request: dict[str, Any], fds: list[int]) -> int:
        """Return the process id of a new worker, or a negative error number."""
        # Collections in workers would write into the pages of these objects, which are shared.
        gc.freeze()
        read_end, write_end = os.pipe()
        try:
            forking = _fork()
            if not forking:
                self._fork_worker(request, fds, write_end)
        except OSError as error:
            os.close(read_end)
            os.close(write_end)
            return -(error.errno or 1)
        os.close(write_end)
        answer = os.read(read_end, _PID.size)
        os.close(read_end)
        # After this the worker is a child of the server.
        os.waitpid(forking, 0)
        if len(answer) != _PID.size:
            return -1
        return int(_PID.unpack(answer)[0])

    def _fork_worker(self, request: dict[str, Any], fds: list[int], write_end: int) -> NoReturn:
        """Fork the worker, report its id, and end this process between template and worker."""
        set_process_name(FORKING)
        forking_pid = os.getpid()
        try:
            pid = _fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid:
            with suppress(OSError):  # the template was killed
                os.write(write_end, _PID.pack(pid))
            os._exit(0)
        try:
            os.close(write_end)
            self._control.close()
            _become_worker(request, forking_pid)
            _run_worker(fds[0])
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(1)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of native threads; `find_obstacle` allows only harmless ones.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _find_shipped(names: Sequence[str]) -> str | None:
    imported = {name.partition(".")[0] for name in sys.modules}
    for name in names:
        if name in imported:
            return f"the model ships a module '{name}', and one of this name is imported"
    return None


def import_quietly(name: str) -> None:
    """Import a module; one that cannot be imported is left to the worker, which reports it."""
    if name in sys.modules:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except (Exception, SystemExit):
        return
    if name.partition(".")[0] == "tqdm" and hasattr(sys.modules.get("tqdm"), "tqdm"):
        # Otherwise the first progress bar starts a thread.
        sys.modules["tqdm"].tqdm.monitor_interval = 0


# -- in the worker --


def _become_worker(request: dict[str, Any], forking_pid: int) -> None:
    """Change this fork of the template into a process of its own."""
    set_process_name(WORKER)
    _wait_for_adoption(request["server_pid"], forking_pid)
    os.environ.update(request["fork"])
    openblas.set_threads(_read_openblas_threads())
    random.seed()
    for reseed in _iterate_reseeds():
        reseed()


def _wait_for_adoption(server_pid: int, forking_pid: int) -> None:
    """Return as a child of the server that dies with it.

    Exit if the server is gone, or another process is the parent: the template was killed during the
    fork, and the server adopts no orphan any more.
    """
    deadline = time.monotonic() + ADOPTION_TIMEOUT
    while os.getppid() == forking_pid and time.monotonic() < deadline:
        time.sleep(0.0005)
    if os.getppid() != server_pid:
        os._exit(1)
    die_with_parent()
    if os.getppid() != server_pid:  # the server died before the signal was set
        os._exit(1)


def _read_openblas_threads() -> int:
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    values = (os.environ.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdigit() and int(value)), 0)


def _iterate_reseeds() -> Iterator[Any]:
    """Yield functions that reseed the global generators of imported libraries."""
    for module, function in (("numpy.random", "seed"), ("torch", "seed")):
        if module in sys.modules:
            yield getattr(sys.modules[module], function)


def _run_worker(fd: int) -> NoReturn:
    from . import worker

    gc.enable()
    worker.main(fd, is_forked=True)


def main() -> NoReturn:
    die_with_parent()
    ignore_signals()
    set_process_name(TEMPLATE)
    gc.disable()
    from ...runtime_hooks import list_hooks
    from . import worker as worker  # what every worker imports

    list_hooks()  # once for all workers: reads the metadata of all installed packages
    Template(socket.socket(fileno=int(sys.argv[-1]))).serve()
    os._exit(0)


if __name__ == "__main__":
    main()

"""A container as a pod runs it, without a container runtime: namespaces, `setpriv`, a read-only
root, no capabilities, another user id, 64 KiB of shared memory, a network of its own.

    container = Container(["mlserver", "start", "/mnt/models"], env, volumes=[...])
    with Pod(container, tmp_path) as pod:
        pod.wait_for_probe(manifest["startupProbe"])

The command is process 1 of its process namespace. Its ports are those of the manifest, because no
other program shares its network; tests reach them through `Pod.request` and `Pod.forward`.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.pod_network import PodNetwork
from support.server import START_LIMIT, Log, check_exit

ADDRESS = "10.0.0.5"
CLONE_NEWNET = 0x40000000
REPOSITORY = Path(__file__).resolve().parents[2]
PATH = f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Volume:
    """A folder of the container; without a source it is an `emptyDir`."""

    path: str
    source: str | None = None
    read_only: bool = False


@dataclass(frozen=True)
class Modelcar:
    """KServe's sidecar for `oci://` models: `/mnt/models` becomes a link into its file system.

    Attributes:
        source: Folder of the model.
        start: A named pipe; the link is made when a writer closes it.
        new_root: An empty folder.
    """

    source: str
    start: str
    new_root: str


@dataclass(frozen=True)
class Container:
    """The configuration of a container.

    Attributes:
        env: All environment variables.
        root: The root file system; "/" is this machine's, with the tests' Python.
        groups: Supplementary groups.
    """

    command: Sequence[str]
    env: dict[str, str]
    volumes: Sequence[Volume] = ()
    uid: int = 1000
    gid: int = 0
    groups: Sequence[int] = ()
    root: str = "/"
    cwd: str = "/"
    read_only: bool = True
    modelcar: Modelcar | None = None
    hidden: Sequence[str] = field(default=("/mnt",))


class Pod:
    """A running container. The end of the block ends it with SIGTERM, as the kubelet does.

    Args:
        folder: An empty folder for mount points.
        grace: Seconds from SIGTERM to SIGKILL.
        network: The pod's network, for several containers and pods (`support.pod_network`); None =
            one of its own.
        neighbour: Another container of the pod, whose processes it shares; None = it shares none.
    """

    def __init__(
        self,
        container: Container,
        folder: Path,
        grace: float = 30,
        network: PodNetwork | None = None,
        neighbour: Pod | None = None,
    ) -> None:
        self.container, self.grace, self._pod_network = container, grace, network
        self._neighbour = neighbour
        self._new_root = folder / "root"
        self.address = ADDRESS if network is None else network.address

    def __enter__(self) -> Self:
        self._new_root.mkdir()
        closed, kept = [], []
        if self.container.root == "/":
            closed, kept = find_closed_folders(), find_needed_paths()
        description = {
            **asdict(self.container),
            "new_root": str(self._new_root),
            "address": ADDRESS if self._pod_network is None else "",
            "hidden": [*closed, *self.container.hidden],
            "kept": kept,
        }
        init = str(Path(__file__).with_name("pod_init.py"))
        command = [sys.executable, "-I", init, json.dumps(description)]
        if self._neighbour is None:
            command = [*UNSHARE, "--pid", *command]
        else:
            processes = f"--pid=/proc/{self._neighbour.pid}/ns/pid"
            command = ["nsenter", processes, *UNSHARE, *command]
        if self._pod_network is None:
            self._process = _start([*command[:1], "--net", *command[1:]])
        else:
            with self._pod_network.entered():
                self._process = _start(command)
        self.log = Log(self._process)
        self.wait(lambda: bool(self._list_children()), "its first process started")
        self.pid: int = self._list_children()[0]
        self._network = ThreadPoolExecutor(1, "pod", self._enter_network)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        check_exit("container", self.stop(), self.log, error)

    def stop(self) -> int | None:
        """Send SIGTERM, after the grace period SIGKILL. Returns the exit code; None = killed."""
        if not self.has_ended:
            self.send_signal(signal.SIGTERM)
        return self.wait_for_exit()

    def wait_for_exit(self) -> int | None:
        """Wait until the container exits; after the grace period, send SIGKILL and return None."""
        try:
            code: int | None = self._process.wait(self.grace)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            self._process.wait()
            code = None
        self.log.close()
        self._network.shutdown()
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to process 1 of the container."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def has_handler(self, number: signal.Signals) -> bool:
        """Whether the container's command handles a signal."""
        [line] = [line for line in self.status.splitlines() if line.startswith("SigCgt:")]
        return bool(int(line.split()[1], 16) >> (number - 1) & 1)

    @property
    def status(self) -> str:
        """`/proc/PID/status` of the container's command."""
        return Path(f"/proc/{self.pid}/status").read_text()

    @property
    def mounts(self) -> dict[str, str]:
        """Options of what is mounted in the container, by path."""
        lines = Path(f"/proc/{self.pid}/mounts").read_text().splitlines()
        return {path: options for _, path, _, options, *_ in map(str.split, lines)}

    @property
    def command(self) -> str:
        """The command line of process 1."""
        return Path(f"/proc/{self.pid}/cmdline").read_text().replace("\0", " ")

    @property
    def has_ended(self) -> bool:
        """Whether the container's command has exited."""
        return self._process.poll() is not None

    # -- requests --

    def probe(self, probe: dict[str, Any], ports: dict[str, int]) -> str:
        """Probe once, as the kubelet does. Returns "" for success, or the reason of the failure.

        Args:
            ports: The container's ports by name.
        """
        action = probe["httpGet"]
        port = ports.get(action["port"], action["port"])
        headers = {"User-Agent": "kube-probe/1.33", "Accept": "*/*", "Connection": "close"}
        try:
            status, _ = self.request(
                port, "GET", action["path"], headers=headers, timeout=probe["timeoutSeconds"]
            )
        except OSError as error:
            return str(error) or type(error).__name__
        return "" if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"

    def wait_for_probe(self, probe: dict[str, Any], ports: dict[str, int]) -> None:
        """Probe until success, for as long as the manifest allows (`failureThreshold`)."""
        limit = probe["periodSeconds"] * probe["failureThreshold"]
        self.wait(lambda: not self.probe(probe, ports), f"{probe} succeeded", limit)

    def request(
        self,
        port: int,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float = START_LIMIT,
    ) -> tuple[int, bytes]:
        """Send a request to the pod's address. Returns status and body; a dict is sent as JSON."""
        headers = {"Content-Type": "application/json"} | (headers or {})
        content = json.dumps(body).encode() if isinstance(body, dict) else body

        def exchange() -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(self.address, port, timeout=timeout)
            try:
                connection.request(method, path, content, headers)
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()

        return self._network.submit(exchange).result()

    @contextmanager
    def forward(self, port: int) -> Iterator[str]:
        """Forward one connection at a time to a port of the pod; yield the local `host:port`."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=self._forward, args=(listener, port), daemon=True).start()
            yield f"127.0.0.1:{listener.getsockname()[1]}"
            listener.shutdown(socket.SHUT_RDWR)

    def _forward(self, listener: socket.socket, port: int) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = self._network.submit(
                    socket.create_connection, (self.address, port)
                ).result()
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=copy_bytes, args=(source, target), daemon=True).start()

    def _enter_network(self) -> None:
        """Move this thread, not the process, into the pod's network."""
        with open(f"/proc/{self.pid}/ns/net") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    # -- waiting --

    def wait_for_line(self, text: str) -> None:
        """Return when the log contains `text`."""
        self.wait(lambda: text in self.log, f"the log contained {text!r}")

    def wait(self, condition: Callable[[], bool], what: str, limit: float = START_LIMIT) -> None:
        """Return when `condition()` holds, tried at every log line and every 50 ms."""
        deadline = time.monotonic() + limit
        while not condition():
            if self.has_ended:
                self.log.close()
                code = self._process.returncode
                raise AssertionError(f"the container exited with {code} before {what}:\n{self.log}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{limit} s passed before {what}:\n{self.log}")
            self.log.wait_for_line(0.05)

    def _list_children(self) -> list[int]:
        """The container's command, which is the child of `unshare`."""
        children = _list_children(self._process.pid)
        if self._neighbour is None:  # else a child of `nsenter` is between
            return children
        return [pid for child in children for pid in _list_children(child)]


UNSHARE = (
    *("unshare", "--mount", "--propagation", "private", "--ipc", "--uts"),
    *("--fork", "--kill-child"),
)


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _list_children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def copy_bytes(source: socket.socket, target: socket.socket) -> None:
    """Copy from one connection to the other until one of them ends."""
    with source, suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def find_needed_paths() -> list[str]:
    """Folders of the tests' Python and of the repository."""
    paths = [Path(sys.base_prefix), Path(sys.prefix), REPOSITORY]
    return [str(path) for path in dict.fromkeys(paths)]


def find_closed_folders() -> list[str]:
    """Folders around the needed ones that only root may enter, such as /root; outermost only."""
    closed = []
    for path in find_needed_paths():
        parents = reversed(Path(path).parents)
        outermost = next((str(parent) for parent in parents if _is_closed(parent)), None)
        if outermost is not None and outermost not in closed:
            closed.append(outermost)
    return closed


def _is_closed(folder: Path) -> bool:
    return not folder.stat().st_mode & stat.S_IXOTH


@cache
def why_not() -> str:
    """The reason why this machine cannot run a pod, or ""."""
    if os.geteuid() != 0:
        return "only root may create namespaces and become another user"
    missing = [name for name in ("unshare", "setpriv", "mount") if not shutil.which(name)]
    if missing:
        return f"{missing[0]} is not installed"
    done = subprocess.run(
        [*UNSHARE, "--pid", "--net", "true"], capture_output=True, text=True, check=False
    )
    return f"no namespaces: {done.stderr.strip()}" if done.returncode else ""

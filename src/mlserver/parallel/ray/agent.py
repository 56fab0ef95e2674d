"""The agent: a child process of the server, and its only connection to a Ray cluster.

A Ray driver exits with its cluster, and its calls block; a separate process isolates the server
from both. The agent polls the directory and the state of the applications, and sends changes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...errors import MLServerError, format_exception
from ...logging import configure_logger, get_logger
from ...settings import Settings
from ...settings.ray import RaySettings
from ..child_main import extend_sys_path, run_child
from ..rpc.connection import FramedConnection, open_connection
from ..rpc.dispatcher import RPCDispatcher
from ..rpc.protocol import Frame, MessageType
from .cluster import Cluster, configure_ray
from .uploads import Uploader

logger = get_logger()

POLL_INTERVAL = 0.5
# Seconds that a poll may take: a call of the directory (`cluster.CALL_TIMEOUT`), and to find its
# actor, which waits for a head node that is away.
POLL_TIMEOUT = 12.0
# Seconds between two reads of the state of the applications. A read costs Serve's controller more
# CPU time than a poll of the directory.
STATUS_INTERVAL = 2.0
# Seconds between two searches for applications that no server needs.
SWEEP_INTERVAL = 60.0
# Calls of the cluster at a time. A deletion takes one until the running requests have ended: with
# asyncio's default, 6 on two processors, polls would wait for deletions.
THREADS = 32
# Failed polls in sequence after which the agent ends; the server starts another.
MAX_FAILURES = 3


class ClusterAgent:
    """Runs the calls of the server, and reports the state of the cluster."""

    def __init__(self) -> None:
        self._server = self._secret = ""
        self._dispatcher = RPCDispatcher(
            {MessageType.INIT: self._init, MessageType.CLUSTER: self._run}, self._send
        )
        self._connection: FramedConnection | None = None
        self._closed = asyncio.Event()
        self._cluster: Cluster | None = None
        self._uploader: Uploader | None = None
        # Application -> options and settings of its deployment.
        self._deployments: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._models: dict[str, tuple[str, str, bytes]] = {}
        self._epoch = ""
        self._failures: dict[str, str] = {}
        self._sent: Any = None
        self._loops: list[asyncio.Task[None]] = []
        # Keeps the states in the order in which the directory was read.
        self._poll_lock = asyncio.Lock()

    async def serve(self, end: socket.socket) -> None:
        """Serve until the server closes the connection."""
        threads = ThreadPoolExecutor(THREADS, "mlserver-ray")
        asyncio.get_running_loop().set_default_executor(threads)
        self._connection = await open_connection(end, self._on_frame, self._on_closed)
        self._send(Frame(MessageType.READY, 0, {"pid": os.getpid()}))
        await self._closed.wait()

    def _send(self, frame: Frame) -> None:
        assert self._connection is not None
        self._connection.send(frame)

    def _on_frame(self, frame: Frame) -> None:
        self._dispatcher.dispatch(frame)

    def _on_closed(self, reason: Exception | None) -> None:
        self._dispatcher.close()
        self._closed.set()

    # -- calls of the server --

    async def _init(self, frame: Frame) -> Frame:
        """Connect to the cluster, and deploy the applications that are missing in it."""
        settings = Settings.from_frame(frame.head["settings"])
        configure_logger(settings)
        extend_sys_path(frame.head["sys_path"])
        self._server = frame.head["server"]
        self._cluster = Cluster(settings)
        try:
            self._secret = await asyncio.to_thread(self._cluster.connect)
        except Exception as error:
            raise MLServerError(_describe_refusal(settings, error), 503) from None
        limit = (settings.ray or RaySettings()).upload_limit
        self._uploader = Uploader(self._cluster.call, limit)
        self._deployments = {
            name: (options, model) for name, options, model in frame.head["deployments"]
        }
        self._models = {model: tuple(values) for model, values in frame.head["models"].items()}
        await self._poll()
        await self._check_applications()
        for work in (self._poll_forever(), self._check_forever()):
            self._loops.append(asyncio.create_task(work))
        return Frame(MessageType.REPLY, frame.id, None)

    async def _run(self, frame: Frame) -> Frame:
        name, arguments = frame.head[0], frame.head[1:]
        method: Callable[..., Any] = getattr(self, f"_run_{name}")
        return Frame(MessageType.REPLY, frame.id, await method(*arguments))

    async def _run_begin(self, *arguments: Any) -> Any:
        return await self._call("begin", *arguments)

    async def _run_use(self, application: str, options: dict[str, Any], settings: bytes) -> None:
        """Use an application that exists."""
        self._deployments[application] = (options, settings)
        await self._poll()

    async def _run_deploy(self, application: str, options: dict[str, Any], settings: bytes) -> None:
        assert self._cluster is not None
        self._failures.pop(application, None)
        try:
            await asyncio.to_thread(self._cluster.deploy, application, options, settings)
        except Exception as error:
            raise MLServerError(f"Ray refused the deployment: {_get_last_line(error)}") from None
        self._deployments[application] = (options, settings)
        await self._poll()

    async def _run_commit(
        self, model: str, application: str, digest: str, settings: bytes, is_new: bool = True
    ) -> None:
        """Make an application the current one; the new state is sent before the reply.

        With an older state, the server would conclude that another server has unloaded the model.
        """
        previous = self._models.get(model)
        self._models[model] = (application, digest, settings)
        try:
            await self._call("commit", model, application, digest, settings, is_new)
            await self._poll()
        except BaseException:  # the server abandons the load: do not restore it in a directory
            del self._models[model]
            if previous is not None:
                self._models[model] = previous
            raise

    async def _run_abandon(self, application: str) -> None:
        await self._call("abandon", application)

    async def _run_drop(self, model: str, application: str) -> None:
        """Remove a model; the state without it is sent before the reply."""
        if self._models.get(model, ("",))[0] == application:
            del self._models[model]
        await self._call("drop", model, application)
        await self._poll()

    async def _run_release(self, application: str) -> bool:
        """End the use of an application; delete it if no server uses it."""
        self._deployments.pop(application, None)
        is_unused = bool(await self._call("release", self._server, application))
        if is_unused:
            assert self._cluster is not None
            await asyncio.to_thread(self._cluster.delete, application)
        return is_unused

    async def _run_is_shared(self, application: str) -> bool:
        return bool(await self._call("is_shared", self._server, application))

    async def _run_wake(self, application: str) -> None:
        """Ask Serve for a first replica; return when it runs.

        Awaited without a thread: many models may wait for replicas that the cluster has no room
        for, and their number must not keep the agent from its other calls.
        """
        assert self._cluster is not None
        answer = await asyncio.to_thread(self._cluster.wake, application)
        limit = self._cluster.load_timeout
        try:
            async with asyncio.timeout(limit):
                await answer
        except TimeoutError:
            raise MLServerError(
                f"application '{application}' had no replica within {limit:g} s "
                "(setting 'load_timeout')",
                504,
            ) from None

    async def _run_leave(self, deletes: bool) -> None:
        """End the use of all applications, and disconnect.

        Args:
            deletes: Whether those that no other server uses are deleted.
        """
        for task in self._loops:
            task.cancel()
        if self._uploader is not None:
            self._uploader.close()
        assert self._cluster is not None
        applications = list(self._deployments)
        if deletes:
            for model, (application, *_) in list(self._models.items()):
                if not await self._run_is_shared(application):
                    await self._run_drop(model, application)
            await asyncio.gather(*map(self._run_release, applications))
        else:
            for application in applications:
                await self._call("release", self._server, application)
        await asyncio.to_thread(self._cluster.close)

    async def _call(self, method: str, *arguments: Any) -> Any:
        assert self._cluster is not None
        return await asyncio.to_thread(self._cluster.call, method, *arguments)

    # -- state of the cluster --

    async def _poll_forever(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            try:
                async with asyncio.timeout(POLL_TIMEOUT):
                    await self._poll()
                failures = 0
            except Exception as error:
                failures += 1
                self._sent = None  # the next state is sent, also if it is the same
                self._send(Frame(MessageType.CLUSTER_STATE, 0, None))
                logger.warning("Ray: the cluster does not answer: %s", _get_last_line(error))
                if failures == MAX_FAILURES:
                    self._closed.set()
                    return

    async def _check_forever(self) -> None:
        """Check the applications. Beside the polls: a deployment or a deletion takes its time."""
        swept = time.monotonic()
        while True:
            await asyncio.sleep(STATUS_INTERVAL)
            sweeps = time.monotonic() - swept > SWEEP_INTERVAL
            if sweeps:
                swept = time.monotonic()
            try:
                await self._check_applications(sweeps)
            except Exception as error:
                logger.warning("Ray: checking the applications failed: %s", _get_last_line(error))

    async def _poll(self) -> None:
        """Read the directory, and send the state if it has changed."""
        async with self._poll_lock:
            state = await self._read_directory()
            self._send_files(state["applications"])
            head = {
                "secret": self._secret,
                "applications": state["applications"],
                "models": state["models"],
                "failures": self._failures,
            }
            if head != self._sent:
                self._sent = {**head, "failures": dict(self._failures)}
                self._send(Frame(MessageType.CLUSTER_STATE, 0, head))

    def _send_files(self, applications: dict[str, dict[str, Any]]) -> None:
        """Start to send files that replicas have requested; the server needs no state of it."""
        for name, values in applications.items():
            missing = values.pop("missing")
            deployment = self._deployments.get(name)
            if self._uploader is not None and deployment is not None:
                self._uploader.update(missing, deployment[1])

    async def _read_directory(self) -> dict[str, Any]:
        """Return the state of a directory that has the models of this server.

        A restarted directory is empty, and it may restart at any time. A state is valid only if
        its epoch is the one that the models were added to.
        """
        while True:
            state: dict[str, Any] = await self._call("poll", self._server, list(self._deployments))
            if state["epoch"] == self._epoch:
                return state
            if self._models:
                await self._call("restore", self._models)
            self._epoch = state["epoch"]

    async def _check_applications(self, sweeps: bool = False) -> None:
        """Deploy the applications that this server uses and Serve does not have."""
        assert self._cluster is not None
        used = set(self._deployments)  # before the list: a deployment may end meanwhile
        applications = await asyncio.to_thread(self._cluster.list_applications)
        self._failures = {name: reason for name, reason in applications.items() if reason}
        for name in (used & self._deployments.keys()) - applications.keys():
            logger.warning("Ray: application '%s' is gone: deploying it again", name)
            await self._run_deploy(name, *self._deployments[name])
        if sweeps:
            for name in await asyncio.to_thread(self._cluster.delete_unused, list(applications)):
                logger.warning("Ray: deleted application '%s', which no server uses", name)


def _describe_refusal(settings: Settings, error: Exception) -> str:
    address = settings.ray.address if settings.ray is not None else "auto"
    cure = "start one with `ray start --head`, or set 'ray.address' (--address)"
    if type(error) is ConnectionError:  # Ray's own: a program listens there, and refuses it
        cure = (
            "if the cluster asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN; "
            "nodes and server need one version of Ray"
        )
    return f"no connection to the Ray cluster '{address}': {_get_last_line(error)}; {cure}"


def _get_last_line(error: Exception) -> str:
    """Return the last line of an exception's text: Ray adds tracebacks of other processes."""
    lines = format_exception(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


async def _serve(end: socket.socket) -> None:
    await ClusterAgent().serve(end)
    # Here: the end of the event loop waits for threads, whose calls of a cluster may never return.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    configure_ray()
    run_child(_serve, int(sys.argv[1]))

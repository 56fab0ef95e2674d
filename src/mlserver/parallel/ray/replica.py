"""A replica: the process of a Ray Serve deployment that runs one model.

The model runner and the port are in a thread with its own event loop, as in `parallel.in_process`;
Serve's threads only check the replica's health and stop it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from ... import isolation, metrics
from ...errors import MLServerError
from ...logging import configure_logger, get_logger
from ...security import code_policy
from ...settings import ModelSettings, Settings
from ...tracing import get_tracer_provider, set_global_provider, shut_down
from ...version import __version__
from ..child_main import extend_sys_path
from ..executor import ModelInfo
from ..model_source import get_source, with_resolved_uri
from ..rpc.protocol import pack_error
from ..worker.model_failures import prepare_loop, run_protected, with_result
from ..worker.model_runner import ModelRunner
from .autoscaling import BUSY
from .listener import ReplicaListener
from .node_files import NodeFiles, allow_copies
from .node_versions import PYTHON, SERVER, list_differences, read_versions

T = TypeVar("T")

logger = get_logger()

KEY_SUFFIX = "#ray"
# Seconds between two entries in the directory, which expire after `directory.REPLICA_LEASE`.
REGISTER_INTERVAL = 2.0
CALL_TIMEOUT = 5.0
CLAIM_INTERVAL = 0.2
# Seconds that the event loop of the models may take to run a callback.
LOOP_TIMEOUT = 1.0
WATCH_INTERVAL = 1.0


class ModelReplica:
    """The class of the Serve deployment. Its constructor loads the model and blocks.

    Args:
        application: Name of the Serve application.
        server_settings: Frame of the server's settings.
        model_settings: Frame of the model's settings.
        directory: Name and Ray namespace of the directory's actor.
        sys_path: Import folders of the server; those that this node has are used.
        files: Values of `ModelFiles` of the model.
        versions: Versions of packages in the server.
        later: Arguments of servers of later versions, which the comparison of versions refuses.
    """

    def __init__(
        self,
        application: str,
        server_settings: bytes,
        model_settings: bytes,
        directory: Sequence[str],
        sys_path: Sequence[str],
        files: Sequence[Sequence[Any]] = (),
        versions: Mapping[str, str] | None = None,
        **later: Any,
    ) -> None:
        extend_sys_path([folder for folder in sys_path if os.path.isdir(folder)])
        self._application = application
        self._id = uuid.uuid4().hex[:12]
        self._directory = _DirectoryClient(directory)
        versions = versions or {}
        self._check_version(versions)
        self._settings = Settings.from_frame(server_settings)
        self._model_settings = ModelSettings.from_frame(model_settings)
        self._files = NodeFiles(self._directory.call, application, files)
        self._key = f"{self._model_settings.name}{KEY_SUFFIX}"
        self._is_leaving = threading.Event()
        self._tracing: Any = None
        configure_logger(self._settings)
        self._differences = self._compare_packages(versions)
        code_policy.install_policy(self._settings)
        isolation.restrict(isolation.ANY_CODE)
        metrics.adapt_when_imported()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mlserver-models", daemon=True)
        self._thread.start()
        self._runner = ModelRunner(self._end_stalled)
        self._runner.request_timeout = self._settings.request_timeout
        self._runner.unload_timeout = self._settings.unload_timeout
        self._limit = self._model_settings.request_timeout or self._settings.request_timeout
        self._info = self._load()
        self._listener = ReplicaListener(
            self._runner, self._directory.read_secret(), self._describe, self._count_slots()
        )
        self._address = self._call(self._open())
        threading.Thread(target=self._register, name="mlserver-directory", daemon=True).start()
        threading.Thread(target=self._watch, name="mlserver-watch", daemon=True).start()

    def _check_version(self, versions: Mapping[str, str]) -> None:
        """Raise if the server has another version of this package, whose frames may differ."""
        theirs = versions.get(SERVER, __version__)
        if theirs != __version__:
            error = MLServerError(
                f"Node '{socket.gethostname()}': expected {SERVER} {theirs}, as the server has,"
                f" received {__version__}: install one version on all nodes",
                500,
            )
            self._fail(error)

    def _compare_packages(self, versions: Mapping[str, str]) -> list[str]:
        """Return packages with another version than the server's."""
        own = read_versions(self._model_settings.implementation_)
        is_compared = PYTHON in versions
        differences = list_differences(versions, own) if is_compared else []
        if differences:
            logger.warning(
                "Model '%s': versions of this node differ: %s",
                self._model_settings.name,
                "; ".join(differences),
            )
        return differences

    def _fail(self, error: MLServerError) -> NoReturn:
        """Report why the model is not loaded, and end the constructor."""
        self._directory.call("report_error", self._application, self._id, pack_error(error))
        # Ray cannot unpickle exceptions of a model's libraries: raise their text alone.
        raise RuntimeError(error.message) from None

    # -- the models' thread --

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        prepare_loop(self._loop)
        run_protected(self._loop, self._loop.run_forever, self._is_leaving.is_set)

    def _call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine in the models' thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(with_result(work), self._loop).result(timeout)

    def _load(self) -> ModelInfo:
        """Load the model, after the first replica of the application has loaded it."""
        settings, trials = self._model_settings, None
        details = self._directory.wait_for_turn(self._application, self._id)
        if details is not None:
            settings = with_resolved_uri(settings, details["source"])
            trials = details["info"]["trial_results"]
        claim = _RenewedClaim(self._directory, self._application, self._id)
        try:
            with claim:
                settings, copies = self._files.provide(settings)
                if copies:
                    code_policy.install_policy(allow_copies(self._settings, copies))
                return self._call(self._runner.load(self._key, settings, trials))
        except MLServerError as error:
            self._fail(error)

    async def _open(self) -> tuple[str, int]:
        import ray

        self._start_tracing()
        metrics.set_sink(self._send_metric)
        return await self._listener.open(ray.util.get_node_ip_address())

    def _start_tracing(self) -> None:
        """Export spans of the model's code, if the environment of the replica has the libraries."""
        try:
            self._tracing = get_tracer_provider(self._settings)
        except MLServerError as error:
            logger.warning("%s", error)
        if self._tracing is not None:
            set_global_provider(self._tracing)
            self._runner.is_traced = True

    def _count_slots(self) -> int:
        """Return the calls that run at a time in a busy replica: one batch, or several calls."""
        joins = self._info.row_wise and self._model_settings.max_concurrency is None
        return 1 if joins else self._info.max_concurrency

    def _describe(self) -> dict[str, Any]:
        return {
            "key": self._key,
            "info": self._info.to_plain(),
            "pid": os.getpid(),
            "version": __version__,
            "node": socket.gethostname(),
            "differences": self._differences,
        }

    def _send_metric(self, sample: Sequence[object]) -> None:
        self._loop.call_soon_threadsafe(self._listener.send_metric, list(sample))

    # -- directory and health --

    def _register(self) -> None:
        """Renew the entry in the directory until the replica ends."""
        details = {"info": self._info.to_plain(), "source": get_source(self._info)}
        entry = [self._application, self._id, self._address]
        while not self._is_leaving.is_set():
            with contextlib.suppress(Exception):  # the actor restarts, or its node is unreachable
                if self._directory.call("register", *entry):
                    self._directory.call("register", *entry, details)
            self._is_leaving.wait(REGISTER_INTERVAL)

    def _watch(self) -> None:
        """End this process if a call exceeds its limit and the event loop is blocked."""
        while not self._is_leaving.wait(WATCH_INTERVAL):
            limit = self._limit
            if limit is None or self._listener.busy.get_oldest() <= limit:
                continue
            try:
                self._call(asyncio.sleep(0), LOOP_TIMEOUT)
            except TimeoutError:
                self._end(f"stuck in a request past its time limit of {limit:g} s")

    def _end_stalled(self, key: str) -> None:
        self._end(f"no call of model '{self._model_settings.name}' can run")

    def _end(self, reason: str) -> None:
        """End this process; Ray starts another replica."""
        logger.error("Replica of application '%s': %s: ended", self._application, reason)
        os._exit(1)

    # -- methods that Serve calls --

    async def check_health(self) -> None:
        """Raise if the models' thread has ended."""
        if not self._thread.is_alive():
            raise RuntimeError("the models' thread has ended")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the share of the last seconds in which requests ran."""
        return {BUSY: self._listener.busy.get_share()}

    async def wake(self) -> None:
        """Do nothing: a call makes Serve start a first replica."""

    async def __del__(self) -> None:
        """Finish running calls, and unload. Serve calls it before it ends the process."""
        if self._is_leaving.is_set():
            return
        self._is_leaving.set()
        with contextlib.suppress(Exception):
            await asyncio.to_thread(self._directory.call, "deregister", self._application, self._id)
        work = self._leave()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _leave(self) -> None:
        await self._listener.leave(self._settings.drain_timeout)
        try:
            await self._runner.unload(self._key)
        except MLServerError as error:
            logger.error("%s", error)
        await asyncio.to_thread(self._files.remove)
        if self._tracing is not None:
            await shut_down(self._tracing, str(self._settings.tracing_server))


class _DirectoryClient:
    """Calls of the directory's actor. All methods block."""

    def __init__(self, name: Sequence[str]) -> None:
        self._name, self._namespace = name
        self._actor: Any = None

    def call(self, method: str, *arguments: Any) -> Any:
        import ray

        if self._actor is None:
            self._actor = ray.get_actor(self._name, namespace=self._namespace)
        try:
            reference = getattr(self._actor, method).remote(*arguments)
            return ray.get(reference, timeout=CALL_TIMEOUT)
        except Exception:
            self._actor = None  # look the name up again: the actor may have been replaced
            raise

    def read_secret(self) -> bytes:
        return bytes.fromhex(self.call("get_secret"))

    def wait_for_turn(self, application: str, replica: str) -> Any:
        """Return the details of the first replica; None = this one is the first."""
        while True:
            answer = self.call("claim_load", application, replica)
            if answer["may_load"]:
                return answer["details"]
            time.sleep(CLAIM_INTERVAL)


class _RenewedClaim:
    """Context manager that renews the claim to load first, for loads longer than its lease."""

    def __init__(self, directory: _DirectoryClient, application: str, replica: str) -> None:
        self._parts = directory, application, replica
        self._ended = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._renew, name="mlserver-claim", daemon=True).start()

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def _renew(self) -> None:
        directory, application, replica = self._parts
        while not self._ended.wait(REGISTER_INTERVAL):
            with contextlib.suppress(Exception):
                directory.call("claim_load", application, replica)

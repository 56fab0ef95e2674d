"""Blocking calls to a Ray cluster, for the agent's process: connection, directory, applications."""

from __future__ import annotations

import dataclasses
import logging
import os
import secrets
import socket
import threading
from collections.abc import Awaitable, Sequence
from typing import Any

from ...env.environment import own_paths
from ...errors import MLServerError
from ...settings import ModelSettings, Settings
from ...settings.ray import RaySettings
from .applications import get_server_prefix
from .directory import Directory
from .model_files import describe_files
from .node_versions import read_versions, select_compared

# Seconds that one call of the directory may take.
CALL_TIMEOUT = 10.0
PORT_TIMEOUT = 5.0
DEPLOYMENT = "model"
_DIRECTORY_OPTIONS: dict[str, Any] = {
    "num_cpus": 0,
    "lifetime": "detached",
    "get_if_exists": True,
    "max_restarts": -1,
    "max_task_retries": 3,
}


def get_directory_name(settings: Settings) -> str:
    return f"{get_server_prefix(settings)}directory"


class Cluster:
    """A connection to a Ray cluster. All methods block.

    Args:
        settings: The server's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ray_settings = settings.ray or RaySettings()
        self._prefix = get_server_prefix(settings)
        self._directory: Any = None
        # Serve marks modules, for all threads, while it pickles a part of a deployment: when one is
        # described or started, and when the state of applications is read. In two threads at a
        # time, one of them fails.
        self._pickling = threading.Lock()

    @property
    def load_timeout(self) -> float | None:
        return self._settings.load_timeout

    # -- connection --

    def connect(self) -> str:
        """Connect, and return the secret of the directory.

        Raises:
            Exception: of many classes, if there is no such cluster.
        """
        import ray

        address = self._ray_settings.address
        options: dict[str, Any] = {}
        if address == "local":
            options = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        if not address.startswith("ray://"):
            options |= {"log_to_driver": False, "configure_logging": False}
        _check_port(address)
        ray.init(address=address, namespace=self._ray_settings.namespace, **options)
        self._start_serve()
        for name in ("ray", "ray.serve"):  # Ray sets the levels at import
            logging.getLogger(name).setLevel(logging.WARNING)
        self._connect_directory()
        return str(self.call("get_secret"))

    def _start_serve(self) -> None:
        """Start Serve without HTTP proxies, unless the cluster runs it already."""
        from ray import serve

        serve.start(proxy_location="Disabled")

    def _connect_directory(self) -> None:
        import ray

        options = {**_DIRECTORY_OPTIONS, "name": get_directory_name(self._settings)}
        actor = ray.remote(Directory).options(**options)
        self._directory = actor.remote(secrets.token_hex(32))

    def close(self) -> None:
        import ray

        ray.shutdown()

    # -- directory --

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the directory; if its actor is gone, start it again.

        Raises:
            MLServerError: it does not answer in time (504).
        """
        from ray.exceptions import GetTimeoutError, RayActorError

        try:
            try:
                return self._call_once(method, arguments)
            except RayActorError:
                self._connect_directory()
                return self._call_once(method, arguments)
        except GetTimeoutError:
            raise MLServerError(
                f"The Ray cluster does not answer: '{method}' of the directory exceeded "
                f"{CALL_TIMEOUT:g} s",
                504,
            ) from None

    def _call_once(self, method: str, arguments: Sequence[Any]) -> Any:
        import ray

        reference = getattr(self._directory, method).remote(*arguments)
        return ray.get(reference, timeout=CALL_TIMEOUT)

    # -- applications --

    def deploy(self, application: str, options: dict[str, Any], settings: bytes) -> None:
        """Create or update an application; return before its replicas run."""
        from ray import serve

        from .replica import ModelReplica

        model = ModelSettings.from_frame(settings)
        runtime_env = options["ray_actor_options"].get("runtime_env", {})
        # Outside of the lock, which the agent's polls take: a second per GiB.
        files = [dataclasses.astuple(each) for each in describe_files(model)]
        # Options are pickled too, when they are set.
        with self._pickling:
            target = serve.deployment(ModelReplica).options(name=DEPLOYMENT, **options)
            bound = target.bind(
                application=application,
                server_settings=self._settings.to_frame(),
                model_settings=settings,
                directory=[get_directory_name(self._settings), self._ray_settings.namespace],
                sys_path=own_paths(),
                files=files,
                versions=select_compared(read_versions(model.implementation_), runtime_env),
            )
            run = serve.RunTarget(target=bound, name=application, route_prefix=None)
            serve.run_many(
                [run],
                wait_for_ingress_deployment_creation=False,
                wait_for_applications_running=False,
            )

    def delete(self, application: str) -> None:
        """Delete an application, after its replicas have exited, and its entry in the directory."""
        from ray import serve

        serve.delete(application)
        self.call("forget", application)

    def wake(self, application: str) -> Awaitable[Any]:
        """Start a first replica of an application scaled to zero; the result ends when it runs."""
        from ray import serve

        answer: Awaitable[Any] = serve.get_app_handle(application).wake.remote()
        return answer

    def list_applications(self) -> dict[str, str]:
        """Return this server's applications: name -> why it cannot be deployed, "" if it can."""
        from ray import serve

        with self._pickling:
            overviews = serve.status().applications
        applications: dict[str, str] = {}
        for name, overview in overviews.items():
            if not name.startswith(self._prefix) or overview.status == "DELETING":
                continue
            has_failed = overview.status == "DEPLOY_FAILED"
            applications[name] = _describe_failure(overview) if has_failed else ""
        return applications

    def delete_unused(self, applications: Sequence[str]) -> list[str]:
        """Delete applications that no server needs; return their names."""
        unused: list[str] = self.call("list_unused", list(applications))
        for application in unused:
            self.delete(application)
        return unused


def _check_port(address: str) -> None:
    """Raise `OSError` if no process listens on an address; Ray would retry for a minute."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), PORT_TIMEOUT).close()


def _describe_failure(overview: Any) -> str:
    messages = [status.message for status in overview.deployments.values()]
    lines = "\n".join([*messages, overview.message]).strip().splitlines()
    return lines[-1].strip() if lines else "no reason was reported"


def configure_ray() -> None:
    """Keep Ray from reporting usage over the network, and from logging its progress.

    Call it before Ray is imported.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")

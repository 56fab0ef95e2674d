"""Serve applications of models: names, digests, and the options of their deployments.

Pure functions; nothing here imports Ray.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ...errors import MLServerError
from ...runtime_hooks import find_hooks
from ...settings import ModelSettings, Settings
from ...settings.ray import ModelRaySettings, RaySettings
from .model_files import compute_digest, list_paths

PREFIX = "mlserver"
POLICY = "mlserver.parallel.ray.autoscaling:decide_replicas"
# Seconds that Serve waits for a health check of a replica at least.
HEALTH_TIMEOUT = 10.0
# Failed health checks after which Serve replaces a replica.
HEALTH_CHECKS = 3
LONGEST_HEALTH_TIMEOUT = 3600.0
# Seconds that a replica has to unload its model and to end, beyond its running requests.
SHUTDOWN_SECONDS = 5.0


@dataclass(frozen=True)
class Plan:
    """The Serve application of a model, before it is deployed.

    Attributes:
        model: The model's key in the directory.
        prefix: First part of the application's name.
        digest: Equal for equal settings and files.
        settings: The frame of the model's settings.
        options: Options of the Serve deployment.
        replicas: Replicas that the deployment starts with.
        may_sleep: Whether there may be no replica while no request arrives.
    """

    model: str
    prefix: str
    digest: str
    settings: bytes
    options: dict[str, Any]
    replicas: int
    may_sleep: bool


def plan_application(settings: Settings, model: ModelSettings) -> Plan:
    """Return the plan of a model's application. Reads the model's files. Blocks.

    Raises:
        MLServerError: the model cannot run in a Ray cluster with these settings.
    """
    refuse_unsupported(model)
    model = model.with_absolute_source()
    own = model.ray or ModelRaySettings()
    frame = model.to_frame()
    options = _build_options(settings, model, own)
    digest = _digest(frame, repr(options).encode(), *_compute_file_digests(model))
    version = quote(model.version or "-", safe="")
    return Plan(
        model=get_model_key(model.name, model.version),
        prefix=f"{get_server_prefix(settings)}{quote(model.name, safe='')}/{version}/{digest[:12]}",
        digest=digest,
        settings=frame,
        options=options,
        replicas=get_replicas(settings, own),
        may_sleep=own.autoscaling is not None and own.autoscaling.min == 0,
    )


def get_model_key(name: str, version: str | None) -> str:
    return f"{name}\0{version or ''}"


def get_server_prefix(settings: Settings) -> str:
    """Return the first part of the names of all applications of a server."""
    return f"{PREFIX}/{quote(settings.server_name, safe='')}/"


def get_replicas(settings: Settings, model: ModelRaySettings) -> int:
    """Return the number of replicas that a deployment starts with."""
    if model.autoscaling is not None:
        return max(1, model.autoscaling.min)
    return model.num_replicas or max(1, settings.parallel_workers)


def refuse_unsupported(model: ModelSettings) -> None:
    """Raise `MLServerError` if a setting of the model has no equivalent in a replica."""
    if model.parallel_workers is not None and model.parallel_workers <= 0:
        raise _refuse(model, "'parallel_workers' of 0", "remove it: a replica is a process")
    parameters = model.parameters
    if parameters is None:
        return
    cure = "name the packages in 'ray.runtime_env' ({\"pip\": [...]}) of the model"
    manager = parameters.extra.get("env_manager", "local")
    if manager != "local":
        raise _refuse(model, f"'env_manager' of '{manager}'", cure)
    for name in ("environment_path", "environment_tarball"):
        if getattr(parameters, name) is not None:
            raise _refuse(model, f"'{name}'", cure)


def _refuse(model: ModelSettings, what: str, cure: str) -> MLServerError:
    return MLServerError(
        f"Model {model.name}: {what} cannot be used with the engine 'ray': {cure}", 400
    )


def _build_options(
    settings: Settings, model: ModelSettings, own: ModelRaySettings
) -> dict[str, Any]:
    """Return the options of a Serve deployment."""
    limit = model.request_timeout or settings.request_timeout
    health_timeout = LONGEST_HEALTH_TIMEOUT if limit is None else limit / HEALTH_CHECKS
    actor: dict[str, Any] = {"num_cpus": 1 if own.num_cpus is None else own.num_cpus}
    if own.num_gpus:
        actor["num_gpus"] = own.num_gpus
    if own.resources:
        actor["resources"] = dict(own.resources)
    variables = _find_variables(find_hooks(model.implementation_).variables)
    runtime_env = merge_runtime_envs(settings.ray or RaySettings(), own, variables)
    if runtime_env:
        actor["runtime_env"] = runtime_env
    options: dict[str, Any] = {
        "ray_actor_options": actor,
        "health_check_period_s": 2.0,
        # No health check is answered while a predict holds the GIL.
        "health_check_timeout_s": max(HEALTH_TIMEOUT, health_timeout),
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": settings.drain_timeout + SHUTDOWN_SECONDS,
    }
    if own.max_replicas_per_node is not None:
        options["max_replicas_per_node"] = own.max_replicas_per_node
    if own.autoscaling is None:
        options["num_replicas"] = get_replicas(settings, own)
    else:
        options["autoscaling_config"] = {
            "min_replicas": own.autoscaling.min,
            "initial_replicas": max(1, own.autoscaling.min),
            "max_replicas": own.autoscaling.max,
            "target_ongoing_requests": own.autoscaling.target_busy,
            "upscale_delay_s": own.autoscaling.upscale_delay,
            "downscale_delay_s": own.autoscaling.downscale_delay,
            "metrics_interval_s": 2.0,
            # Short: a replica's report is the average of the last `listener.BUSY_WINDOW` seconds.
            "look_back_period_s": 4.0,
            "policy": {"policy_function": POLICY},
        }
    return options


def merge_runtime_envs(
    server: RaySettings, model: ModelRaySettings, variables: Mapping[str, str]
) -> dict[str, Any]:
    """Return the model's runtime environment over the server's.

    Args:
        variables: Environment variables of the server that replicas get too.
    """
    merged = {**server.runtime_env, **model.runtime_env}
    env_vars = {
        **variables,
        **server.runtime_env.get("env_vars", {}),
        **model.runtime_env.get("env_vars", {}),
    }
    if env_vars:
        merged["env_vars"] = env_vars
    return merged


def _find_variables(prefixes: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def _compute_file_digests(model: ModelSettings) -> list[bytes]:
    """Return the digests of all files that the model may read.

    Raises:
        MLServerError: a file cannot be read, or there are too many.
    """
    try:
        return [compute_digest(path).encode() for path in list_paths(model)]
    except OSError as error:
        raise MLServerError(f"Model {model.name}: cannot read its files: {error}", 500) from None


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()

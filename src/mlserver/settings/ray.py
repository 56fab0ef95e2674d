"""Groups of settings for the engine `ray`: the cluster, and the replicas of one model."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from .base import Count
from .security import SettingsGroup

Engine = Literal["local", "ray"]
OnExit = Literal["delete", "keep"]
_ADDRESS = re.compile(r"auto|local|(?:ray://)?(?:[^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RaySettings(SettingsGroup):
    """The Ray cluster that runs the models; used with `engine` of `ray` only."""

    address: str = "auto"
    """Address of the cluster: `auto` = the one that this machine is a node of, `host:port` = that
    of its head node, `ray://host:port` = a Ray Client server, `local` = start Ray on this machine
    and stop it with the server."""
    namespace: str = "mlserver"
    """Ray namespace of the actor that lists the replicas."""
    runtime_env: dict[str, Any] = {}
    """Ray runtime environment of all replicas, such as `{"env_vars": {...}}`."""
    upload_limit: Annotated[int, Field(ge=0)] = 100 * 1024 * 1024
    """Bytes of a model's folder up to which it is copied to nodes that do not have it at the same
    path; 0 = never. An actor of the cluster keeps them in memory."""
    on_exit: OnExit = "delete"
    """What happens to the models' replicas when the last server that uses them stops: `delete`, or
    `keep` for the next start, which adopts them."""

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        if not _ADDRESS.fullmatch(address):
            raise ValueError("'auto', 'local', 'host:port' or 'ray://host:port'")
        return address


class RayAutoscaling(SettingsGroup):
    """Bounds of the number of replicas, and their target utilization."""

    min: Annotated[int, Field(ge=0)] = 1
    """Replicas at least; 0 = none while no request arrives, and the first request waits for one."""
    max: Count
    """Replicas at most."""
    target_busy: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Share of the time in which a replica runs requests, on average: Ray adds replicas above it.
    Below 1, because a replica is never busier than 1 however many requests wait."""
    upscale_delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    """Seconds above `target_busy` after which Ray adds replicas."""
    downscale_delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    """Seconds below `target_busy` after which Ray removes replicas, the last one included if `min`
    is 0."""

    @model_validator(mode="after")
    def _check_bounds(self) -> RayAutoscaling:
        if self.max < self.min:
            raise ValueError(f"'max' of at least 'min' ({self.min})")
        return self


class ModelRaySettings(SettingsGroup):
    """The replicas of one model in a Ray cluster; the engine `local` ignores them."""

    num_replicas: Count | None = None
    """Replicas of the model; None = the server's `parallel_workers`, at least 1."""
    autoscaling: RayAutoscaling | None = None
    """Bounds between which Ray chooses the number of replicas, in place of `num_replicas`."""
    num_cpus: Amount | None = None
    """CPUs that Ray reserves for each replica; None = 1."""
    num_gpus: Amount | None = None
    """GPUs that Ray reserves for each replica; None = none."""
    resources: dict[str, Amount] = {}
    """Custom resources that Ray reserves for each replica, by name."""
    max_replicas_per_node: Annotated[int, Field(ge=1, le=100)] | None = None
    """Replicas on one node at most; None = no limit."""
    runtime_env: dict[str, Any] = {}
    """Ray runtime environment of the replicas; its keys override those of the server's."""

    @model_validator(mode="after")
    def _check_numbers(self) -> ModelRaySettings:
        if self.num_replicas is not None and self.autoscaling is not None:
            raise ValueError("either 'num_replicas' or 'autoscaling', not both")
        return self

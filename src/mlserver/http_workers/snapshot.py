"""Snapshot of the server's state for HTTP workers: models, model workers and readiness. Pure.

Snapshots are complete; a receiver needs no earlier snapshot. Only settings and info of models that
the receiver already has are omitted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..parallel.executor import ModelInfo
from ..parallel.pool_manager import PooledModel
from ..registry import ModelRegistryView, ModelVersion
from ..settings import ModelSettings
from ..types import State


@dataclass(frozen=True)
class ModelSnapshot:
    """One version of a model.

    Attributes:
        serial: Serial number of the registry's entry.
        key: The loaded model's key in the workers; None = not loaded.
        pool: Number of the pool that holds it.
        limit: Seconds after which a request is overdue; None = no limit.
        settings: None, like `info`, if the receiver has them for this key.
    """

    serial: int
    key: str | None
    pool: int
    limit: float | None
    state: State
    reason: str
    settings: ModelSettings | None
    info: ModelInfo | None


@dataclass(frozen=True)
class StateSnapshot:
    """The server's state.

    Attributes:
        accepting: Whether the server accepts requests: it has started and is not stopping.
        missing: Names of models in the repository without valid settings.
        workers: Of each model worker its number, its pool's number, and the keys of its models.
    """

    accepting: bool
    missing: list[str]
    models: list[ModelSnapshot]
    workers: list[tuple[int, int, list[str]]]


def pack_state(
    accepting: bool,
    registry: ModelRegistryView,
    workers: Sequence[tuple[int, int, Collection[str]]],
    sent_models: Collection[str],
) -> dict[str, Any]:
    """Return the state as plain values.

    Args:
        workers: See `StateSnapshot`.
        sent_models: Keys of the models whose settings and info the receiver has.
    """
    packed_models = [_pack_model(entry, sent_models) for entry in registry.entries()]
    return {
        "accepting": accepting,
        "missing": sorted(registry.missing),
        "models": packed_models,
        "workers": [[number, pool, sorted(keys)] for number, pool, keys in workers],
    }


def _pack_model(entry: ModelVersion, sent_models: Collection[str]) -> list[Any]:
    loaded = entry.loaded
    key, pool, limit, info = None, 0, None, None
    if isinstance(loaded, PooledModel):
        key, pool, limit, info = loaded.key, loaded.pool.number, loaded.limit, loaded.info
    is_new = key is None or key not in sent_models
    packed_settings = entry.settings.to_frame() if is_new else None
    return [
        entry.serial,
        key,
        pool,
        limit,
        entry.state.value,
        entry.reason,
        packed_settings,
        info.to_plain() if info is not None and is_new else None,
    ]


def get_model_keys(values: dict[str, Any]) -> set[str]:
    """Return the keys of the loaded models in a packed state."""
    return {model[1] for model in values["models"] if model[1] is not None}


def unpack_state(values: dict[str, Any]) -> StateSnapshot:
    """Return the snapshot that `pack_state` packed."""
    models = [_unpack_model(*model) for model in values["models"]]
    workers = [(number, pool, keys) for number, pool, keys in values["workers"]]
    return StateSnapshot(values["accepting"], values["missing"], models, workers)


def _unpack_model(
    serial: int,
    key: str | None,
    pool: int,
    limit: float | None,
    state: str,
    reason: str,
    settings: Any,
    info: Any,
) -> ModelSnapshot:
    model_settings = None if settings is None else ModelSettings.from_frame(settings)
    model_info = None if info is None else ModelInfo.from_plain(info)
    return ModelSnapshot(serial, key, pool, limit, State(state), reason, model_settings, model_info)

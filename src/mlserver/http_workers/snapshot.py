"""What every front end is to know: models, workers and readiness, as one table of plain data, always the whole of it.

A table says how things are, not what changed, so nothing depends on the tables before it. Only what a model told of itself
is left out for those that have it. Pure.
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
        serial: The entry's.
        key: The workers' name for what is loaded; None = nothing is.
        pool: Number of the pool that has it.
        limit: Seconds for one run of it, if there is a limit.
        settings: None, like `info`: the reader has those of this key.
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
    """All of it.

    Attributes:
        accepting: Whether the server takes requests: it has started, and it does not end.
        missing: Names of models that should be there but have no usable settings.
        workers: Number of each worker, number of its pool, keys of the models it holds.
    """

    accepting: bool
    missing: list[str]
    rows: list[ModelSnapshot]
    workers: list[tuple[int, int, list[str]]]


def write(
    accepting: bool,
    catalogue: ModelRegistryView,
    workers: Sequence[tuple[int, int, Collection[str]]],
    known: Collection[str],
) -> dict[str, Any]:
    """The table as plain data.

    Args:
        workers: See `StateSnapshot`.
        known: Keys of the models whose settings and info the reader has.
    """
    return {
        "accepting": accepting,
        "missing": sorted(catalogue.missing),
        "rows": [_write_row(entry, known) for entry in catalogue.entries()],
        "workers": [[number, pool, sorted(keys)] for number, pool, keys in workers],
    }


def _write_row(entry: ModelVersion, known: Collection[str]) -> list[Any]:
    loaded = entry.loaded
    key, pool, limit, info = None, 0, None, None
    if isinstance(loaded, PooledModel):
        key, pool, limit, info = loaded.key, loaded.pool.number, loaded.limit, loaded.info
    is_new = key is None or key not in known
    return [
        entry.serial,
        key,
        pool,
        limit,
        entry.state.value,
        entry.reason,
        entry.settings.to_frame() if is_new else None,
        info.to_plain() if info is not None and is_new else None,
    ]


def keys_in(values: dict[str, Any]) -> set[str]:
    """The keys of the models in a table as plain data."""
    return {row[1] for row in values["rows"] if row[1] is not None}


def read(values: dict[str, Any]) -> StateSnapshot:
    """The table that `write` gave."""
    rows = [_read_row(*row) for row in values["rows"]]
    workers = [(number, pool, keys) for number, pool, keys in values["workers"]]
    return StateSnapshot(values["accepting"], values["missing"], rows, workers)


def _read_row(
    serial: int,
    key: str | None,
    pool: int,
    limit: float | None,
    state: str,
    reason: str,
    settings: Any,
    info: Any,
) -> ModelSnapshot:
    made = None if settings is None else ModelSettings.from_frame(settings)
    told = None if info is None else ModelInfo.from_plain(info)
    return ModelSnapshot(serial, key, pool, limit, State(state), reason, made, told)

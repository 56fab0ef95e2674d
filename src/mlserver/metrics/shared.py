"""The folder through which worker processes share metrics of prometheus_client with the server (its multiprocess mode).

Each process has files of its own, which outlive it. What processes counted that have ended is summed up in files of the
name `..._ended.db`, so that counters never go back and the number of files stays small; `live` and `all` gauges end with
their process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..logging import get_logger

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from ..settings import Settings

logger = get_logger()

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_ENDED = "ended"
_SUMMED = frozenset({"counter", "histogram", "summary", "gauge_sum"})


class SharedFolder:
    """Files of metrics; made for the worker processes of one executor, removed with it.

    Attributes:
        path: None = there is none, and metrics that models declare with prometheus_client are not shown.
    """

    def __init__(self, settings: Settings) -> None:
        self.path: Path | None = None
        self._lock = threading.Lock()
        self._unreadable: set[str] = set()
        parent = settings.metrics_dir if "metrics_dir" in settings.model_fields_set else None
        if settings.metrics_endpoint is None:
            return
        try:
            if parent is not None:
                os.makedirs(parent, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix="mlserver-metrics-", dir=parent))
        except OSError as error:
            logger.warning(
                "Metrics that models declare with prometheus_client are not shown: no folder can be made (%s)",
                error,
            )
            return
        _open.append(self)

    def variables(self) -> dict[str, str]:
        """Environment variables of a worker process."""
        return {} if self.path is None else {VARIABLE: str(self.path)}

    def close(self) -> None:
        """Remove the files, when all worker processes have ended."""
        if self in _open:
            _open.remove(self)
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)

    def collect(self) -> list[Metric]:
        """Return the metrics of all worker processes, past ones too, merged as prometheus_client merges them."""
        if self.path is None:
            return []
        with self._lock:
            for file in sorted(self.path.glob("*.db")):
                try:
                    self._absorb_if_ended(file)
                except Exception as error:
                    self._leave_out(str(file), error)
            files = sorted(str(file) for file in self.path.glob("*.db"))
            return self._merge(files)

    def _merge(self, files: list[str]) -> list[Metric]:
        from prometheus_client.multiprocess import MultiProcessCollector

        readable = [file for file in files if file not in self._unreadable]
        try:
            return list(MultiProcessCollector.merge(readable))  # type: ignore[no-untyped-call]
        except (
            Exception
        ):  # a file of another version of prometheus_client's, in an environment of a model's
            for file in readable:
                self._try(file)
            readable = [file for file in files if file not in self._unreadable]
            return list(MultiProcessCollector.merge(readable))  # type: ignore[no-untyped-call]

    def _try(self, file: str) -> None:
        from prometheus_client.multiprocess import MultiProcessCollector

        try:
            MultiProcessCollector.merge([file])  # type: ignore[no-untyped-call]
        except Exception as error:
            self._leave_out(file, error)

    def _leave_out(self, file: str, error: Exception) -> None:
        self._unreadable.add(file)
        logger.warning(
            "Metrics of a worker process cannot be read: %s: %s", type(error).__name__, error
        )

    def _absorb_if_ended(self, file: Path) -> None:
        kind, _, pid = file.stem.rpartition("_")
        if not pid.isdigit() or str(file) in self._unreadable or _is_alive(int(pid)):
            return
        if kind == "gauge_all" or kind.startswith("gauge_live"):
            file.unlink()
            return
        from prometheus_client.mmap_dict import MmapedDict

        ended = MmapedDict(str(file.with_name(f"{kind}_{_ENDED}.db")))  # type: ignore[no-untyped-call]
        try:
            known = {key: (value, at) for key, value, at in ended.read_all_values()}  # type: ignore[no-untyped-call]
            for key, value, at, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                ended.write_value(key, *_joined(kind, known.get(key), (value, at)))  # type: ignore[no-untyped-call]
        finally:
            ended.close()  # type: ignore[no-untyped-call]
        file.unlink()


def _joined(
    kind: str, known: tuple[float, float] | None, more: tuple[float, float]
) -> tuple[float, float]:
    """Value and time of a metric of two processes that have ended."""
    if known is None:
        return more
    if kind in _SUMMED:
        return known[0] + more[0], max(known[1], more[1])
    if kind == "gauge_max":
        return max(known, more)
    if kind == "gauge_min":
        return min(known, more)
    return max(known, more, key=lambda each: each[1])  # mostrecent


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_open: list[SharedFolder] = []


def collect() -> Iterator[Any]:
    """The metrics of all worker processes of this server."""
    for folder in list(_open):
        yield from folder.collect()

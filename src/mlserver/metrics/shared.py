"""The folder in which workers share prometheus_client's metrics (multiprocess mode).

Each process writes its own files, which outlive it. The values of ended processes are summed in
files named `..._ended.db`: counters do not decrease, and the number of files is bounded. Gauges of
the modes `live` and `all` are removed with their process.
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
    """The metrics files of one executor's workers.

    Attributes:
        path: The folder; None = not created, and metrics declared with prometheus_client are not
            published.
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
                "Metrics declared with prometheus_client are not published: "
                "cannot create a folder (%s)",
                error,
            )
            return
        _open.append(self)

    def variables(self) -> dict[str, str]:
        """Return the environment variables of a worker."""
        return {} if self.path is None else {VARIABLE: str(self.path)}

    def close(self) -> None:
        """Remove the files. Call it when all workers have ended."""
        if self in _open:
            _open.remove(self)
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)

    def collect(self) -> list[Metric]:
        """Return the metrics of all workers, including ended ones, merged by prometheus_client."""
        if self.path is None:
            return []
        with self._lock:
            for file in sorted(self.path.glob("*.db")):
                try:
                    self._absorb_if_ended(file)
                except Exception as error:
                    self._mark_unreadable(str(file), error)
            files = sorted(str(file) for file in self.path.glob("*.db"))
            return self._merge(files)

    def _merge(self, files: list[str]) -> list[Metric]:
        from prometheus_client.multiprocess import MultiProcessCollector

        readable = [file for file in files if file not in self._unreadable]
        try:
            return list(MultiProcessCollector.merge(readable))  # type: ignore[no-untyped-call]
        except Exception:  # a file of another prometheus_client version, from a model's environment
            for file in readable:
                self._check_readable(file)
            readable = [file for file in files if file not in self._unreadable]
            return list(MultiProcessCollector.merge(readable))  # type: ignore[no-untyped-call]

    def _check_readable(self, file: str) -> None:
        from prometheus_client.multiprocess import MultiProcessCollector

        try:
            MultiProcessCollector.merge([file])  # type: ignore[no-untyped-call]
        except Exception as error:
            self._mark_unreadable(file, error)

    def _mark_unreadable(self, file: str, error: Exception) -> None:
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
            sums = {key: (value, time) for key, value, time in ended.read_all_values()}  # type: ignore[no-untyped-call]
            for key, value, time, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                ended.write_value(key, *_combine(kind, sums.get(key), (value, time)))  # type: ignore[no-untyped-call]
        finally:
            ended.close()  # type: ignore[no-untyped-call]
        file.unlink()


def _combine(
    kind: str, first: tuple[float, float] | None, second: tuple[float, float]
) -> tuple[float, float]:
    """Return value and timestamp of a metric of two ended processes."""
    if first is None:
        return second
    if kind in _SUMMED:
        return first[0] + second[0], max(first[1], second[1])
    if kind == "gauge_max":
        return max(first, second)
    if kind == "gauge_min":
        return min(first, second)
    return max(first, second, key=lambda pair: pair[1])  # mostrecent


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
    """Yield the metrics of all workers of this server."""
    for folder in list(_open):
        yield from folder.collect()

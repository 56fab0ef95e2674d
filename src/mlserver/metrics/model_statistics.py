"""Counts and durations of one model version, as in the protocol's statistics extension."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec

# Clients choose the first dimension of a tensor, up to 2^48 without any data. Larger batches are
# counted under the next power of two, so the number of sizes is bounded.
MAX_EXACT_BATCH = 256
_MAX_INTEGER = 2**63 - 1  # of JSON and msgpack documents; of int64, as clients read it


def get_size_class(rows: int) -> int:
    """Return the size under which a batch of more than `MAX_EXACT_BATCH` rows is counted."""
    return 1 << min((rows - 1).bit_length(), 62)


@dataclass(slots=True)
class Duration:
    """Number of events and the sum of their nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns

    def to_plain(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass
class ModelStatistics:
    """The values of the statistics extension for one model version; `ModelMetrics` records them.

    Attributes:
        inference_count: Rows (elements of the batch dimension) of successful requests.
        execution_count: Executions of the model.
        last_inference: Seconds since the epoch (the extension shows milliseconds).
        queue_ns, transport_ns, model_ns: Sums over the successful requests.
        batches: Executions by their rows; above `MAX_EXACT_BATCH`, by `get_size_class`.
    """

    last_inference: float = 0.0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue_ns: int = 0
    transport_ns: int = 0
    model_ns: int = 0
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=lambda: defaultdict(Duration))

    @property
    def row_count(self) -> int:
        """`inference_count` up to 2^63 - 1, for documents."""
        return min(self.inference_count, _MAX_INTEGER)

    def to_frame(self) -> dict[str, Any]:
        """Return the values as plain data, for another process."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        values["inference_count"] = self.row_count
        return values

    @classmethod
    def from_frame(cls, values: dict[str, Any]) -> ModelStatistics:
        return msgspec.convert(values, cls)

    def add(self, other: ModelStatistics) -> None:
        """Add the values of another process for the same model."""
        self.last_inference = max(self.last_inference, other.last_inference)
        for name in ("inference_count", "execution_count", "queue_ns", "transport_ns", "model_ns"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("success", "fail", "cache_hit", "cache_miss"):
            addend: Duration = getattr(other, name)
            getattr(self, name).add(addend.ns, addend.count)
        for size, duration in other.batches.items():
            self.batches[size].add(duration.ns, duration.count)

    def to_plain(self, name: str, version: str) -> dict[str, Any]:
        """Return the JSON form of the extension."""
        count, half = self.success.count, self.transport_ns // 2
        stats = {
            "success": self.success,
            "fail": self.fail,
            "queue": Duration(count, self.queue_ns),
            # Transport covers both directions between queue and model; the protocol has one field
            # per direction.
            "compute_input": Duration(count, half),
            "compute_infer": Duration(count, self.model_ns),
            "compute_output": Duration(count, self.transport_ns - half),
            "cache_hit": self.cache_hit,
            "cache_miss": self.cache_miss,
        }
        empty = Duration().to_plain()
        batch_stats = [
            {
                "batch_size": size,
                "compute_input": empty,
                "compute_infer": duration.to_plain(),
                "compute_output": empty,
            }
            for size, duration in sorted(self.batches.items())
        ]
        return {
            "name": name,
            "version": version,
            "last_inference": int(self.last_inference * 1000),
            "inference_count": self.row_count,
            "execution_count": self.execution_count,
            "inference_stats": {part: duration.to_plain() for part, duration in stats.items()},
            "response_stats": {},
            "batch_stats": batch_stats,
            "memory_usage": [],
        }

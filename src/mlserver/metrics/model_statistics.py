"""Counts and nanoseconds of one model version, in the terms of the protocol's statistics extension. Pure."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..pipeline import Timings


@dataclass(slots=True)
class Duration:
    """A number of events and the nanoseconds they took together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns

    def to_plain(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass
class ModelStatistics:
    """What the statistics extension tells of a model version.

    Attributes:
        inference_count: Rows (elements of the batch dimension) answered with success.
        execution_count: Runs of the model.
        last_inference: Seconds since the epoch (the extension shows milliseconds).
        queue_ns, transport_ns, model_ns: Of the requests answered with success, together.
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

    def answered(self, timings: Timings, rows: int, total_ns: int) -> None:
        """A request was answered with success after `total_ns`."""
        self.last_inference = time.time()
        self.inference_count += rows or 1
        success = self.success
        success.count += 1
        success.ns += total_ns
        self.queue_ns += timings.queue_ns
        self.model_ns += timings.model_ns
        self.transport_ns += timings.transport_ns

    def failed(self, total_ns: int) -> None:
        self.fail.add(total_ns)

    def looked_up(self, hit: bool, ns: int) -> None:
        """The response cache was asked."""
        (self.cache_hit if hit else self.cache_miss).add(ns)

    def executed(self, rows: int, ns: int) -> None:
        """The model ran once on `rows` rows."""
        self.execution_count += 1
        self.batches[max(rows, 1)].add(ns)

    def to_frame(self) -> dict[str, Any]:
        """For another process. `from_frame` makes them again."""
        made: dict[str, Any] = msgspec.to_builtins(self)
        return made

    @classmethod
    def from_frame(cls, values: dict[str, Any]) -> ModelStatistics:
        return msgspec.convert(values, cls)

    def add(self, other: ModelStatistics) -> None:
        """Count what another process counted of the same model."""
        self.last_inference = max(self.last_inference, other.last_inference)
        for name in ("inference_count", "execution_count", "queue_ns", "transport_ns", "model_ns"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("success", "fail", "cache_hit", "cache_miss"):
            theirs: Duration = getattr(other, name)
            getattr(self, name).add(theirs.ns, theirs.count)
        for size, spent in other.batches.items():
            self.batches[size].add(spent.ns, spent.count)

    def to_plain(self, name: str, version: str) -> dict[str, Any]:
        """The JSON form of the extension."""
        count, half = self.success.count, self.transport_ns // 2
        stats = {
            "success": self.success,
            "fail": self.fail,
            "queue": Duration(count, self.queue_ns),
            # Transport is what lies between queue and model on both ways; the protocol's fields want it in halves.
            "compute_input": Duration(count, half),
            "compute_infer": Duration(count, self.model_ns),
            "compute_output": Duration(count, self.transport_ns - half),
            "cache_hit": self.cache_hit,
            "cache_miss": self.cache_miss,
        }
        empty = Duration().to_plain()
        return {
            "name": name,
            "version": version,
            "last_inference": int(self.last_inference * 1000),
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {part: duration.to_plain() for part, duration in stats.items()},
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": empty,
                    "compute_infer": spent.to_plain(),
                    "compute_output": empty,
                }
                for size, spent in sorted(self.batches.items())
            ],
            "memory_usage": [],
        }

"""Counts and nanoseconds of one model version, in the terms of the protocol's statistics extension. Pure."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from ..stage import Timings


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
        last_inference: Milliseconds since the epoch.
    """

    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=lambda: defaultdict(Duration))

    def answered(self, timings: Timings, rows: int, total_ns: int) -> None:
        """A request was answered with success after `total_ns`."""
        self.last_inference = int(time.time() * 1000)
        self.inference_count += max(rows, 1)
        self.success.add(total_ns)
        self.queue.add(timings.queue_ns)
        self.compute_infer.add(timings.model_ns)
        # Transport is what lies between queue and model on both ways; the protocol's fields want it in halves.
        self.compute_input.add(timings.transport_ns // 2)
        self.compute_output.add(timings.transport_ns - timings.transport_ns // 2)

    def failed(self, total_ns: int) -> None:
        self.fail.add(total_ns)

    def executed(self, rows: int, ns: int) -> None:
        """The model ran once on `rows` rows."""
        self.execution_count += 1
        self.batches[max(rows, 1)].add(ns)

    def to_plain(self, name: str, version: str) -> dict[str, Any]:
        """The JSON form of the extension."""
        durations = (
            "success",
            "fail",
            "queue",
            "compute_input",
            "compute_infer",
            "compute_output",
            "cache_hit",
            "cache_miss",
        )
        empty = Duration().to_plain()
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_inference,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {name: getattr(self, name).to_plain() for name in durations},
            "response_stats": {},
            "batch_stats": [
                {"batch_size": size, "compute_input": empty, "compute_infer": spent.to_plain(), "compute_output": empty}
                for size, spent in sorted(self.batches.items())
            ],
            "memory_usage": [],
        }

"""The soak test: `python -m soak.run MINUTES [--report]` from `tests`.

It samples the server's memory, descriptors, threads, tasks and shared memory, and compares the
second quarter of the run with the last; the first is warm-up. Exit code 1: one of them grew, or a
response was wrong.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from soak.load import MODELS, LoadGenerator
from support.memory import descriptors, held_bytes
from support.repository import write_model, write_server_settings
from support.server import Server

DOCS = Path(__file__).resolve().parents[2] / "docs" / "explanation"
INTERVAL = 2.0  # seconds between samples


@dataclass(frozen=True)
class Sample:
    """One measurement of the server."""

    minute: float
    memory: float  # MiB, server process
    workers: float  # MiB, the largest worker
    descriptors: int
    threads: int
    tasks: int
    series: int
    shared: int  # files in /dev/shm


# The growth that each may have.
ALLOWED_GROWTH: dict[str, Callable[[float], float]] = {
    "memory": lambda before: 0.05 * before + 4,
    "workers": lambda before: 0.05 * before + 4,
    "descriptors": lambda before: 8,
    "threads": lambda before: 4,
    "tasks": lambda before: 10,
    "series": lambda before: 10,
    "shared": lambda before: 0,
}


def take_sample(server: Server, started: float) -> Sample:
    pid = server.process.pid
    page = httpx.get(f"{server.metrics_url}/metrics", timeout=30).text
    tasks = re.search(r"^mlserver_event_loop_tasks ([0-9.]+)$", page, re.MULTILINE)
    worker_bytes = []
    for worker in server.workers:
        try:
            worker_bytes.append(held_bytes(worker))
        except (OSError, LookupError):  # the worker has just been killed
            continue
    return Sample(
        minute=(time.monotonic() - started) / 60,
        memory=held_bytes(pid) / 2**20,
        workers=max(worker_bytes, default=0) / 2**20,
        descriptors=descriptors(pid),
        threads=len(os.listdir(f"/proc/{pid}/task")),
        tasks=int(float(tasks[1])) if tasks else 0,
        series=page.count("\n"),
        shared=len(os.listdir("/dev/shm")),
    )


def run(minutes: float) -> tuple[list[Sample], LoadGenerator]:
    with tempfile.TemporaryDirectory(prefix="mlserver-soak-") as name:
        folder = Path(name)
        write_server_settings(folder, strict_readiness=False)
        write_model(folder / "alone", max_batch_size=1)
        write_model(folder / "joined", max_batch_size=16, max_batch_time=0.005)
        with Server(folder, workers=2) as server:
            load = LoadGenerator(server)
            load.start()
            started, samples = time.monotonic(), list[Sample]()
            while time.monotonic() - started < minutes * 60:
                time.sleep(INTERVAL)
                samples.append(take_sample(server, started))
            load.stop()
            for model in MODELS:
                server.wait_until(f"/v2/models/{model}/ready")
    return samples, load


def measure_growth(samples: list[Sample]) -> dict[str, tuple[float, float, bool]]:
    """Per column: the medians of the second and the last quarter, and whether it grew too much."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    growth = {}
    for name, allowed in ALLOWED_GROWTH.items():
        before = median(getattr(sample, name) for sample in second)
        after = median(getattr(sample, name) for sample in last)
        growth[name] = (before, after, after - before > allowed(before))
    return growth


def write_report(samples: list[Sample], load: LoadGenerator, minutes: float) -> None:
    table = "\n".join(
        f"| {name} | {before:,.0f} | {after:,.0f} | {'too much' if bad else 'flat'} |"
        for name, (before, after, bad) in measure_growth(samples).items()
    )
    counts = "\n".join(f"| {what} | {count:,} |" for what, count in sorted(load.counts.items()))
    plot(samples)
    processors, python = os.cpu_count(), platform.python_version()
    (DOCS / "soak.md").write_text(
        TEXT.format(
            minutes=f"{minutes:g}",
            machine=f"{platform.system()}, {processors} processors, Python {python}",
            table=table,
            counts=counts,
            wrong=len(load.wrong),
        )
    )


TEXT = """# Soak test

`make soak MINUTES=30` wrote this page. A server with two workers and two models gets requests over
JSON, binary tensors (1 MiB each) and gRPC, and every response is compared with its request, while
clients crash during requests, a worker is killed every ten seconds (every third time all workers),
a model is reloaded every three seconds, and other clients request unknown models or send invalid
JSON.

This run: {minutes} minutes on {machine}. Incorrect responses, status 500 and failed connections:
{wrong}.

Medians of the second and of the last quarter of the run. Memory in MiB (`workers`: the largest
worker), `series`: lines of the metrics page, `shared`: files in shared memory.

| | second quarter | last quarter | |
|---|---:|---:|---|
{table}

![memory, descriptors and tasks over the run](soak.svg)

| event | count |
|---|---:|
{counts}

A client gets 503 only if no worker was replaced in time: see [workers](guarantees.md#workers).
"""


def plot(samples: list[Sample]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    columns = ("memory", "workers", "descriptors", "tasks")
    figure, axes = plt.subplots(len(columns), 1, figsize=(9, 8), sharex=True)
    minutes = [sample.minute for sample in samples]
    for axis, name in zip(axes, columns, strict=True):
        axis.plot(minutes, [getattr(sample, name) for sample in samples], linewidth=1)
        axis.set_ylabel(name + (" (MiB)" if name in ("memory", "workers") else ""))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(DOCS / "soak.svg", metadata={"Date": None})


def main() -> int:
    minutes = float(
        next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "30")
    )
    samples, load = run(minutes)
    if "--report" in sys.argv:
        write_report(samples, load, minutes)
    growth = measure_growth(samples)
    for name, (before, after, bad) in growth.items():
        sys.stdout.write(f"{name:12} {before:10.1f} -> {after:10.1f}{'  GREW' if bad else ''}\n")
    sys.stdout.write(f"{dict(load.counts)}\nwrong: {len(load.wrong)} {load.wrong[:5]}\n")
    return 1 if load.wrong or any(bad for _, _, bad in growth.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

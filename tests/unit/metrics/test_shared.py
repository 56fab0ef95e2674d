"""Metrics files of workers: merged, summed for ended processes, skipped if unreadable."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlserver.metrics.shared import VARIABLE, SharedFolder
from mlserver.settings import Settings

PROCESS = """
import sys
from prometheus_client import Counter, Gauge, Histogram, Summary

number = int(sys.argv[1])
Counter("t_counted", "x").inc(number)
Summary("t_summed", "x").observe(number)
Histogram("t_spread", "x", buckets=(1, 2)).observe(number)
for mode in ("all", "liveall", "max", "min", "sum", "mostrecent", "livemax", "livesum"):
    Gauge(f"t_{mode}", "x", multiprocess_mode=mode).set(number)
"""


@pytest.fixture
def folder(tmp_path: Path) -> SharedFolder:
    return SharedFolder(Settings(metrics_dir=str(tmp_path / "metrics")))


def count(folder: SharedFolder, *numbers: int) -> None:
    """Run processes one after the other, each observing metrics."""
    for number in numbers:
        environment = {**os.environ, **folder.variables()}
        subprocess.run([sys.executable, "-c", PROCESS, str(number)], env=environment, check=True)


def values(folder: SharedFolder) -> dict[str, float]:
    return {
        sample.name + (f"_{sample.labels['le']}" if "le" in sample.labels else ""): sample.value
        for metric in folder.collect()
        for sample in metric.samples
    }


def test_ended_processes(folder: SharedFolder) -> None:
    assert folder.path is not None
    expected = {
        "t_counted_total": 6,
        "t_summed_count": 3,
        "t_summed_sum": 6,
        "t_spread_bucket_1.0": 1,
        "t_spread_bucket_2.0": 2,
        "t_spread_bucket_+Inf": 3,
        "t_spread_count": 3,
        "t_spread_sum": 6,
        "t_max": 3,
        "t_min": 1,
        "t_sum": 6,
        "t_mostrecent": 2,
    }
    count(folder, 3)
    assert values(folder)["t_counted_total"] == 3
    count(folder, 1, 2)
    for _ in range(2):
        assert values(folder) == expected
    assert all(file.stem.endswith("_ended") for file in folder.path.iterdir())
    folder.close()
    assert not folder.path.exists()


def test_an_unreadable_file(folder: SharedFolder, caplog: pytest.LogCaptureFixture) -> None:
    assert folder.path is not None
    count(folder, 3)
    (folder.path / f"counter_{os.getpid()}.db").write_bytes(
        b"\x40\0\0\0\0\0\0\0\x08\0\0\0no json..." + bytes(60)
    )
    (folder.path / "summary_999999999.db").write_bytes(b"\x40\0\0\0\0\0\0\0\xff\0\0\0" + bytes(60))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert values(folder)["t_counted_total"] == 3
    assert [record.message for record in caplog.records if "cannot be read" in record.message] != []
    assert len(caplog.records) == 2
    folder.close()


def test_no_folder_without_a_metrics_endpoint(tmp_path: Path) -> None:
    folder = SharedFolder(Settings(metrics_endpoint=None, metrics_dir=str(tmp_path)))
    assert (folder.path, folder.variables(), folder.collect()) == (None, {}, [])
    assert not any(tmp_path.iterdir())
    folder.close()


def test_a_folder_that_cannot_be_created(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    folder = SharedFolder(Settings(metrics_dir=str(tmp_path / "file" / "metrics")))
    assert VARIABLE not in folder.variables()
    assert "cannot create a folder" in caplog.text
    folder.close()

"""Results of trials hold for the files that they were made with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mlserver_mlflow.fastpath.trial_results import KnownTrials, fingerprint_files, pack

PLAN = {"row_wise": True}
EXAMPLES: dict[str, Any] = {"v2_example": {"inputs": []}}


def test_results_of_the_same_files_are_known() -> None:
    known = KnownTrials(pack("f1", PLAN, EXAMPLES), "f1")
    assert (known.plan, known.examples) == (PLAN, EXAMPLES)


@pytest.mark.parametrize("results", [None, {}, pack("f2", PLAN, EXAMPLES)])
def test_results_of_other_files_are_not(results: dict[str, object] | None) -> None:
    known = KnownTrials(results, "f1")
    assert (known.plan, known.examples) == (None, None)


def test_a_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("MLmodel", "b/model.pkl", "b/z"):
        (tmp_path / name).write_text(name)
    fingerprint = fingerprint_files(str(tmp_path))
    seen = {fingerprint}
    assert fingerprint_files(str(tmp_path)) == fingerprint

    os.utime(tmp_path / "MLmodel", ns=(1, 1))
    seen.add(fingerprint_files(str(tmp_path)))
    status = (tmp_path / "b/z").stat()
    (tmp_path / "b/z").write_text("longer than before")
    os.utime(tmp_path / "b/z", ns=(status.st_mtime_ns, status.st_mtime_ns))
    seen.add(fingerprint_files(str(tmp_path)))
    (tmp_path / "b/z").rename(tmp_path / "b/y")
    seen.add(fingerprint_files(str(tmp_path)))
    (tmp_path / "b/y").rename(tmp_path / "y")
    seen.add(fingerprint_files(str(tmp_path)))
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    assert len(seen) == 5
    assert fingerprint_files(str(tmp_path)) in seen

"""All workers killed again and again while callers of every kind ask; `make chaos` does it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.killing import faults, run


@pytest.mark.slow
def test_all_workers_killed_again_and_again(tmp_path: Path) -> None:
    killing = run(tmp_path, 8)
    assert not list(faults(killing)), killing.counts

"""All workers killed repeatedly under load over every protocol; `make chaos` runs longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.worker_kills import list_faults, run


@pytest.mark.slow
def test_all_workers_killed_repeatedly(tmp_path: Path) -> None:
    load = run(tmp_path, 8)
    assert not list(list_faults(load)), load.counts

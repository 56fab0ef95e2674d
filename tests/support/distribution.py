"""Distribution of the tests over the processes of pytest-xdist, for `--dist loadfile`.

A file is run by one process, so that the servers of its module start once. `--dist worksteal`
divides files, at the end of a run again and again, and each part starts its file's servers.
"""

from __future__ import annotations

from typing import Any

from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# The tests of this folder share MLflow and its loaded models (fixture `mlflow_models`).
SHARED = "tests/unit/mlflow/"


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]  # no types
    """Sends the next file to the process that has finished its own; `SHARED` counts as one file."""

    def __init__(self, config: Any, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # the order of `order_files`

    def _split_scope(self, nodeid: str) -> str:
        return SHARED if nodeid.startswith(SHARED) else super()._split_scope(nodeid)

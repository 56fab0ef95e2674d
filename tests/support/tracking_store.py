"""An empty SQLite store of MLflow, for experiments, runs, registered models and traces.

MLflow creates one by 69 migrations, so one is created per machine, and tests copy it.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from support.model_cache import build_by_script

# `run_python` sets the address of the store.
CREATE = """
import mlflow

mlflow.search_experiments()
"""


def create_store(file: Path) -> str:
    """Write an empty store. Returns its address; artifacts are stored beside it."""
    shutil.copyfile(build_by_script("store", CREATE) / "mlflow.db", file)
    artifacts = (file.parent / "mlruns" / "0").as_uri()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ?", (artifacts,))
    return f"sqlite:///{file}"

"""A followed alias in the console: where it points, that it moved, and that it is gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.browser import OpenConsole, see
from support.mlflow_registry import MLflowRegistry
from support.server import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),
]


def test_a_moved_alias_is_seen(tmp_path: Path, open_console: OpenConsole) -> None:
    registry = MLflowRegistry(tmp_path)
    for version in (1, 2):
        registry.add("wine", float(version))
    registry.point("wine", "champion", 1)
    folder = tmp_path / "repository"
    (folder / "wine").mkdir(parents=True)
    extra = {"follow": 0.3, "cache_dir": str(tmp_path / "cache")}
    settings = {
        "name": "wine",
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": "models:/wine@champion", "extra": extra},
    }
    (folder / "wine" / "model-settings.json").write_text(json.dumps(settings))

    with Server(folder, workers=1, env=registry.env) as server:
        console = open_console(server)
        page = console.open("traffic")
        see(page, "Follows models:/wine@champion")
        see(page, "models:/wine/1")
        registry.point("wine", "champion", 2)
        see(page, "models:/wine/2")
        row = {"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [1.0]}
        assert server.infer("wine", [row]).json()["outputs"][0]["data"] == [2.0]
        registry.remove("wine", "champion")
        page.get_by_role("alert").get_by_text("The previous version keeps serving").wait_for()
        assert server.infer("wine", [row]).json()["outputs"][0]["data"] == [2.0]
        console.close()

"""MLflow models whose code waits: their requests overlap, and `max_concurrency` limits them."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature

from support.repository import tensor, write_settings
from support.server import Serve, Server

# More than the default executor of asyncio has on a machine with two processors.
OVERLAP = 12


def create_model() -> Any:
    """Return the model; its class is local, so that it is pickled with its code."""

    class Waits(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Blocks until the file `go` exists in the folder that its input names."""

        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[str]:
            import threading
            import time
            from pathlib import Path

            (text,) = model_input["text"]
            folder, _, number = text.rpartition(":")
            folder = folder or "/nowhere"
            marker = Path(folder) / f"in-{number}-{threading.get_ident()}"
            if Path(folder).is_dir():  # not in the predictions at load, of any text
                marker.touch()
            while Path(folder).is_dir() and not (Path(folder) / "go").exists():
                time.sleep(0.005)
            marker.unlink(missing_ok=True)
            return [number]

    return Waits()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("waits") / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow, about type hints
        signature = infer_signature(pd.DataFrame({"text": ["a"]}), ["a"])
        mlflow.pyfunc.save_model(
            folder, python_model=create_model(), signature=signature, pip_requirements=["mlflow"]
        )
    return folder


def serve_model(serve: Serve, folder: Path, model: Path, **settings: Any) -> Server:
    parameters = {"uri": str(model)}
    implementation = "mlserver_mlflow.MLflowRuntime"
    write_settings(
        folder / "m", name="m", implementation=implementation, parameters=parameters, **settings
    )
    (folder / "markers").mkdir()
    return serve(folder, workers=1)


def ask_v2(server: Server, text: str) -> Any:
    response = server.infer("m", [tensor("text", [text], "BYTES", [1, 1])])
    assert response.status_code == 200, response.text
    return response.json()["outputs"][0]["data"]


def ask_invocations(server: Server, text: str) -> Any:
    response = server.post("/invocations", {"dataframe_records": [{"text": text}]})
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def test_requests_overlap(serve: Serve, tmp_path: Path, model: Path) -> None:
    """V2 and `/invocations` are inside `predict` together; each gets its own answer."""
    server = serve_model(serve, tmp_path, model)
    markers = tmp_path / "markers"
    with ThreadPoolExecutor(OVERLAP) as callers:
        answers = [
            callers.submit(ask_v2 if number % 2 else ask_invocations, server, f"{markers}:{number}")
            for number in range(OVERLAP)
        ]
        server.wait(lambda: len(list(markers.glob("in-*"))) == OVERLAP, "all were inside")
        (markers / "go").touch()
        assert [answer.result(60) for answer in answers] == [
            [str(number)] for number in range(OVERLAP)
        ]


def test_max_concurrency_of_one(serve: Serve, tmp_path: Path, model: Path) -> None:
    server = serve_model(serve, tmp_path, model, max_concurrency=1, max_queue_size=50)
    markers = tmp_path / "markers"
    with ThreadPoolExecutor(4) as callers:
        answers = [
            callers.submit(ask_v2 if number % 2 else ask_invocations, server, f"{markers}:{number}")
            for number in range(4)
        ]
        server.wait(lambda: len(list(markers.glob("in-*"))) == 1, "one was inside")
        for _ in range(10):
            assert server.get("/v2/health/live").status_code == 200
            assert len(list(markers.glob("in-*"))) == 1
        (markers / "go").touch()
        assert [answer.result(60) for answer in answers] == [[str(n)] for n in range(4)]

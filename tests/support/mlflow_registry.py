"""An MLflow registry on SQLite with constant models: version N predicts N."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import mlflow
import numpy as np
from sklearn.dummy import DummyRegressor

from support.tracking_store import create_store


@contextmanager
def use_store(uri: str) -> Iterator[None]:
    """The functions of `mlflow` track and register in this store, until the end of the block.

    After it the registry follows the tracking address again, unless it had an address of its own:
    an address that stays set would be that of every later store, too.
    """
    tracking, registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri("" if registry == tracking else registry)
        if registry == tracking:
            os.environ.pop("MLFLOW_REGISTRY_URI", None)


class MLflowRegistry:
    """Registered models in a store of their own.

    Args: `folder`: parent of the database and the artifacts; `uri`: address of a tracking server,
    None = the database.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self.uri = uri or create_store(folder / "mlflow.db")
        self.infos: list[Any] = []
        self._client = mlflow.MlflowClient(self.uri, self.uri)
        artifacts = None if uri else (folder / "artifacts").resolve().as_uri()
        self._experiment = self._client.create_experiment("models", artifacts)

    @property
    def env(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_REGISTRY_URI": self.uri}

    def add(self, name: str, answer: float, model: Any = None) -> None:
        """Register a version: a constant model, or `model`. Its input example is one row.

        `model` is `python_model` of `mlflow.pyfunc.log_model`, or a dict of its options; None = a
        constant.
        """
        with use_store(self.uri), mlflow.start_run(experiment_id=self._experiment):
            self.infos.append(_log(name, answer, model))

    def point(self, name: str, alias: str, version: int) -> None:
        """Set an alias to a version."""
        self._client.set_registered_model_alias(name, alias, str(version))

    def remove(self, name: str, alias: str) -> None:
        """Remove an alias."""
        self._client.delete_registered_model_alias(name, alias)


def _log(name: str, answer: float, model: Any) -> Any:
    options = {"registered_model_name": name, "input_example": np.array([[1.0]]), "name": "model"}
    if isinstance(model, dict):
        return mlflow.pyfunc.log_model(name="model", registered_model_name=name, **model)
    if model is not None:
        return mlflow.pyfunc.log_model(python_model=model, pip_requirements=["mlflow"], **options)
    estimator = DummyRegressor(strategy="constant", constant=answer).fit([[0.0]], [answer])
    return mlflow.sklearn.log_model(estimator, pip_requirements=["scikit-learn"], **options)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's own name
        """Log nothing: a test's output is its failures."""


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """MLflow's tracking server over a SQLite store, in a thread, until the end of the block."""
    from mlflow.server import app, handlers

    store = create_store(folder / "server.db")
    # The handlers keep the first stores of their process, and make them those of `mlflow`.
    vars(handlers).update(_tracking_store=None, _model_registry_store=None, _artifact_repo=None)
    with use_store(store):
        handlers.initialize_backend_stores(store, store, str(folder / "server"))
    with make_server("127.0.0.1", 0, app, _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, name="mlflow-server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

"""Models of the zoo as MLflow's own scoring app and as our runtime, each made once."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlserver.settings import ModelParameters, ModelSettings
from mlserver_mlflow import MLflowRuntime
from mlserver_mlflow.pyfunc import load_model, scoring_server
from support import mlflow_more, mlflow_zoo

MODELS = {**mlflow_zoo.MODELS, **mlflow_more.MODELS}


@dataclass
class Served:
    """One model, both ways."""

    name: str
    runtime: MLflowRuntime
    oracle: httpx.AsyncClient
    loaded: Any


class Zoo:
    """Saves and loads models of the zoo when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._served: dict[str, Served] = {}

    def path(self, name: str) -> Path:
        path = self._folder / name
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                MODELS[name]()(path)
        return path

    async def runtime(self, name: str) -> MLflowRuntime:
        settings = ModelSettings(
            name=name, implementation=MLflowRuntime, parameters=ModelParameters(uri=str(self.path(name)))
        )
        runtime = MLflowRuntime(settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await runtime.load()
        return runtime

    async def __call__(self, name: str) -> Served:
        if name not in self._served:
            runtime = await self.runtime(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = load_model(str(self.path(name)))
                app = scoring_server.init(loaded)
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            oracle = httpx.AsyncClient(transport=transport, base_url="http://mlflow")
            self._served[name] = Served(name, runtime, oracle, loaded)
        return self._served[name]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    """The zoo, with MLflow's logs and stores out of the way."""
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("zoo")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    yield Zoo(folder)
    os.environ.clear()
    os.environ.update(before)

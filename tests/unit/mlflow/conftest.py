"""Test models as MLflow's own scoring app and as the runtime, each saved and loaded once."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.version import VERSION

from mlserver.settings import ModelParameters, ModelSettings
from mlserver_mlflow import MLflowRuntime
from mlserver_mlflow.loading.pyfunc import load_model, scoring_server
from support import extra_flavor_models as extra_flavor_models
from support import flavor_models

MODELS = {**flavor_models.MODELS, **extra_flavor_models.MODELS}
SINCE = {**flavor_models.SINCE, **extra_flavor_models.SINCE}
MLFLOW = tuple(map(int, VERSION.split(".")[:2]))


class Oracle:
    """MLflow's own scoring app: Flask's before 2.21, FastAPI's from then on."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def post(self, path: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        if hasattr(self._app, "wsgi_app"):
            with httpx.Client(
                transport=httpx.WSGITransport(app=self._app), base_url="http://mlflow"
            ) as client:
                return await asyncio.to_thread(client.post, path, content=content, headers=headers)
        transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://mlflow") as asynchronous:
            return await asynchronous.post(path, content=content, headers=headers)


@dataclass
class Served:
    """One model in the runtime and in MLflow's app."""

    name: str
    runtime: MLflowRuntime
    oracle: Oracle
    loaded: Any


class MLflowModels:
    """Saves and loads test models on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._served: dict[str, Served] = {}

    def path(self, name: str) -> Path:
        path = self._folder / name
        if SINCE.get(name, MLFLOW) > MLFLOW:
            pytest.skip(f"MLflow {VERSION} cannot save model '{name}'")
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                MODELS[name]()(path)
        return path

    async def runtime(self, name: str) -> MLflowRuntime:
        settings = ModelSettings(
            name=name,
            implementation=MLflowRuntime,
            parameters=ModelParameters(uri=str(self.path(name))),
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
            self._served[name] = Served(name, runtime, Oracle(app), loaded)
        return self._served[name]


@pytest.fixture(scope="session")
def mlflow_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowModels]:
    """The test models, with a tracking store and a log level of their own."""
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("models")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    yield MLflowModels(folder)
    os.environ.clear()
    os.environ.update(before)

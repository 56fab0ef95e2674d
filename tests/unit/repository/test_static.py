"""Repository of a fixed list of models."""

from __future__ import annotations

import pytest

from mlserver.errors import ModelNotFound
from mlserver.repository import ModelRepositoryFactory
from mlserver.settings import Settings

VALUES = {
    "name": "wine",
    "implementation": "mlserver_mlflow.MLflowRuntime",
    "parameters": {"uri": "models:/wine@best"},
}


async def test_list_and_find() -> None:
    settings = Settings(
        model_repository_implementation="mlserver.repository.static.StaticModelRepository",
        model_repository_implementation_args={"models": [VALUES]},
    )
    repository = ModelRepositoryFactory.resolve_model_repository(settings)
    [model] = await repository.list()
    assert model.name == "wine"
    assert model.parameters is not None
    assert model.parameters.uri == "models:/wine@best"
    assert [entry.name for entry in await repository.find("wine")] == ["wine"]
    with pytest.raises(ModelNotFound):
        await repository.find("beer")

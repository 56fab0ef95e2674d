"""Creation of the repository: the default, custom classes and their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserver.errors import ModelNotFound
from mlserver.repository import ModelRepository, ModelRepositoryFactory, SchemalessModelRepository
from mlserver.settings import ModelSettings, Settings, SettingsError

# An alias: in the class below, `list` is a method.
Models = list[ModelSettings]


class Shelf(ModelRepository):
    """A repository in memory."""

    def __init__(self, root: str, names: tuple[str, ...] = ()) -> None:
        self.root = root
        self.models = [ModelSettings(name=name, implementation="a.B") for name in names]

    async def list(self) -> Models:
        return self.models

    async def find(self, name: str) -> Models:
        matching = [settings for settings in self.models if settings.name == name]
        if not matching:
            raise ModelNotFound(name)
        return matching


class Half(ModelRepository):
    async def list(self) -> Models:
        return []


def resolve(implementation: Any, **arguments: Any) -> ModelRepository:
    settings = Settings(
        model_repository_root="/models",
        model_repository_implementation=implementation,
        model_repository_implementation_args=arguments,
    )
    return ModelRepositoryFactory.resolve_model_repository(settings)


async def test_default(root: Path) -> None:
    (root / "MLmodel").touch()
    repository = ModelRepositoryFactory.resolve_model_repository(
        Settings(model_repository_root=str(root))
    )
    assert isinstance(repository, SchemalessModelRepository)
    assert [settings.name for settings in await repository.list()] == ["models"]


async def test_custom_class_with_arguments() -> None:
    repository = resolve(Shelf, names=("a", "b"))
    assert isinstance(repository, Shelf)
    assert repository.root == "/models"
    assert [settings.name for settings in await repository.list()] == ["a", "b"]
    assert [settings.name for settings in await repository.find("b")] == ["b"]
    assert repository.problems == {}


def test_custom_class_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_shelf.py").write_text(
        "from mlserver.repository import SchemalessModelRepository\n"
        "class Own(SchemalessModelRepository): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert type(resolve("own_shelf.Own")).__name__ == "Own"


@pytest.mark.parametrize(
    "implementation, arguments, expected",
    [
        (
            "no.Such",
            {},
            "model_repository_implementation: 'no.Such' cannot be imported: No module named 'no'",
        ),
        (Shelf, {"colour": 1}, "creating Shelf failed: .*unexpected keyword argument 'colour'"),
        (Half, {}, "creating Half failed: .*abstract"),
        ("pathlib.Path", {}, "creating Path failed|received PosixPath|received Path"),
        (dict, {}, "expected a subclass of ModelRepository, received dict"),
        (None, {"colour": 1}, r"unknown argument\(s\) colour"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:support for supplying keyword arguments to pathlib:DeprecationWarning"
)
def test_errors(implementation: Any, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        resolve(implementation, **arguments)

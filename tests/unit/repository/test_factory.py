"""Which repository the settings ask for: the folders', or one's own with its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserver.errors import ModelNotFound
from mlserver.repository import ModelRepository, ModelRepositoryFactory, SchemalessModelRepository
from mlserver.settings import ModelSettings, Settings, SettingsError

# `list` is also the name of a method here.
Models = list[ModelSettings]


class Shelf(ModelRepository):
    """Models that exist nowhere but here."""

    def __init__(self, root: str, names: tuple[str, ...] = ()) -> None:
        self.root = root
        self.models = [ModelSettings(name=name, implementation="a.B") for name in names]

    async def list(self) -> Models:
        return self.models

    async def find(self, name: str) -> Models:
        found = [settings for settings in self.models if settings.name == name]
        if not found:
            raise ModelNotFound(name)
        return found


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


async def test_the_default(root: Path) -> None:
    (root / "MLmodel").touch()
    repository = ModelRepositoryFactory.resolve_model_repository(
        Settings(model_repository_root=str(root))
    )
    assert isinstance(repository, SchemalessModelRepository)
    assert [settings.name for settings in await repository.list()] == ["models"]


async def test_ones_own_class_with_arguments() -> None:
    repository = resolve(Shelf, names=("a", "b"))
    assert isinstance(repository, Shelf)
    assert repository.root == "/models"
    assert [settings.name for settings in await repository.list()] == ["a", "b"]
    assert [settings.name for settings in await repository.find("b")] == ["b"]
    assert repository.problems == {}


def test_ones_own_class_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_shelf.py").write_text(
        "from mlserver.repository import SchemalessModelRepository\nclass Own(SchemalessModelRepository): pass\n"
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
        (Shelf, {"colour": 1}, "Shelf cannot be made: .*unexpected keyword argument 'colour'"),
        (Half, {}, "Half cannot be made: .*abstract"),
        ("pathlib.Path", {}, "Path cannot be made|Path is not a ModelRepository"),
        (dict, {}, "dict is not a ModelRepository"),
        (None, {"colour": 1}, r"unknown argument\(s\) colour"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:support for supplying keyword arguments to pathlib:DeprecationWarning"
)
def test_what_is_wrong_is_said(
    implementation: Any, arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SettingsError, match=expected):
        resolve(implementation, **arguments)

"""Hooks of runtimes: found by entry point, absent for packages without one, unusable if broken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlserver import model_imports, runtime_hooks
from mlserver.errors import InvalidPayload
from mlserver.rest import hints
from mlserver.runtime_hooks import GROUP, NO_HOOKS, find_hooks, list_implementations
from mlserver.wire import json

HOOKS = """
from mlserver.runtime_hooks import RuntimeHooks


class Hooks(RuntimeHooks):
    implementations = ("a_runtime.Runtime",)
    path_hints = {"/ask": "no model of a_runtime is loaded"}
    inference_hint = "POST /ask"

    def get_body_hint(self, document):
        return "; send 'question' to /ask" if "question" in document else ""

    def is_mutable_address(self, uri):
        return uri.startswith("latest:")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs a distribution with the package `a_runtime` and an entry point."""

    def write(entry_point: str) -> None:
        (tmp_path / "a_runtime").mkdir()
        (tmp_path / "a_runtime" / "__init__.py").touch()
        (tmp_path / "a_runtime" / "hooks.py").write_text(HOOKS)
        metadata = tmp_path / "a_runtime-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: a-runtime\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{GROUP}]\na_runtime = {entry_point}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    runtime_hooks._load_hooks.cache_clear()
    runtime_hooks.list_hooks.cache_clear()
    model_imports.list_runtimes.cache_clear()
    yield write
    runtime_hooks._load_hooks.cache_clear()
    runtime_hooks.list_hooks.cache_clear()
    model_imports.list_runtimes.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "a_runtime"]:
        del sys.modules[name]


def test_another_runtime_declares_its_hooks(install: Callable[[str], None]) -> None:
    install("a_runtime.hooks:Hooks")
    for path in ("a_runtime.Runtime", "a_runtime:Runtime", "a_runtime.sub.Runtime"):
        hooks = find_hooks(path)
        assert hooks.package == "a_runtime"
        assert hooks.is_mutable_address("latest:m")
        assert not hooks.is_mutable_address("./m")
    assert "a_runtime.Runtime" in list_implementations()


def test_a_runtime_adds_hints_to_errors(install: Callable[[str], None]) -> None:
    install("a_runtime.hooks:Hooks")
    assert hints.get_hint("/ask") == "no model of a_runtime is loaded"
    assert ", or POST /ask" in hints.get_hint("/predict")
    assert "or POST /ask" in hints.get_hint("/no/such/path")
    with pytest.raises(InvalidPayload, match="missing; send 'question' to /ask"):
        json.validate_document({"question": "?"})
    with pytest.raises(InvalidPayload, match="missing$"):
        json.validate_document({})


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/endpoints/wine/invocations", "MLflow models have it at /v2/models/wine/invocations"),
        ("/serving-endpoints/wine/invocations", "at /v2/models/wine/invocations"),
        ("/v1/models/wine:predict", "inference is POST /v2/models/wine/infer"),
        ("/v2/models/wine/versions/2/predict", "inference is POST /v2/models/wine/infer"),
    ],
)
def test_paths_of_other_servers_name_the_model(path: str, expected: str) -> None:
    assert expected in hints.get_hint(path)


def test_a_package_without_an_entry_point_has_no_hooks() -> None:
    assert find_hooks("no_such_package.Runtime") is NO_HOOKS
    assert find_hooks("mlserver.MLModel") is NO_HOOKS


@pytest.mark.parametrize("entry_point", ["a_runtime.missing:Hooks", "a_runtime.hooks:Missing"])
def test_a_broken_entry_point_counts_as_none(
    install: Callable[[str], None], entry_point: str
) -> None:
    install(entry_point)
    assert find_hooks("a_runtime.Runtime") is NO_HOOKS
    assert "a_runtime.Runtime" not in list_implementations()


def test_the_mlflow_runtime_declares_its_hooks() -> None:
    hooks = find_hooks("mlserver_mlflow.MLflowRuntime")
    assert hooks.is_mutable_address("models:/wine@champion")
    assert hooks.install_command("scikit-learn") == "pip install 'mlserver-mlflow[full]'"
    assert hooks.install_command("something") is None
    assert "mlserver_mlflow.MLflowRuntime" in list_implementations()

"""The C loader of YAML returns what MLflow's loader returns."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest
from mlflow.models import Model
from mlflow.models import model as models_from_code

from mlserver_mlflow.loading import fast_yaml
from mlserver_mlflow.loading.fast_yaml import FastYAML
from support.models import Models

yaml: Any = importlib.import_module("yaml")

TEXTS = [
    "a: 1\nb: [1.5, null, ~, yes, 'yes']\n",
    "time: 2026-11-26 09:03:20.064660\nquoted: '2026-11-26 09:03:20.064660'\n",
    "text: 'naïve 😀'\nplain: 😀 plain\nbreak: \"a\\u2028b\"\n",
    "octal: 010\nversion: 3.10\nquoted: '3.10'\nhex: 0x1F\n",
    "long: 'one\n  two\n\n  three'\nblock: |\n  a\n   b\n",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_equal_documents(text: str) -> None:
    assert repr(FastYAML.safe_load(text)) == repr(yaml.safe_load(text))


@pytest.mark.parametrize("text", ["a: [1", "a: !!python/object:os.system x", "\x00", "a: b: c"])
def test_equal_errors(text: str) -> None:
    with pytest.raises(yaml.YAMLError) as expected:
        yaml.safe_load(text)
    with pytest.raises(type(expected.value)):
        FastYAML.safe_load(text)


def test_mlflow_reads_a_model_with_it(models: Models) -> None:
    import mlserver_mlflow.loading.pyfunc  # noqa: F401

    assert isinstance(vars(models_from_code)["yaml"], FastYAML)
    text = (models["wine"] / "MLmodel").read_text()
    assert (
        Model.load(str(models["wine"])).to_dict() == Model.from_dict(yaml.safe_load(text)).to_dict()
    )


def test_other_names_are_those_of_the_library() -> None:
    assert FastYAML().YAMLError is yaml.YAMLError
    with pytest.raises(AttributeError):
        FastYAML().no_such_name  # noqa: B018


def test_nothing_is_replaced_without_the_c_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("a_module")
    vars(module)["yaml"] = yaml
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    fast_yaml.install(module)
    assert vars(module)["yaml"] is yaml

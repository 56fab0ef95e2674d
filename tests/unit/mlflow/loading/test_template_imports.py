"""What a template imports for a model: the libraries of its flavors, and modules of its pickle."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from sklearn.linear_model import ElasticNet
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlserver.settings import ModelParameters, ModelSettings
from mlserver_mlflow.loading import template_imports

MLMODEL = """flavors:
  python_function:
    loader_module: mlflow.sklearn
  sklearn:
    pickled_model: {name}
    serialization_format: cloudpickle
"""


def list_for(folder: Path, name: str = "model.pkl") -> list[str]:
    (folder / "MLmodel").write_text(MLMODEL.format(name=name))
    parameters = ModelParameters(uri=str(folder))
    settings = ModelSettings(
        name="m", implementation="mlserver_mlflow.MLflowRuntime", parameters=parameters
    )
    return template_imports.list_for_settings(settings)


def test_modules_of_a_pickled_pipeline(tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), ElasticNet())
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(pipeline))
    assert {
        "mlflow.sklearn",
        "sklearn.pipeline",
        "sklearn.preprocessing._data",
        "sklearn.linear_model._coordinate_descent",
    } <= set(list_for(tmp_path))


def test_a_pickle_names_modules_of_scikit_learn_only(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"cos\nsystem\nsklearn.base my.sklearn sklearn.a..b")
    added = set(list_for(tmp_path)) - set(list_for(tmp_path, "other.pkl"))
    assert added == {"sklearn.base", "sklearn.a"}


def test_a_pickle_that_is_no_file(tmp_path: Path) -> None:
    """A pipe would block the server."""
    os.mkfifo(tmp_path / "model.pkl")
    assert "sklearn" in list_for(tmp_path)
    assert "sklearn" in list_for(tmp_path, "missing.pkl")

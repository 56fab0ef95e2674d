"""MLflow models for the tests, one per kind, built in a child process: tests import neither
MLflow nor scikit-learn.

`python -m support.models FOLDER [WINE_CSV]` writes one MLflow model per kind into FOLDER, and
`answers.json` with the wine model's prediction. The fixture `models` calls `build`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.model_cache import build_once, run_builder

KINDS = ("wine", "frame", "dict", "array", "python")
# One row of the red wine data, in the order of the model's columns.
WINE = {
    "fixed acidity": 7.4,
    "volatile acidity": 0.7,
    "citric acid": 0.0,
    "residual sugar": 1.9,
    "chlorides": 0.076,
    "free sulfur dioxide": 11.0,
    "total sulfur dioxide": 34.0,
    "density": 0.9978,
    "pH": 3.51,
    "sulphates": 0.56,
    "alcohol": 9.4,
}
DATA = "winequality-red.csv"


@dataclass(frozen=True)
class Models:
    """MLflow models on disk by kind (see `KINDS`), and the wine model's prediction for `WINE`."""

    folder: Path
    wine_answer: float
    red_wine: bool

    def __getitem__(self, kind: str) -> Path:
        return self.folder / kind

    def copy(self, kind: str, to: Path) -> Path:
        """Copy a model, so that a test may write to it. Returns `to`."""
        shutil.copytree(self[kind], to)
        return to


def wine_data() -> Path | None:
    """The UCI red wine data.

    The file named by WINE_DATA, or `../shared/data/winequality-red.csv`.
    """
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / DATA
    named = Path(os.environ.get("WINE_DATA", beside))
    return named if named.is_file() else None


def build() -> Models:
    """Return every kind of model, built once per machine."""
    data = wine_data()
    arguments = [] if data is None else [str(data)]
    sources = [Path(__file__), *map(Path, arguments)]
    folder = build_once(
        "models", sources, lambda folder: run_builder("support.models", folder, *arguments)
    )
    answers = json.loads((folder / "answers.json").read_text())
    return Models(folder, wine_answer=answers["wine"], red_wine=answers["red"])


# -- the builder process --


def wine(folder: Path, data: Path | None) -> float:
    """Save the quick start's model, an ElasticNet on the red wine data. Returns its prediction
    for `WINE`.

    Without the data, it is trained on scikit-learn's bundled wines under the same column names.
    """
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_wine
    from sklearn.linear_model import ElasticNet
    from sklearn.model_selection import train_test_split

    np.random.seed(40)
    if data is None:
        values, target = load_wine(return_X_y=True)
        table = pd.DataFrame(values[:, : len(WINE)], columns=list(WINE)).assign(quality=target)
    else:
        table = pd.read_csv(data, sep=";")
    train, _ = train_test_split(table)
    features, quality = train.drop(columns=["quality"]), train[["quality"]]
    model = ElasticNet(alpha=0.5, l1_ratio=0.5, random_state=42).fit(features, quality)
    save_estimator(folder, model, features, quality)
    return float(model.predict(pd.DataFrame([WINE]))[0])


def frame(folder: Path) -> None:
    """Save a model of columns of several types.

    It returns each row's `name` and `count + ratio`.
    """
    import pandas as pd

    example = pd.DataFrame(
        {"name": ["a", "b"], "count": [1, 2], "ratio": [0.5, 1.5], "flag": [True, False]}
    )
    save_function(folder, FRAME, example, example[["name"]].assign(total=[1.5, 3.5]))


def named_tensors(folder: Path) -> None:
    """Save a model of two named tensors: it returns their sum and difference by name."""
    import numpy as np

    example = {"left": np.ones((2, 3), dtype="float32"), "right": np.ones((2, 3), dtype="float32")}
    save_function(
        folder, NAMED_TENSORS, example, {"sum": example["left"], "difference": example["left"]}
    )


def array(folder: Path) -> None:
    """Save a model of one unnamed tensor: it returns twice its values."""
    import numpy as np

    example = np.ones((2, 3), dtype="float64")
    save_function(folder, ARRAY, example, example)


def python(folder: Path) -> None:
    """Save a model of texts with a parameter: it returns the length of each text times `factor`."""
    import pandas as pd

    example = pd.DataFrame({"text": ["one", "three"]})
    save_function(folder, PYTHON, example, pd.DataFrame({"length": [3, 5]}), params={"factor": 1})


FRAME = """
    def predict(self, context, model_input, params=None):
        numbers = model_input["count"] + model_input["ratio"]
        return model_input[["name"]].assign(total=numbers)
"""
NAMED_TENSORS = """
    def predict(self, context, model_input, params=None):
        left, right = model_input["left"], model_input["right"]
        return {"sum": left + right, "difference": left - right}
"""
ARRAY = """
    def predict(self, context, model_input, params=None):
        return 2 * model_input
"""
PYTHON = """
    def predict(self, context, model_input, params=None):
        lengths = model_input["text"].str.len() * params["factor"]
        return lengths.to_frame("length")
"""
MODULE = """from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Model(PythonModel):{body}

set_model(Model())
"""


def save_estimator(folder: Path, model: Any, inputs: Any, outputs: Any) -> None:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    signature = infer_signature(inputs, outputs)
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=["scikit-learn"])


def save_function(
    folder: Path, body: str, inputs: Any, outputs: Any, params: dict[str, Any] | None = None
) -> None:
    """Save a model from code (nothing is pickled): `body` is the class body with `predict`."""
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    source = folder.parent / f"{folder.name}_source.py"
    source.write_text(MODULE.format(body=body))
    signature = infer_signature(inputs, outputs, params)
    mlflow.pyfunc.save_model(
        folder, python_model=str(source), signature=signature, pip_requirements=["mlflow"]
    )


def main(folder: Path, data: Path | None) -> None:
    warnings.simplefilter("ignore")  # MLflow's advice to the author of a model
    answer = wine(folder / "wine", data)
    frame(folder / "frame")
    named_tensors(folder / "dict")
    array(folder / "array")
    python(folder / "python")
    (folder / "answers.json").write_text(json.dumps({"wine": answer, "red": data is not None}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]) if len(sys.argv) > 2 else None)

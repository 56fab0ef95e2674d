"""MLflow models whose signatures have no names or unusual ones, built in a child process.

`python -m support.signature_models FOLDER` writes them; the fixture `signature_models` calls
`build`.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from support.model_cache import build_once, run_builder

UNUSABLE = ["a\nb", "x" * 2000, "t\tb", "plain"]
ORDERS: dict[str, list[Any]] = {
    "order-201": [2, 0, 1],
    "order-02": [0, 2],
    "order-mixed": ["0", 1],
    "order-text": ["b", "a"],
    "order-empty": ["x", ""],
}


def build() -> Path:
    """Return the folder of every model, built once per machine."""
    return build_once(
        "signatures",
        [Path(__file__)],
        lambda folder: run_builder("support.signature_models", folder),
    )


# -- the builder process --

# Returns a description of the frame or dictionary it receives.
DESCRIBE = """
    def predict(self, context, model_input, params=None):
        if isinstance(model_input, dict):
            return [json.dumps([[key, value.tolist()] for key, value in model_input.items()])]
        columns = [model_input.iloc[:, index].tolist() for index in range(model_input.shape[1])]
        values = [[_plain(item) for item in column] for column in columns]
        return [json.dumps([model_input.columns.tolist(), values])]
"""
PARAMS = """
    def predict(self, context, model_input, params=None):
        return [json.dumps(params, sort_keys=True)]
"""
# Like MLflow's wrapper of a text classification pipeline: the texts are column 0.
CLASSIFY = """
    def predict(self, context, model_input, params=None):
        return ["POSITIVE" if "good" in text else "NEGATIVE" for text in model_input[0]]
"""
MODULE = """import json

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


def _plain(item):
    if isinstance(item, list):
        return [_plain(part) for part in item]
    if hasattr(item, "tolist"):
        return item.tolist()
    return item if isinstance(item, (str, int, float, bool)) or item is None else str(item)


class Model(PythonModel):{body}

set_model(Model())
"""


def save_function(folder: Path, body: str, signature: Any) -> None:
    import mlflow.pyfunc

    source = folder.parent / f"{folder.name}_source.py"
    source.write_text(MODULE.format(body=body))
    mlflow.pyfunc.save_model(
        folder, python_model=str(source), signature=signature, pip_requirements=["mlflow"]
    )


def save_estimator(folder: Path, model: Any, signature: Any) -> None:
    import mlflow.sklearn

    mlflow.sklearn.save_model(
        model,
        folder,
        signature=signature,
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )


def functions(folder: Path) -> None:
    """Models that describe their input, one per kind of signature."""
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import Array

    texts = infer_signature(["a", "b"], ["c"])
    save_function(folder / "classify", CLASSIFY, texts)
    save_function(folder / "describe-texts", DESCRIBE, texts)
    three = Schema([ColSpec(DataType.double), ColSpec(DataType.long), ColSpec(DataType.string)])
    save_function(folder / "describe-three", DESCRIBE, ModelSignature(three))
    numbers = Schema([ColSpec(DataType.double)] * 3)
    save_function(folder / "describe-numbers", DESCRIBE, ModelSignature(numbers))
    arrays = {
        "words": ColSpec(Array(DataType.string), "words"),
        "nested": ColSpec(Array(Array(DataType.string)), "nested"),
        "numbers": ColSpec(Array(DataType.double), "numbers"),
        "blobs": ColSpec(Array(DataType.binary), "blobs"),
    }
    for name, spec in arrays.items():
        save_function(folder / f"lists-{name}", DESCRIBE, ModelSignature(Schema([spec])))
    for name, columns in ORDERS.items():
        example = pd.DataFrame([[float(at) for at in range(len(columns))]], columns=columns)
        save_function(folder / name, DESCRIBE, infer_signature(example, ["x"]))
    for name, columns in ORDERS.items():
        specs = [TensorSpec(np.dtype("float64"), (-1, 2), column) for column in columns]
        save_function(folder / f"tensor-{name}", DESCRIBE, ModelSignature(Schema(specs)))
    params = {"stop": ["x"], "temperature": 0.5, "counts": [1], "name": "n"}
    save_function(folder / "params", PARAMS, infer_signature(["a"], ["b"], params))
    unusable = pd.DataFrame([[1.0, 2.0, 3.0, 4.0]], columns=UNUSABLE)
    save_function(folder / "unusable", DESCRIBE, infer_signature(unusable, ["x"]))
    twice = Schema(
        [ColSpec(DataType.double, "1"), ColSpec(DataType.double, 1), ColSpec(DataType.string, "c")]
    )
    save_function(folder / "same-text", DESCRIBE, ModelSignature(twice))


def estimators(folder: Path) -> None:
    """scikit-learn: text pipelines, and regressors trained with and without column names."""
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels = ["good fine nice", "bad poor sad"] * 10, ["pos", "neg"] * 10
    signature = infer_signature(["a", "b"], np.array(["pos"]))
    direct = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
    save_estimator(folder / "text-direct", direct, signature)
    columns = ColumnTransformer([("text", TfidfVectorizer(), 0)])
    pipeline = make_pipeline(columns, LogisticRegression()).fit(pd.DataFrame(texts), labels)
    save_estimator(folder / "text-column", pipeline, signature)
    numbers = np.arange(60.0).reshape(20, 3) ** 1.5
    target = numbers @ [1.0, -2.0, 0.5]
    named = pd.DataFrame(numbers, columns=["a", "b", "c"])
    mixed = named.astype({"a": "float32"})
    answer = np.array([1.0])
    save_estimator(
        folder / "fit-array",
        LinearRegression().fit(numbers, target),
        infer_signature(mixed, answer),
    )
    save_estimator(
        folder / "fit-frame",
        LinearRegression().fit(named, target),
        infer_signature(numbers, answer),
    )
    forest = RandomForestRegressor(n_estimators=3, random_state=0)
    save_estimator(
        folder / "forest-array", forest.fit(numbers, target), infer_signature(named, answer)
    )
    for name, order in (("fit-201", [2, 0, 1]), ("fit-02", [0, 2])):
        frame = pd.DataFrame(numbers[:, : len(order)], columns=order)
        save_estimator(
            folder / name, LinearRegression().fit(frame, target), infer_signature(frame, answer)
        )


def lightgbm(folder: Path) -> None:
    """LightGBM models trained on categories, and `lightgbm.json` with their predictions."""
    import lightgbm
    import mlflow.lightgbm
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature

    random = np.random.default_rng(0)
    drawn = {
        "text": random.choice(["a", "b", "c"], 300),
        "number": random.normal(size=300),
        "size": random.choice([1, 5, 9], 300),
        "flag": random.choice([True, False], 300),
    }
    plain = pd.DataFrame(drawn)
    frame = plain.astype({"text": "category", "size": "category", "flag": "category"})
    target = plain["number"] + frame["text"].cat.codes * 3 + frame["size"].cat.codes * 7
    label = (target > target.median()).astype(int)
    signature = infer_signature(plain, np.array([1.0]))
    models = {
        "lightgbm-regressor": lightgbm.LGBMRegressor(n_estimators=20, verbose=-1).fit(
            frame, target
        ),
        "lightgbm-booster": lightgbm.train({"verbose": -1}, lightgbm.Dataset(frame, target), 20),
        "lightgbm-classifier": lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(
            frame, label
        ),
    }
    sample = frame.head(4).copy()
    sample["text"] = pd.Categorical(["a", "c", "b", None], categories=["a", "b", "c"])
    answers: dict[str, Any] = {
        name: model.predict(sample).tolist() for name, model in models.items()
    }
    answers["probabilities"] = models["lightgbm-classifier"].predict_proba(sample).ravel().tolist()
    answers["rows"] = {name: plain[name].head(4).tolist() for name in drawn} | {
        "text": ["a", "c", "b", "unseen"]
    }
    (folder / "lightgbm.json").write_text(json.dumps(answers))
    for name, model in models.items():
        mlflow.lightgbm.save_model(
            model, folder / name, signature=signature, pip_requirements=["lightgbm"]
        )


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")  # MLflow's advice to the author of a model
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    functions(folder)
    estimators(folder)
    if importlib.util.find_spec("lightgbm") is not None:
        lightgbm(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

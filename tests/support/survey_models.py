"""MLflow models of each installed flavor, among them those whose forked children hang if they
predict or load before the fork: KMeans, histogram boosting, LightGBM, BLAS on several threads.

`python -m support.survey_models FOLDER` writes one model per name, and `answers.json` with the
predictions of each for `ROWS`, made in that process without a fork.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from inspect import signature as signature_of
from pathlib import Path
from typing import Any

from support.model_cache import build_once, run_builder

COLUMNS = ("a", "b", "c", "d")
# Threads of the models with a number of threads of their own.
THREADS = 4
ROWS = [[0.5, -1.0, 2.0, 0.25], [-3.0, 0.125, 1.5, 7.0], [10.0, 11.0, -12.0, 0.0]]


def build() -> Path:
    """Return the folder of the models, built once per machine."""
    sources = [Path(__file__)]
    return build_once(
        "survey", sources, lambda folder: run_builder("support.survey_models", folder)
    )


# -- the builder process --


def list_estimators() -> dict[str, tuple[str, Callable[[], Any]]]:
    """Name -> flavor and a function that returns the untrained estimator."""
    from sklearn.cluster import KMeans
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LinearRegression
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    values: dict[str, tuple[str, Callable[[], Any]]] = {
        "kmeans": ("sklearn", lambda: KMeans(3, n_init=2, random_state=0)),
        "histogram": ("sklearn", lambda: HistGradientBoostingRegressor(max_iter=10)),
        "forest": ("sklearn", lambda: RandomForestClassifier(10, random_state=0, n_jobs=2)),
        "linear": ("sklearn", lambda: make_pipeline(StandardScaler(), LinearRegression())),
        "neighbours": ("sklearn", lambda: KNeighborsRegressor(n_jobs=2)),
        "net": (
            "sklearn",
            lambda: MLPRegressor(hidden_layer_sizes=(256, 256), max_iter=5, random_state=0),
        ),
        "svr": ("sklearn", SVR),
    }
    if find_spec("xgboost"):
        import xgboost

        values["xgboost"] = ("xgboost", lambda: xgboost.XGBRegressor(n_estimators=10))
        values["xgboost-threads"] = (
            "xgboost",
            lambda: xgboost.XGBRegressor(n_estimators=10, n_jobs=THREADS),
        )
    if find_spec("lightgbm"):
        import lightgbm

        values["lightgbm"] = (
            "lightgbm",
            lambda: lightgbm.LGBMRegressor(n_estimators=10, verbose=-1),
        )
        values["lightgbm-threads"] = (
            "lightgbm",
            lambda: lightgbm.LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=THREADS),
        )
    if find_spec("catboost"):
        import catboost

        values["catboost"] = (
            "catboost",
            lambda: catboost.CatBoostRegressor(iterations=10, verbose=False),
        )
    if find_spec("torch"):
        values["pytorch"] = ("pytorch", Network)
    if find_spec("onnx") and find_spec("onnxruntime"):
        values["onnx"] = ("onnx", Graph)
    return values


class Network:
    """A PyTorch model with the methods of an estimator."""

    def fit(self, table: Any, target: Any) -> Any:
        import torch

        torch.manual_seed(0)
        layers = (torch.nn.Linear(len(COLUMNS), 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
        return torch.nn.Sequential(*layers)


class Graph:
    """An ONNX model with the methods of an estimator."""

    def fit(self, table: Any, target: Any) -> Any:
        import onnx
        from onnx import TensorProto, helper

        values = [float(index) / 8 for index in range(len(COLUMNS))]
        weights = helper.make_tensor("w", TensorProto.FLOAT, [len(COLUMNS), 1], values)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(COLUMNS)])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
            [weights],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        return model


def main(folder: Path) -> None:
    import mlflow
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from mlflow.sklearn import SUPPORTED_SERIALIZATION_FORMATS

    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(400, len(COLUMNS))), columns=list(COLUMNS))
    target = table.to_numpy() @ [1.0, -2.0, 0.5, 0.0]
    answers = {}
    for name, (flavor, create) in list_estimators().items():
        labels = (target > 0).astype("int64") if name == "forest" else target
        model = create().fit(table, labels)
        module = __import__(f"mlflow.{flavor}", fromlist=["save_model"])
        save: Any = module.save_model
        example = model.predict(table) if hasattr(model, "predict") else target.astype("float32")
        signature = infer_signature(table, example)
        formats = ["cloudpickle"]
        if name in ("linear", "kmeans") and "skops" in SUPPORTED_SERIALIZATION_FORMATS:
            formats.append("skops")
        for kind in formats if flavor == "sklearn" else [""]:
            options: dict[str, Any] = {"pip_requirements": ["mlflow"]}  # not inferred: seconds each
            if flavor == "pytorch" and "serialization_format" in signature_of(save).parameters:
                kind = "pickle"  # the default needs an example and traces the model
            options |= {"serialization_format": kind} if kind else {}
            path = folder / (f"{name}-{kind}" if len(formats) > 1 else name)
            save(model, path=str(path), signature=signature, **options)
            loaded = mlflow.pyfunc.load_model(str(path))
            predictions = loaded.predict(pd.DataFrame(ROWS, columns=list(COLUMNS)))
            if isinstance(predictions, dict):  # ONNX: a tensor per output
                predictions = predictions["y"]
            answers[path.name] = np.asarray(predictions).ravel().tolist()
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))

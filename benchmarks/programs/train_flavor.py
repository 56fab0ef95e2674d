"""Train one model of the cold start: python train_flavor.py TABLE FLAVOR FOLDER ROW

TABLE is a CSV file with ';' between columns; the last one is the target. FOLDER gets the MLflow
model, and FOLDER.json beside it its answer to ROW, a JSON list, with which responses are checked.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import ElasticNet

SEED = 40
# Outputs of the networks: MLServer 1.x loads no model without declared outputs.
ANSWERS = np.zeros((1, 1), dtype=np.float32)


def save_sklearn(features: Any, target: Any, folder: Path, serialization: str) -> None:
    importlib.import_module("mlflow.sklearn")
    model = ElasticNet(alpha=0.5, l1_ratio=0.5, random_state=SEED).fit(features, target)
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=infer_signature(features, model.predict(features)),
        serialization_format=serialization,
        pip_requirements=["scikit-learn"],
    )


def save_boosted(features: Any, target: Any, folder: Path, library: str) -> None:
    flavor = importlib.import_module(f"mlflow.{library}")
    module = importlib.import_module(library)
    kind = {"xgboost": "XGBRegressor", "lightgbm": "LGBMRegressor"}[library]
    model = getattr(module, kind)(n_estimators=50, random_state=SEED, n_jobs=1)
    model.fit(features, target)
    signature = infer_signature(features, model.predict(features))
    flavor.save_model(model, folder, signature=signature, pip_requirements=[library])


def save_onnx(features: Any, target: Any, folder: Path) -> None:
    """Save a linear model as a graph: MatMul and Add."""
    flavor = importlib.import_module("mlflow.onnx")
    onnx = importlib.import_module("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto.FLOAT
    weights, bias = fit_linear(features, target)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["rows", "weights"], ["products"]),
            helper.make_node("Add", ["products", "bias"], ["sums"]),
        ],
        "linear",
        [helper.make_tensor_value_info("rows", numbers, [None, features.shape[1]])],
        [helper.make_tensor_value_info("sums", numbers, [None, 1])],
        [
            onnx.numpy_helper.from_array(array, name)
            for array, name in ((weights, "weights"), (bias, "bias"))
        ],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    flavor.save_model(
        model,
        folder,
        signature=infer_signature(features, ANSWERS),
        pip_requirements=["onnxruntime"],
    )


def save_pytorch(features: Any, target: Any, folder: Path) -> None:
    flavor = importlib.import_module("mlflow.pytorch")
    torch = importlib.import_module("torch")
    weights, bias = fit_linear(features, target)
    model = torch.nn.Linear(features.shape[1], 1)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(weights.T))
        model.bias.copy_(torch.from_numpy(bias))
    flavor.save_model(
        model,
        folder,
        signature=infer_signature(features, ANSWERS),
        serialization_format="pickle",  # the other one takes tensors only, not the table's columns
        pip_requirements=["torch"],
    )


def fit_linear(features: Any, target: Any) -> tuple[Any, Any]:
    """Return weights [columns, 1] and bias [1] as FP32."""
    model = ElasticNet(alpha=0.5, l1_ratio=0.5, random_state=SEED).fit(features, target)
    weights = np.asarray(model.coef_, dtype=np.float32).reshape(-1, 1)
    return weights, np.asarray([model.intercept_], dtype=np.float32)


def main(table: str, kind: str, folder: Path, row: list[float]) -> None:
    data = pd.read_csv(table, sep=";").astype("float64")
    features, target = data.iloc[:, :-1], data.iloc[:, -1]
    if kind.startswith("sklearn-"):
        save_sklearn(features, target, folder, kind.removeprefix("sklearn-"))
    elif kind in ("xgboost", "lightgbm"):
        save_boosted(features, target, folder, kind)
    elif kind == "onnx":
        save_onnx(features, target, folder)
    else:
        save_pytorch(features, target, folder)
    loaded = importlib.import_module("mlflow.pyfunc").load_model(str(folder))
    frame = pd.DataFrame([row], columns=features.columns, dtype="float64")
    answer = np.asarray(loaded.predict(frame)).ravel()[0]
    folder.with_suffix(".json").write_text(json.dumps({"row": row, "answer": float(answer)}))


if __name__ == "__main__":
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))

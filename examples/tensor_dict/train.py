"""Content type `dict`: a model of named tensors, which receives a dictionary of NumPy arrays.

Usage: python train.py FOLDER, then: mlserver start FOLDER
       curl -s localhost:8080/v2/models/tensor-dict/infer \\
         -H 'content-type: application/json' -d @FOLDER/request.json

The model returns a dictionary, so the response has one output per key. Its parameter `threshold`
may be set in the request's `parameters`.
"""

import argparse
import json
import shutil
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

NAME = "tensor-dict"
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            TensorSpec(np.dtype("float32"), (-1, 3), "query"),
            TensorSpec(np.dtype("float32"), (-1, 3), "document"),
        ]
    ),
    outputs=Schema(
        [
            TensorSpec(np.dtype("float32"), (-1,), "similarity"),
            TensorSpec(np.dtype("bool"), (-1,), "match"),
        ]
    ),
    params=ParamSchema([ParamSpec("threshold", DataType.double, 0.8)]),
)


def train(folder: Path) -> None:
    """Save the model, which needs no training."""
    shutil.rmtree(folder / "model", ignore_errors=True)
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(Path(__file__).with_name("matcher.py")),
        signature=SIGNATURE,
        pip_requirements=[f"numpy=={np.__version__}"],
    )


def describe(folder: Path) -> None:
    """Write the settings and a request for two pairs."""
    settings = {
        "name": NAME,
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": "./model"},
    }
    inputs = [
        {"name": "query", "datatype": "FP32", "shape": [2, 3], "data": [[1, 0, 0], [0, 1, 1]]},
        {"name": "document", "datatype": "FP32", "shape": [2, 3], "data": [[1, 0, 1], [0, 2, 2]]},
    ]
    request = {"parameters": {"threshold": 0.75}, "inputs": inputs}
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "request.json").write_text(json.dumps(request, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Save the example of named tensors.")
    parser.add_argument(
        "folder", type=Path, help="where to put the model, its settings and a request"
    )
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    train(folder)
    describe(folder)


if __name__ == "__main__":
    main()

"""Content type `np`: a model of one tensor, here images of digits, which receives a NumPy array.

Usage: python train.py FOLDER, then: mlserver start FOLDER
       curl -s localhost:8080/v2/models/tensor/infer \\
         -H 'content-type: application/json' -d @FOLDER/request.json

The signature is float64 [-1, 64], so the one input of a V2 request may have any name and needs no
content type.
"""

import argparse
import json
import shutil
from pathlib import Path

import mlflow.sklearn
import sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_digits
from sklearn.svm import SVC

NAME = "tensor"
SHOWN = 3


def train(folder: Path) -> None:
    """Fit a classifier of 8 x 8 images and save it with its signature."""
    images, digits = load_digits(return_X_y=True)
    model = SVC(gamma=0.001).fit(images[100:], digits[100:])
    signature = infer_signature(images, model.predict(images[:1]))
    shutil.rmtree(folder / "model", ignore_errors=True)
    needs = [f"scikit-learn=={sklearn.__version__}"]
    mlflow.sklearn.save_model(model, folder / "model", signature=signature, pip_requirements=needs)


def describe(folder: Path) -> None:
    """Write the settings and a request with images that are not in the training data."""
    settings = {
        "name": NAME,
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": "./model"},
    }
    images, _ = load_digits(return_X_y=True)
    image = {
        "name": "image",
        "datatype": "FP64",
        "shape": [SHOWN, 64],
        "data": images[:SHOWN].tolist(),
    }
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "request.json").write_text(json.dumps({"inputs": [image]}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tensor example.")
    parser.add_argument(
        "folder", type=Path, help="where to put the model, its settings and a request"
    )
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    train(folder)
    describe(folder)


if __name__ == "__main__":
    main()

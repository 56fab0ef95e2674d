"""Train a small model on scikit-learn's wine data, and write a folder for `mlserver start`.

Usage: python train.py FOLDER

FOLDER gets the MLflow model and its `model-settings.json`; three example requests are printed.
"""

import argparse
import json
import shutil
from pathlib import Path

import mlflow.sklearn
import sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAME = "wine"
COLUMNS = ["alcohol", "malic_acid", "ash"]

EXAMPLE_REQUESTS = """
Serving the model '{name}'. Try, from another terminal:

  curl -s localhost:8080/v2/models/{name}

  curl -s localhost:8080/v2/models/{name}/infer -H 'content-type: application/json' -d '{v2}'

  curl -s localhost:8080/invocations -H 'content-type: application/json' -d '{invocations}'

Ctrl-C ends it.
"""


def train(folder: Path) -> None:
    """Fit a classifier of three columns and save it with its signature."""
    data, target = load_wine(return_X_y=True, as_frame=True)
    features = data[COLUMNS]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, target)
    signature = infer_signature(features, model.predict(features))
    shutil.rmtree(folder / "model", ignore_errors=True)
    # Naming the requirements keeps MLflow from loading the model once more to find them out.
    needs = [f"scikit-learn=={sklearn.__version__}"]
    mlflow.sklearn.save_model(model, folder / "model", signature=signature, pip_requirements=needs)


def describe(folder: Path) -> None:
    """Write the settings file with the name, the runtime and the model's path."""
    settings = {
        "name": NAME,
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": "./model"},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=2) + "\n")


def ways_to_ask() -> str:
    """Return three curl commands with one wine."""
    wine = {"alcohol": 13.2, "malic_acid": 1.8, "ash": 2.1}
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in wine.items()
    ]
    v2 = json.dumps({"inputs": inputs})
    invocations = json.dumps({"dataframe_records": [wine]})
    return EXAMPLE_REQUESTS.format(name=NAME, v2=v2, invocations=invocations)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's model.")
    parser.add_argument("folder", type=Path, help="where to put the model and its settings")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    train(folder)
    describe(folder)
    print(ways_to_ask(), flush=True)


if __name__ == "__main__":
    main()

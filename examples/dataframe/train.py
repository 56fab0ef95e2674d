"""Content type `pd`: a model of named columns, text and numbers, which receives a DataFrame.

Usage: python train.py FOLDER, then: mlserver start FOLDER
       curl -s localhost:8080/v2/models/dataframe/infer \\
         -H 'content-type: application/json' -d @FOLDER/request.json

The signature names the columns and their types, so a V2 request has one input per column and needs
no content type.
"""

import argparse
import json
import shutil
from pathlib import Path

import mlflow.sklearn
import pandas as pd
import sklearn
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NAME = "dataframe"
JOURNEYS = pd.DataFrame(
    {
        "weather": ["sun", "rain", "sun", "snow", "rain", "sun", "snow", "rain"],
        "kilometres": [2.0, 2.5, 14.0, 1.0, 8.0, 5.0, 6.5, 20.0],
        "luggage": [0, 1, 2, 0, 3, 0, 1, 2],
    }
)
BY = ["bicycle", "bus", "bus", "foot", "taxi", "bicycle", "bus", "taxi"]


def train(folder: Path) -> None:
    """Fit encoders that select columns by name and a classifier; save them with a signature."""
    encoders = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["weather"]),
        (StandardScaler(), ["kilometres", "luggage"]),
    )
    model = make_pipeline(encoders, LogisticRegression()).fit(JOURNEYS, BY)
    signature = infer_signature(JOURNEYS, pd.DataFrame({"by": model.predict(JOURNEYS)}))
    shutil.rmtree(folder / "model", ignore_errors=True)
    needs = [f"scikit-learn=={sklearn.__version__}"]
    mlflow.sklearn.save_model(model, folder / "model", signature=signature, pip_requirements=needs)


def describe(folder: Path) -> None:
    """Write the settings and a request with two journeys."""
    settings = {
        "name": NAME,
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": "./model"},
    }
    inputs = [
        {"name": "weather", "datatype": "BYTES", "shape": [2, 1], "data": ["snow", "sun"]},
        {"name": "kilometres", "datatype": "FP64", "shape": [2, 1], "data": [1.5, 16]},
        {"name": "luggage", "datatype": "INT64", "shape": [2, 1], "data": [0, 2]},
    ]
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "request.json").write_text(json.dumps({"inputs": inputs}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the DataFrame example.")
    parser.add_argument(
        "folder", type=Path, help="where to put the model, its settings and a request"
    )
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    train(folder)
    describe(folder)


if __name__ == "__main__":
    main()

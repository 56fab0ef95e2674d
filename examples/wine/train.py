"""Train an ElasticNet on the red wine quality data, log it to MLflow, and print the model's folder.

    python train.py [--alpha 0.5] [--l1-ratio 0.5] [--data FILE]

The last line is the model's folder, for `uri` in model-settings.json; `--settings FILE` writes that
file too.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split

DATA = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/winequality-red.csv"
SEED = 40


def main() -> None:
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    options = parse_arguments()
    np.random.seed(SEED)
    data = pd.read_csv(options.data, sep=";")
    train, test = train_test_split(data)
    model = ElasticNet(alpha=options.alpha, l1_ratio=options.l1_ratio, random_state=SEED)
    model.fit(train.drop(columns="quality"), train["quality"])

    inputs, truth = test.drop(columns="quality"), test[["quality"]]
    predicted = model.predict(inputs)
    metrics = {
        "rmse": float(root_mean_squared_error(truth, predicted)),
        "r2": float(r2_score(truth, predicted)),
        "mae": float(mean_absolute_error(truth, predicted)),
    }
    print(f"ElasticNet (alpha={options.alpha}, l1_ratio={options.l1_ratio}):")
    print("  " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))

    with mlflow.start_run():
        mlflow.log_params({"alpha": options.alpha, "l1_ratio": options.l1_ratio})
        mlflow.log_metrics(metrics)
        signature = infer_signature(train.drop(columns="quality"), train[["quality"]])
        info = mlflow.sklearn.log_model(model, name="model", signature=signature)
    folder = Path(mlflow.artifacts.download_artifacts(info.model_uri)).resolve()
    if options.settings:
        write_settings(options.settings, folder)
    print(folder)


def write_settings(path: Path, folder: Path) -> None:
    settings = {
        "name": "wine-classifier",
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": str(folder)},
    }
    path.write_text(json.dumps(settings, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train an ElasticNet on the red wine quality data."
    )
    parser.add_argument("alpha", type=float, nargs="?", default=0.5)
    parser.add_argument("l1_ratio", type=float, nargs="?", default=0.5)
    parser.add_argument("--alpha", dest="alpha", type=float, default=argparse.SUPPRESS)
    parser.add_argument("--l1-ratio", dest="l1_ratio", type=float, default=argparse.SUPPRESS)
    parser.add_argument(
        "--data", default=DATA, help="CSV file with ';' between columns (default: the UCI address)"
    )
    parser.add_argument("--settings", type=Path, help="also write a model-settings.json here")
    return parser.parse_args()


if __name__ == "__main__":
    main()

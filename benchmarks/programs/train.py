"""Train the wine model in the environment that will serve it: python train.py TABLE FOLDER

TABLE is a CSV file with ';' between columns; the last one is the target. FOLDER gets the MLflow
model, and FOLDER.json beside it the coefficients, with which every response is checked.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import mlflow.sklearn
import pandas as pd
import sklearn
from mlflow.models import infer_signature
from sklearn.linear_model import ElasticNet


def main(table: str, folder: Path) -> None:
    data = pd.read_csv(table, sep=";").astype("float64")
    features, target = data.iloc[:, :-1], data.iloc[:, -1]
    model = ElasticNet(alpha=0.5, l1_ratio=0.5, random_state=40).fit(features, target)
    signature = infer_signature(features, model.predict(features))
    needs = [f"scikit-learn=={sklearn.__version__}"]
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=needs)
    linear = {"coefficients": model.coef_.tolist(), "intercept": float(model.intercept_)}
    folder.with_suffix(".json").write_text(json.dumps(linear) + "\n")


if __name__ == "__main__":
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    main(sys.argv[1], Path(sys.argv[2]))

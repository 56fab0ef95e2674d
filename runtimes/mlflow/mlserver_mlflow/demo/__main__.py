"""`python -m mlserver_mlflow.demo FOLDER`: train, register `models:/wine@champion` in FOLDER.

A process of its own, because the server's process imports neither MLflow nor scikit-learn. MLflow's
store is the SQLite file that `MLFLOW_TRACKING_URI` names. FOLDER gets `wines.csv` as well, rows for
`mlserver infer`.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

NAME, ALIAS = "wine", "champion"
COLUMNS = ["alcohol", "malic_acid", "ash"]
ROWS_FILE, ROWS = "wines.csv", 20


def train(folder: Path) -> Path:
    """Fit a classifier of three columns; return the folder of the saved MLflow model."""
    import mlflow.sklearn
    import sklearn
    from mlflow.models import infer_signature
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data, target = load_wine(return_X_y=True, as_frame=True)
    features: Any = data[COLUMNS]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, target)
    features.head(ROWS).to_csv(folder / ROWS_FILE, index=False)
    path = folder / "model"
    mlflow.sklearn.save_model(
        model,
        path,
        signature=infer_signature(features, model.predict(features)),
        input_example=features.head(1),
        # Named, so that MLflow does not load the model once more to find them out.
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
    )
    return path


def register(path: Path) -> None:
    """Register a saved model as version 1, with the alias."""
    import mlflow

    experiment = mlflow.create_experiment(NAME, (path.parent / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_artifacts(str(path), "model")
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    run_id = run.info.run_id
    version = client.create_model_version(NAME, f"runs:/{run_id}/model", run_id)
    client.set_registered_model_alias(NAME, ALIAS, version.version)


def main(folder: Path) -> None:
    """Train and register; print a line for each step."""
    warnings.simplefilter("ignore")  # advice for the author of a model
    logging.disable(logging.WARNING)
    print("Training a classifier on scikit-learn's wine data ...", flush=True)  # noqa: T201
    path = train(folder)
    text = f"Registering it as models:/{NAME}@{ALIAS} in a temporary MLflow store ..."
    print(text, flush=True)  # noqa: T201
    register(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Train a classifier of iris flowers, and save it as an MLflow model in the folder `iris`.

No download: the data comes with scikit-learn.
"""

import mlflow
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

flowers, kinds = load_iris(return_X_y=True, as_frame=True)
model = LogisticRegression(max_iter=1000).fit(flowers, kinds)
mlflow.sklearn.save_model(
    model,
    "iris",
    signature=infer_signature(flowers, kinds),
    input_example=flowers.head(2),
)

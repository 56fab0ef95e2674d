"""Model from code: MLflow runs this file to load the model, without a pickle."""

import mlflow
import numpy as np
from mlflow.models import set_model


class Matcher(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Compares queries with documents: two named tensors in, two named tensors out."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        query, document = model_input["query"], model_input["document"]
        lengths = np.linalg.norm(query, axis=1) * np.linalg.norm(document, axis=1)
        similarity = np.einsum("ij,ij->i", query, document) / lengths
        return {"similarity": similarity, "match": similarity > params["threshold"]}


set_model(Matcher())

"""The models as BentoML services: typed arguments; one worker, the default.

With `threads`, requests overlap where the model waits; the default is 1.
"""

import os
from typing import Any

import bentoml
import mlflow.pyfunc
import numpy as np
import pandas as pd
from work import WAITING_THREADS, WORK, as_list

MODEL = os.environ["BENCH_MODEL"]


@bentoml.service
class Wine:
    def __init__(self) -> None:
        self.model = mlflow.pyfunc.load_model(os.environ["BENCH_WINE"])

    @bentoml.api
    def predict(self, columns: list[str], data: list[list[float]]) -> dict[str, Any]:
        result = self.model.predict(pd.DataFrame(data, columns=columns))
        return {"predictions": np.asarray(result).ravel().tolist()}


@bentoml.service(threads=WAITING_THREADS if MODEL == "wait" else 1)
class Work:
    @bentoml.api
    def predict(self, data: list[Any]) -> dict[str, Any]:
        return {"predictions": as_list(WORK[MODEL](data))}


service = Wine if MODEL == "wine" else Work

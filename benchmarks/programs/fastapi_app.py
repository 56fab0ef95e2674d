"""FastAPI program as in a tutorial: a pydantic body, a plain `def`, the model's predict."""

from __future__ import annotations

import os
from typing import Any

import mlflow.pyfunc
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel
from work import WORK, as_list

MODEL = os.environ["BENCH_MODEL"]

app = FastAPI()
wine = mlflow.pyfunc.load_model(os.environ["BENCH_WINE"]) if MODEL == "wine" else None


class Frame(BaseModel):
    columns: list[str]
    data: list[list[float]]


class Rows(BaseModel):
    data: list[list[float]] | list[float] | list[str]


@app.post("/predict/frame")
def predict_frame(frame: Frame) -> dict[str, Any]:
    assert wine is not None
    return {"predictions": wine.predict(pd.DataFrame(frame.data, columns=frame.columns)).tolist()}


@app.post("/predict")
def predict(rows: Rows) -> dict[str, Any]:
    return {"predictions": as_list(WORK[MODEL](rows.data))}

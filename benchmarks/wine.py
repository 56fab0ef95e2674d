"""Training table and request rows of the wine model, real data or synthetic data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Column -> mean, standard deviation and decimals of the red wine quality data (UCI); target last.
SHAPE = {
    "fixed acidity": (8.32, 1.74, 1),
    "volatile acidity": (0.53, 0.18, 2),
    "citric acid": (0.27, 0.19, 2),
    "residual sugar": (2.54, 1.41, 1),
    "chlorides": (0.087, 0.047, 3),
    "free sulfur dioxide": (15.87, 10.46, 0),
    "total sulfur dioxide": (46.47, 32.9, 0),
    "density": (0.9967, 0.0019, 4),
    "pH": (3.31, 0.15, 2),
    "sulphates": (0.66, 0.17, 2),
    "alcohol": (10.42, 1.07, 1),
    "quality": (5.64, 0.81, 0),
}
COLUMNS = list(SHAPE)[:-1]
ROWS = 1599
SEED = 20
ONE_ROW: list[float] = [7.4, 0.7, 0, 1.9, 0.076, 11, 34, 0.9978, 3.51, 0.56, 9.4]


def write_table(path: Path) -> str:
    """Write the training table, the file WINE_DATA or synthetic data; return its description."""
    source = os.environ.get("WINE_DATA")
    if source:
        path.write_bytes(Path(source).read_bytes())
        return "the red wine quality data (UCI)"
    draw = np.random.default_rng(SEED)
    columns = {
        name: np.abs(draw.normal(mean, spread, ROWS)).round(decimals)
        for name, (mean, spread, decimals) in SHAPE.items()
    }
    pd.DataFrame(columns).to_csv(path, sep=";", index=False)
    return f"a table drawn with seed {SEED} in the shape of the red wine quality data"


def rows(count: int) -> list[list[float]]:
    """Return the rows of a request: the quick start's row, or `count` synthetic rows."""
    if count == 1:
        return [ONE_ROW]
    draw = np.random.default_rng(SEED + count)
    columns = [
        np.abs(draw.normal(mean, spread, count)).round(decimals)
        for mean, spread, decimals in list(SHAPE.values())[:-1]
    ]
    table: list[list[float]] = np.stack(columns, axis=1).tolist()
    return table


def expected(linear: dict[str, Any], count: int) -> list[float]:
    """The model's answers for `rows(count)`, from its coefficients."""
    answers: list[float] = (
        np.array(rows(count)) @ np.array(linear["coefficients"]) + linear["intercept"]
    ).tolist()
    return answers

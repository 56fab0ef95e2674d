"""Oracle of drift: Evidently's PSI of seeded columns, in `tests/support/evidently_psi.json`.

Run with an environment that has Evidently and not this project:

    python -m venv oracle && oracle/bin/pip install evidently==0.7.23 "pandas<3"
    oracle/bin/python tests/support/evidently_psi.py > tests/support/evidently_psi.json

Evidently bins numbers with equal widths, `mlserver drift` with quantiles of the reference. So there
are two values for a number: Evidently's own, for the conclusion, and that of the bins' numbers as
categories, for the value.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pandas as pd

BINS = 10
COUNTRIES = ["PT", "ES", "FR", "IT"]


def draw_columns() -> dict[str, dict[str, list[Any]]]:
    """Columns by name, each with the values of the reference and of the log."""
    random = np.random.default_rng(16)

    def normal(mean: float, spread: float, count: int) -> list[float]:
        values: list[float] = random.normal(mean, spread, count).round(3).tolist()
        return values

    def choose(shares: list[float], count: int, names: list[Any]) -> list[Any]:
        return [names[index] for index in random.choice(len(names), count, p=shares)]

    return {
        "same number": {"reference": normal(0, 1, 600), "logged": normal(0, 1, 400)},
        "shifted number": {"reference": normal(0, 1, 600), "logged": normal(1, 1, 400)},
        "wider number": {"reference": normal(0, 1, 600), "logged": normal(0, 2, 400)},
        "same category": {
            "reference": choose([0.4, 0.3, 0.2, 0.1], 600, COUNTRIES),
            "logged": choose([0.4, 0.3, 0.2, 0.1], 400, COUNTRIES),
        },
        "shifted category": {
            "reference": choose([0.4, 0.3, 0.2, 0.1], 600, COUNTRIES),
            "logged": choose([0.1, 0.2, 0.3, 0.4], 400, COUNTRIES),
        },
        "new category": {
            "reference": choose([0.5, 0.5], 600, COUNTRIES[:2]),
            "logged": choose([0.4, 0.4, 0.2], 400, COUNTRIES[:3]),
        },
        "few numbers": {
            "reference": choose([0.6, 0.3, 0.1], 600, [3, 5, 6]),
            "logged": choose([0.2, 0.3, 0.5], 400, [3, 5, 6]),
        },
    }


def is_number(name: str) -> bool:
    return name.endswith(" number")


def bin_values(reference: list[float], values: list[float]) -> list[str]:
    """The names of the reference's quantile bins that values are in."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    return [f"bin {index}" for index in np.searchsorted(edges, values, side="left")]


def evidently_psi(reference: list[Any], logged: list[Any], as_number: bool) -> float:
    """Evidently's value for one column."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    kind = "numerical_columns" if as_number else "categorical_columns"
    definition = DataDefinition(**{kind: ["x"]})
    tables = [
        Dataset.from_pandas(pd.DataFrame({"x": values}), data_definition=definition)
        for values in (logged, reference)
    ]
    snapshot = Report([ValueDrift(column="x", method="psi")]).run(*tables)
    (metric,) = snapshot.dict()["metrics"]
    return float(metric["value"])


def compute() -> dict[str, dict[str, float]]:
    """PSI of each column: "own" = of its values, "binned" = of the numbers of quantile bins."""
    results: dict[str, dict[str, float]] = {}
    for name, column in draw_columns().items():
        reference, logged = column["reference"], column["logged"]
        results[name] = {"own": evidently_psi(reference, logged, is_number(name))}
        if is_number(name):
            binned = bin_values(reference, reference), bin_values(reference, logged)
            results[name]["binned"] = evidently_psi(*binned, False)
    return results


if __name__ == "__main__":
    document = {"columns": draw_columns(), "psi": compute()}
    json.dump(document, sys.stdout)

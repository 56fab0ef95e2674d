"""An MLflow model without a signature that returns the types of its values, or a result by its
name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    from mlflow.pyfunc import PythonModel


def _cycle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def _polars() -> Any:
    polars = import_module("polars")  # an optional package, for mypy too
    return polars.DataFrame(
        {"n": [1, None], "t": ["a", None], "f": [0.5, None], "b": [True, False]}
    )


RESULTS: dict[str, Callable[[], Any]] = {
    "rounded": lambda: [2**53 + 1, 0.5],
    "signs": lambda: [2**63, -1],
    "booleans": lambda: [True, 2],
    "big": lambda: [2**70],
    "masked": lambda: np.ma.array([1, 2], mask=[False, True]),
    "none": lambda: None,
    "cycle": _cycle,
    "polars": _polars,
}

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow advises type hints

    class Typed(PythonModel):  # type: ignore[misc]
        """Returns the types of its values, or the result that the first value names."""

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            values = list(np.asarray(model_input).ravel())
            result = RESULTS.get(values[0]) if isinstance(values[0], str) else None
            return [type(value).__name__ for value in values] if result is None else result()


mlflow.models.set_model(Typed())


def save(path: Path) -> Path:
    """Save the model. Returns the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(str(path), python_model=__file__, pip_requirements=["mlflow"])
    return path

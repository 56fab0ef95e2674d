"""MLflow's pyfunc, imported without the warnings that MLflow gives about classes of its own."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
    from mlflow.pyfunc import PyFuncModel, load_model, scoring_server

__all__ = ["PyFuncModel", "load_model", "scoring_server"]

"""Categorical columns for LightGBM: text or numbers -> the categories that the model was trained with.

A model that was trained on pandas categories takes no other columns, and a signature has no type for them: with MLflow's own
predict and server such a model refuses every request. The model knows its categories (`pandas_categorical`), so V2 requests have
them put in, after MLflow's checks. A value that is none of them is a missing value, as in LightGBM itself.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.types import DataType
from mlflow.types.schema import Schema

from ..loading.pyfunc import PyFuncModel, raw_model, with_implementation

FLAVOR = "mlflow.lightgbm"


def with_categories(model: PyFuncModel) -> PyFuncModel:
    """The model, taking plain columns where it was trained with categories; the model itself if it was not."""
    if model.loader_module != FLAVOR:
        return model
    booster = getattr(raw_model(model), "booster_", raw_model(model))
    categories = getattr(booster, "pandas_categorical", None)
    schema = model.metadata.get_input_schema()
    if not categories or schema is None or schema.is_tensor_spec():
        return model
    positions = _categorical_positions(booster, schema, len(categories))
    if positions is None:
        return model
    return with_implementation(
        model, _Wrapper(model._model_impl, dict(zip(positions, categories, strict=True)))
    )


def _categorical_positions(booster: Any, schema: Schema, count: int) -> list[int] | None:
    """The positions of the columns that had categories; None if that cannot be told.

    The model says which features it splits by category. A column of one value is no feature to it, and integers may have
    been declared categorical without being pandas categories; then the columns of text are taken, if their number is right.
    """
    infos = booster.dump_model(num_iteration=1).get("feature_infos", {})
    names = booster.feature_name()
    if len(names) != len(schema.inputs):
        return None
    by_model = [
        position for position, name in enumerate(names) if infos.get(name, {}).get("values")
    ]
    by_type = [
        position for position, spec in enumerate(schema.inputs) if spec.type == DataType.string
    ]
    return next((found for found in (by_model, by_type) if len(found) == count), None)


class _Wrapper:
    """MLflow's wrapper of a LightGBM model, behind a conversion of the data."""

    def __init__(self, wrapper: Any, categories: dict[int, list[Any]]) -> None:
        self._wrapper = wrapper
        self._categories = categories

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        return self._wrapper.predict(self.convert(data), params)

    def get_raw_model(self) -> Any:
        return _Estimator(self._wrapper.get_raw_model(), self)

    def convert(self, data: Any) -> Any:
        """A frame whose categorical columns hold categories. Other data, such as arrays, stay as they are."""
        if not isinstance(data, pd.DataFrame):
            return data
        converted = data.copy(deep=False)
        for position, categories in self._categories.items():
            name = data.columns[position]
            converted[name] = _as_categories(data[name], categories)
        return converted


class _Estimator:
    """A LightGBM model whose methods convert their data first."""

    def __init__(self, estimator: Any, wrapper: _Wrapper) -> None:
        self._estimator = estimator
        self._wrapper = wrapper

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._estimator, name)
        if name not in ("predict", "predict_proba"):
            return found
        return lambda data, *more, **options: found(self._wrapper.convert(data), *more, **options)


def _as_categories(column: Any, categories: list[Any]) -> Any:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column
    known = pd.Index(categories, dtype=object)
    codes = known.get_indexer(pd.Index(column, dtype=object))
    return pd.Series(
        pd.Categorical.from_codes(codes, categories=pd.Index(categories)), index=column.index
    )

"""Categorical columns of LightGBM models: text or numbers -> the categories of the training data.

A model that was trained on pandas categories accepts no other columns, and a signature has no type
for them: with MLflow's own server such a model refuses every request. The model has its categories
(`pandas_categorical`), so columns of V2 requests are converted to them after MLflow's checks. An
unknown value becomes a missing value, as in LightGBM itself.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.types import DataType
from mlflow.types.schema import Schema

from ..loading.pyfunc import PyFuncModel, raw_model, with_implementation

FLAVOR = "mlflow.lightgbm"


def with_categories(model: PyFuncModel) -> PyFuncModel:
    """Return a model that converts plain columns to categories; the same one if it has none."""
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
    by_position = dict(zip(positions, categories, strict=True))
    return with_implementation(model, _CategoricalWrapper(model._model_impl, by_position))


def _categorical_positions(booster: Any, schema: Schema, count: int) -> list[int] | None:
    """Return the positions of the `count` categorical columns; None if they are ambiguous.

    They are the features that the model splits by category. These may be other columns: a constant
    column is not a feature, and integers may be declared categorical without pandas categories.
    Then the text columns of the signature count, if there are as many.
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
    candidates = (by_model, by_type)
    return next((positions for positions in candidates if len(positions) == count), None)


class _CategoricalWrapper:
    """MLflow's wrapper of a LightGBM model, with a conversion of the data before predict."""

    def __init__(self, wrapper: Any, categories: dict[int, list[Any]]) -> None:
        self._wrapper = wrapper
        self._categories = categories

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        return self._wrapper.predict(self.convert(data), params)

    def get_raw_model(self) -> Any:
        return _CategoricalEstimator(self._wrapper.get_raw_model(), self)

    def convert(self, data: Any) -> Any:
        """Return a frame with categories in the categorical columns; other data unchanged."""
        if not isinstance(data, pd.DataFrame):
            return data
        converted = data.copy(deep=False)
        for position, categories in self._categories.items():
            name = data.columns[position]
            converted[name] = _to_categories(data[name], categories)
        return converted


class _CategoricalEstimator:
    """A LightGBM model whose methods convert their data first."""

    def __init__(self, estimator: Any, wrapper: _CategoricalWrapper) -> None:
        self._estimator = estimator
        self._wrapper = wrapper

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._estimator, name)
        if name not in ("predict", "predict_proba"):
            return attribute
        convert = self._wrapper.convert
        return lambda data, *args, **kwargs: attribute(convert(data), *args, **kwargs)


def _to_categories(column: Any, categories: list[Any]) -> Any:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column
    index = pd.Index(categories, dtype=object)
    codes = index.get_indexer(pd.Index(column, dtype=object))
    values = pd.Categorical.from_codes(codes, categories=pd.Index(categories))
    return pd.Series(values, index=column.index)

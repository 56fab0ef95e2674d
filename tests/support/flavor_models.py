"""Small MLflow models, one per kind of signature, flavor and result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import mlflow.sklearn
import mlflow.types.schema
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from support.python_models import (
    AnyType,
    Blobs,
    Chats,
    Configured,
    Double,
    Echo,
    Fails,
    Greets,
    Numbers,
    Repeats,
    Responds,
    Returns,
    Scale,
    Shouts,
    Spells,
    Whens,
)

RNG = np.random.default_rng(0)
NAMES = ["a", "b", "c"]
FRAME = pd.DataFrame(RNG.normal(size=(60, 3)), columns=NAMES)
TARGET = FRAME.to_numpy() @ [1.0, -2.0, 0.5] + 3
LABELS = np.where(TARGET > 3, "yes", "no")
MIXED = pd.DataFrame(
    {
        "d": RNG.normal(size=60),
        "f": RNG.normal(size=60).astype("float32"),
        "l": RNG.integers(0, 9, 60),
        "i": RNG.integers(0, 9, 60).astype("int32"),
        "b": RNG.integers(0, 2, 60).astype(bool),
    }
)
WORDS = pd.DataFrame({"word": ["x", "y", "z"] * 20, "d": RNG.normal(size=60)})
SCALARS = [
    ("boolean", "bo"),
    ("integer", "i"),
    ("long", "l"),
    ("float", "f"),
    ("double", "d"),
    ("string", "s"),
    ("binary", "bi"),
    ("datetime", "dt"),
]
POINT = Object([Property("x", DataType.long), Property("y", DataType.string, required=False)])


def columns(*specs: tuple[Any, ...]) -> Schema:
    """(type, name[, required]) ..."""
    return Schema(
        [ColSpec(kind, *rest[:1], *([] if len(rest) < 2 else [rest[1]])) for kind, *rest in specs]
    )


def echo(inputs: Schema | None, params: ParamSchema | None = None) -> Callable[[Path], None]:
    signature = (
        ModelSignature(inputs=inputs, params=params)
        if inputs is not None or params is not None
        else None
    )
    return python_model(Echo(), signature)


def echo_column(kind: str, name: str) -> Callable[[Path], None]:
    return echo(columns((kind, name)))


def python_model(
    model: Any, signature: ModelSignature | None = None, **more: Any
) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        mlflow.pyfunc.save_model(
            path, python_model=model, signature=signature, pip_requirements=["mlflow"], **more
        )

    return save


def estimator(model: Any, signature: ModelSignature | None, **more: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        mlflow.sklearn.save_model(
            model,
            path,
            signature=signature,
            pip_requirements=["mlflow"],
            serialization_format="cloudpickle",
            **more,
        )

    return save


PARAMS = ParamSchema(
    [
        ParamSpec("temp", DataType.double, 0.5),
        ParamSpec("n", DataType.long, 1),
        ParamSpec("stop", DataType.string, ["x"], shape=(-1,)),
        ParamSpec("flag", DataType.boolean, False),
    ]
)
ONE_HOT = Pipeline(
    [
        (
            "columns",
            ColumnTransformer(
                [("one", OneHotEncoder(handle_unknown="ignore"), ["word"])], remainder="passthrough"
            ),
        ),
        ("linear", LinearRegression()),
    ]
)

# Model -> the first release of MLflow that can save it.
TYPE_HINTS = (2, 20)
SINCE: dict[str, tuple[int, int]] = {
    **dict.fromkeys(
        ("people", "shouts", "blobs", "whens", "sums", "chats", "echo_any"), TYPE_HINTS
    ),
    **dict.fromkeys(("responds", "repeats"), (3, 0)),
}

MODELS: dict[str, Callable[[], Callable[[Path], None]]] = {
    "linear": lambda: estimator(
        LinearRegression().fit(FRAME, TARGET), infer_signature(FRAME, TARGET)
    ),
    "net": lambda: estimator(
        ElasticNet(alpha=0.1).fit(FRAME, TARGET),
        infer_signature(FRAME, pd.DataFrame({"quality": TARGET})),
    ),
    "wide": lambda: estimator(
        LinearRegression().fit(FRAME, np.column_stack([TARGET, -TARGET])),
        infer_signature(FRAME, np.column_stack([TARGET, -TARGET])),
    ),
    "labels": lambda: estimator(
        LogisticRegression().fit(FRAME, LABELS), infer_signature(FRAME, LABELS)
    ),
    "proba": lambda: estimator(
        LogisticRegression().fit(FRAME, LABELS),
        infer_signature(FRAME),
        pyfunc_predict_fn="predict_proba",
    ),
    "scaled": lambda: estimator(
        make_pipeline(StandardScaler(), LinearRegression()).fit(FRAME, TARGET),
        infer_signature(FRAME, TARGET),
    ),
    "mixed": lambda: estimator(
        DecisionTreeRegressor(max_depth=4).fit(MIXED, TARGET), infer_signature(MIXED, TARGET)
    ),
    "one": lambda: estimator(
        LinearRegression().fit(FRAME[["a"]], TARGET), infer_signature(FRAME[["a"]], TARGET)
    ),
    "words": lambda: estimator(ONE_HOT.fit(WORDS, TARGET), infer_signature(WORDS, TARGET)),
    "unnamed_tensor": lambda: estimator(
        LinearRegression().fit(FRAME.to_numpy(), TARGET), infer_signature(FRAME.to_numpy(), TARGET)
    ),
    "no_signature": lambda: estimator(LinearRegression().fit(FRAME, TARGET), None),
    "no_outputs": lambda: estimator(LinearRegression().fit(FRAME, TARGET), infer_signature(FRAME)),
    "tensors": lambda: python_model(
        Double(),
        ModelSignature(
            inputs=Schema(
                [
                    TensorSpec(np.dtype("float32"), (-1, 2), "x"),
                    TensorSpec(np.dtype("int64"), (-1, 3), "y"),
                ]
            )
        ),
    ),
    "scale": lambda: python_model(
        Scale(), ModelSignature(inputs=Schema([TensorSpec(np.dtype("float32"), (-1, 2))]))
    ),
    "scale_named": lambda: python_model(
        Scale(), ModelSignature(inputs=Schema([TensorSpec(np.dtype("float32"), (-1, 2), "x")]))
    ),
    "echo_tensors": lambda: echo(
        Schema(
            [
                TensorSpec(np.dtype("float32"), (-1, 2), "x"),
                TensorSpec(np.dtype("int64"), (-1, 3), "y"),
            ]
        )
    ),
    "echo_tensor": lambda: echo(Schema([TensorSpec(np.dtype("float64"), (-1, 3))])),
    "echo_times": lambda: echo(Schema([TensorSpec(np.dtype("datetime64[s]"), (-1,))])),
    "echo_integers": lambda: echo(columns((DataType.double, 0), (DataType.double, 2))),
    "echo_mixed_names": lambda: echo(columns((DataType.double, "0"), (DataType.double, 1))),
    "echo_list": lambda: echo(infer_signature(["a", "b"]).inputs),
    "echo_text_tensor": lambda: echo(Schema([TensorSpec(np.dtype("str"), (-1,))])),
    **{f"echo_{kind}": partial(echo_column, kind, name) for kind, name in SCALARS},
    "echo_all": lambda: echo(columns(*((kind, name, kind != "double") for kind, name in SCALARS))),
    "echo_numbers": lambda: echo(columns(("double", "d"), ("long", "l"), ("boolean", "bo"))),
    "echo_unnamed": lambda: echo(Schema([ColSpec("double"), ColSpec("long")])),
    "echo_none": lambda: echo(None),
    "echo_params": lambda: echo(columns(("double", "d")), PARAMS),
    "echo_params_only": lambda: echo(None, PARAMS),
    "echo_array": lambda: echo(columns((Array(DataType.double), "arr"))),
    "echo_object": lambda: echo(columns((POINT, "obj"))),
    "echo_map": lambda: echo(columns((Map(DataType.double), "mp"))),
    "echo_any": lambda: echo(columns((AnyType(), "any"), (DataType.double, "d", False))),
    "people": lambda: python_model(Greets()),
    "shouts": lambda: python_model(Shouts()),
    "blobs": lambda: python_model(Blobs()),
    "whens": lambda: python_model(Whens()),
    "sums": lambda: python_model(Numbers()),
    "spells": lambda: python_model(Spells(), ModelSignature(inputs=columns(("string", "text")))),
    "chats": lambda: python_model(Chats()),
    "responds": lambda: python_model(Responds()),
    "repeats": lambda: python_model(Repeats()),
    "configured": lambda: python_model(
        Configured(),
        ModelSignature(inputs=columns(("double", "d"))),
        model_config={"k": 1, "z": "d"},
    ),
    "fails": lambda: python_model(Fails(), ModelSignature(inputs=columns(("double", "x")))),
    "returns": lambda: python_model(Returns(), ModelSignature(inputs=columns(("string", "what")))),
}

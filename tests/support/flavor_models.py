"""Small MLflow models, one per kind of signature, flavor and result."""

from __future__ import annotations

import datetime as dt
import json
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
import pydantic
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

# Older releases of MLflow lack these names; `SINCE` lists the models that need them.
AnyType: Any = getattr(mlflow.types.schema, "AnyType", None)
ResponsesAgent: Any = getattr(mlflow.pyfunc, "ResponsesAgent", PythonModel)

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


def describe(value: Any) -> Any:
    """A model's input as JSON values: types, dtypes and contents."""
    if isinstance(value, pd.DataFrame):
        columns = {str(name): describe(value[name]) for name in value.columns}
        return {
            "frame": columns,
            "order": [str(name) for name in value.columns],
            "index": str(list(value.index)),
        }
    if isinstance(value, pd.Series):
        return [str(value.dtype), [describe(item) for item in value.tolist()]]
    if isinstance(value, np.ndarray):
        return [
            f"array {value.dtype} {value.shape}",
            [describe(item) for item in value.ravel().tolist()],
        ]
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    return f"{type(value).__name__} {value!r}"


class Echo(PythonModel):  # type: ignore[misc]
    """Returns a description of its data and params."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return [json.dumps({"data": describe(model_input), "params": describe(params)})]


class Double(PythonModel):  # type: ignore[misc]
    """Named tensors in, named tensors out."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return {"twice": model_input["x"] * 2, "sum": model_input["y"].sum(axis=1)}


class Person(pydantic.BaseModel):
    """A row of a type-hinted model."""

    name: str
    age: int = 3


class Greets(PythonModel):  # type: ignore[misc]
    """Type-hinted: pydantic rows."""

    def predict(self, model_input: list[Person], params=None) -> Any:  # type: ignore[no-untyped-def]
        return [f"{person.name} {person.age}" for person in model_input]


class Shouts(PythonModel):  # type: ignore[misc]
    """Type-hinted: text."""

    def predict(self, model_input: list[str], params=None) -> Any:  # type: ignore[no-untyped-def]
        return [text.upper() for text in model_input]


class Numbers(PythonModel):  # type: ignore[misc]
    """Type-hinted: dictionaries."""

    def predict(self, model_input: list[dict[str, int]], params=None) -> Any:  # type: ignore[no-untyped-def]
        return [sum(row.values()) for row in model_input]


class Blobs(PythonModel):  # type: ignore[misc]
    """Type-hinted: bytes."""

    def predict(self, model_input: list[bytes], params=None) -> Any:  # type: ignore[no-untyped-def]
        return [len(item) for item in model_input]


class Whens(PythonModel):  # type: ignore[misc]
    """Type-hinted: datetimes."""

    def predict(self, model_input: list[dt.datetime], params=None) -> Any:  # type: ignore[no-untyped-def]
        return [f"{type(item).__name__} {item.isoformat()}" for item in model_input]


class Spells(PythonModel):  # type: ignore[misc]
    """Streams the letters of its text; raises for digits."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return list(model_input["text"])

    def predict_stream(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        for letter in model_input["text"]:
            if letter.isdigit():
                raise ValueError(f"{letter} is no letter")
            yield letter


class Chats(mlflow.pyfunc.ChatModel):  # type: ignore[misc]
    """Repeats the last message."""

    def predict(self, context, messages, params):  # type: ignore[no-untyped-def]
        from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage

        said = ChatMessage(role="assistant", content=f"{messages[-1].content} {params.temperature}")
        return ChatCompletionResponse(
            choices=[ChatChoice(message=said)], created=1, id="x", model="m"
        )


class Responds(ResponsesAgent):  # type: ignore[misc]
    """Repeats the last input."""

    def predict(self, request):  # type: ignore[no-untyped-def]
        from mlflow.types.responses import ResponsesAgentResponse

        text = self.create_text_output_item(text=str(request.input[-1].content), id="1")
        return ResponsesAgentResponse(output=[text])


class Repeats(Responds):
    """Streams the words of the last input."""

    def predict_stream(self, request):  # type: ignore[no-untyped-def]
        from mlflow.types.responses import ResponsesAgentStreamEvent

        for word in str(request.input[-1].content).split():
            yield ResponsesAgentStreamEvent(**self.create_text_delta(delta=word, item_id="1"))


class Configured(PythonModel):  # type: ignore[misc]
    """Returns its model config."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return [json.dumps(context.model_config)]


class Fails(PythonModel):  # type: ignore[misc]
    """Raises the exception that the value of its column names."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import REQUEST_LIMIT_EXCEEDED, RESOURCE_DOES_NOT_EXIST

        code = float(model_input["x"].iloc[0])
        if code == 1:
            raise ValueError("one")
        if code == 2:
            raise MlflowException("two", error_code=REQUEST_LIMIT_EXCEEDED)
        if code == 3:
            raise MlflowException("three", error_code=RESOURCE_DOES_NOT_EXIST)
        if code == 4:
            raise MlflowException("four")
        if code == 5:
            return {1, 2}
        return model_input["x"].to_numpy()


def _cycle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def _nested(depth: int) -> list[Any]:
    items: list[Any] = []
    for _ in range(depth):
        items = [items]
    return items


RESULTS: dict[str, Callable[[], Any]] = {
    "series": lambda: pd.Series([1.5, 2.5], name="s"),
    "frame": lambda: pd.DataFrame({"n": [1, 2], "t": ["a", "b"], "o": [[1], {"k": 2}]}),
    "nullable": lambda: pd.DataFrame(
        {"i": pd.array([1, None], dtype="Int64"), "s": pd.array(["a", None], dtype="string")}
    ),
    "full_nullable": lambda: pd.DataFrame(
        {"i": pd.array([1, 2], dtype="Int64"), "b": pd.array([True, False], dtype="boolean")}
    ),
    "category": lambda: pd.DataFrame(
        {"c": pd.Categorical(["u", "v"]), "n": pd.Categorical([1, 2])}
    ),
    "dates": lambda: pd.DataFrame(
        {
            "t": pd.to_datetime(pd.Series(["2020-01-02", None])),
            "d": [dt.date(2020, 1, 2), dt.date(2021, 1, 2)],
        }
    ),
    "labels": lambda: pd.DataFrame([[1, 2.5], [3, 4.5]]),
    "bytes_frame": lambda: pd.DataFrame({"b": [b"hi", b"\xff"]}),
    "numbers": lambda: [1, 2, 3],
    "floats": lambda: [1.5, float("nan")],
    "mixed": lambda: [1, "a", None, [2]],
    "texts": lambda: ["foo"],
    "no_texts": lambda: [],
    "dicts": lambda: [{"a": np.int64(1)}, {"a": 2}],
    "arrays": lambda: [np.array([1.0, 2.0]), np.array([3.0, 4.0])],
    "tuple": lambda: (1.5, 2.5),
    "int": lambda: 7,
    "float": lambda: 1.25,
    "bool": lambda: True,
    "str": lambda: "hello",
    "bytes": lambda: b"\x00\xff",
    "datetime": lambda: dt.datetime(2020, 1, 2, 3, 4, 5),
    "dict_arrays": lambda: {"p": np.array([1.0, 2.0]), "q": np.array([[1, 2]])},
    "dict_lists": lambda: {"p": [1, 2], "q": ["a", "b"], "r": 1.5, "s": None, "t": {"k": [1]}},
    "pydantic": lambda: Person(name="Ann"),
    "bytes_array": lambda: np.array([b"a", b"bc"]),
    "text_array": lambda: np.array(["a", "bc"]),
    "object_array": lambda: np.array(["a", 1, None], dtype=object),
    "date_array": lambda: np.array(["2020-01-02", "2021-01-02"], dtype="datetime64[ns]"),
    "zero_d": lambda: np.array(2.5),
    "no_rows": lambda: np.empty((0, 2)),
    "half": lambda: np.array([1.5], dtype="float16"),
    "int_keys": lambda: {1: [1], 2: [2]},
    "none": lambda: None,
    "big": lambda: [2**70],
    "rounded": lambda: [2**53 + 1, 0.5],
    "signs": lambda: [2**63, -1],
    "unsigned": lambda: [2**63, 1],
    "bool_int": lambda: [True, 2],
    "bool_float": lambda: [True, 0.5],
    "int_float": lambda: [1, 0.5],
    "objects_rounded": lambda: np.array([2**53 + 1, 0.5], dtype=object),
    "object_frame": lambda: pd.DataFrame({"x": pd.Series([2**53 + 1, 0.5], dtype=object)}),
    "arrays_mixed": lambda: [np.array([2**53 + 1]), np.array([0.5])],
    "masked_ints": lambda: np.ma.array([1, 2], mask=[False, True]),
    "masked_floats": lambda: np.ma.array([1.5, 2.5], mask=[False, True]),
    "masked_list": lambda: [np.ma.array([1, 2], mask=[False, True])],
    "unmasked": lambda: np.ma.array([1, 2], mask=[False, False]),
    "infinite_object": lambda: [{"a": float("inf")}, [float("-inf"), float("nan")]],
    "arrow_narrow": lambda: pd.DataFrame({"x": pd.array([1, 2], dtype="int32[pyarrow]")}),
    "scalar_big": lambda: 2**70,
    "cycle": lambda: _cycle(),
    "deep": lambda: _nested(100_000),
    "wide": lambda: np.array([np.longdouble("0.1")]),
    "set": lambda: {1},
    "complex": lambda: np.array([1j]),
    "generator": lambda: (item for item in (1, 2)),
}


class Returns(PythonModel):  # type: ignore[misc]
    """Returns the result that the value of its string column names."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return RESULTS[str(model_input["what"].iloc[0])]()


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

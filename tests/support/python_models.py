"""Python models of MLflow, and the results that they return."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import mlflow
import mlflow.pyfunc
import mlflow.sklearn
import mlflow.types.schema
import numpy as np
import pandas as pd
import pydantic
from mlflow.pyfunc import PythonModel

# Older releases of MLflow lack these names; `SINCE` lists the models that need them.
AnyType: Any = getattr(mlflow.types.schema, "AnyType", None)
ResponsesAgent: Any = getattr(mlflow.pyfunc, "ResponsesAgent", PythonModel)


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


class Scale(PythonModel):  # type: ignore[misc]
    """Writes to its argument."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        pixels = model_input["x"] if isinstance(model_input, dict) else model_input
        pixels /= 255
        return pixels.sum(axis=1)


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

        message = ChatMessage(
            role="assistant", content=f"{messages[-1].content} {params.temperature}"
        )
        return ChatCompletionResponse(
            choices=[ChatChoice(message=message)], created=1, id="x", model="m"
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

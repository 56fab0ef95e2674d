"""More bodies for `/invocations` and their models.

Parquet, CSV of every type, params, tensors, unusual results.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import io
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property

from support.flavor_models import POINT, SCALARS, TYPE_HINTS, columns, echo, python_model
from support.payload_forms import COLUMN, CSV, JSON, PARQUET, Case, case, split
from support.python_models import AnyType


@dataclasses.dataclass
class Pair:
    """A result that is not a plain value."""

    left: int = 1
    right: str = "r"


# Built in one expression, so that two responses share nothing.
RESULTS: dict[str, Callable[[], Any]] = {
    "index": lambda: pd.Index([1, 2]),
    "datetime_index": lambda: pd.date_range("2020-01-01", periods=2),
    "labelled_series": lambda: pd.Series([1, 2], index=["a", "b"]),
    "text_series": lambda: pd.Series(["a", None]),
    "category_series": lambda: pd.Series(["a", "b"], dtype="category"),
    "date_series": lambda: pd.to_datetime(pd.Series(["2020-01-02", None])),
    "zoned_frame": lambda: pd.DataFrame({"t": pd.to_datetime(["2020-01-02T00:00:00+02:00"])}),
    "span_frame": lambda: pd.DataFrame({"t": pd.to_timedelta(["1 day", "2s"])}),
    "period_frame": lambda: pd.DataFrame({"t": pd.period_range("2020-01", periods=2, freq="M")}),
    "indexed_frame": lambda: pd.DataFrame({"n": [1, 2]}, index=["x", "y"]),
    "twice_named": lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "two_levels": lambda: pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])
    ),
    "no_columns": lambda: pd.DataFrame(index=[0, 1]),
    "no_frame_rows": lambda: pd.DataFrame({"a": []}),
    "infinite_frame": lambda: pd.DataFrame({"f": [float("inf"), -float("inf"), float("nan")]}),
    "narrow_frame": lambda: pd.DataFrame(
        {"f": np.array([0.1], "float32"), "i": np.array([1], "int8")}
    ),
    "big_frame": lambda: pd.DataFrame(
        {"i": [2**63 - 1], "u": np.array([2**64 - 1], "uint64"), "o": [2**70]}
    ),
    "sparse_frame": lambda: pd.DataFrame({"s": pd.arrays.SparseArray([0, 0, 1])}),
    "decimal_frame": lambda: pd.DataFrame({"d": [decimal.Decimal("1.10")]}),
    "array_frame": lambda: pd.DataFrame({"a": [np.array([1.0, 2.0]), np.array([3.0])]}),
    "frames": lambda: [pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [2]})],
    "dict_of_frames": lambda: {"a": pd.DataFrame({"x": [1]}), "b": pd.Series([1.5])},
    "masked_ints": lambda: np.ma.array([1, 2], mask=[False, True]),
    "masked_floats": lambda: np.ma.array([1.5, 2.5], mask=[False, True]),
    "rounded_list": lambda: [2**53 + 1, 0.5],
    "signed_list": lambda: [2**63, -1],
    "boolean_list": lambda: [True, 2, 0.5],
    "missing_frame": lambda: pd.DataFrame(
        {"label": ["cat", None], "n": pd.array([1, None], dtype="Int64")}
    ),
    "infinities": lambda: [float("inf"), -float("inf")],
    "inf_array": lambda: np.array([np.inf, -np.inf, np.nan, -0.0, 1e-320, 1e300]),
    "f32_array": lambda: np.array([0.1, 16777217.0, 3.4e38], dtype="float32"),
    "u64_array": lambda: np.array([2**64 - 1, 0], dtype="uint64"),
    "i8_array": lambda: np.array([[-128], [127]], dtype="int8"),
    "bool_array": lambda: np.array([[True], [False]]),
    "deep_array": lambda: np.zeros((2, 1, 2, 1)),
    "no_columns_array": lambda: np.empty((2, 0)),
    "fortran_array": lambda: np.asfortranarray(np.arange(6).reshape(2, 3)),
    "masked_array": lambda: np.ma.masked_array([1, 2, 3], mask=[False, True, False]),
    "record_array": lambda: np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "span_array": lambda: np.array([1, 2], dtype="timedelta64[s]"),
    "not_a_time": lambda: np.array(["NaT", "2020-01-02"], dtype="datetime64[s]"),
    "scalars": lambda: [np.float32(0.1), np.int8(3), np.bool_(True), np.str_("x")],
    "np_float": lambda: np.float64(0.1),
    "np_datetime": lambda: np.datetime64("2020-01-02"),
    "timestamp": lambda: pd.Timestamp("2020-01-02 03:04:05.678901234", tz="UTC"),
    "date": lambda: dt.date(2020, 1, 2),
    "time": lambda: dt.time(3, 4, 5),
    "span": lambda: dt.timedelta(days=1),
    "decimal": lambda: decimal.Decimal("1.5"),
    "uuid": lambda: uuid.UUID(int=1),
    "dataclass": lambda: Pair(),
    "dataclasses": lambda: [Pair(), Pair(2)],
    "bytes_list": lambda: [b"a", b"\xff"],
    "bytearray": lambda: bytearray(b"ab"),
    "big_int": lambda: 2**70,
    "nested": lambda: {"a": {"b": [np.array([1, 2]), {"c": (np.int64(3), None)}]}},
    "tuple_keys": lambda: {(1, 2): 3},
    "float_keys": lambda: {1.5: 2, None: 3, True: 4},
    "empty_dict": lambda: {},
    "empty_array": lambda: np.array([]),
    "strange_text": lambda: ["\x00\u2028é\U0001f600", "\ud800"],
    "na": lambda: [pd.NA],
    "nat": lambda: [pd.NaT],
    "range": lambda: range(3),
    "class": lambda: Pair,
    "predictions": lambda: {"predictions": [1]},
}


class Gives(PythonModel):  # type: ignore[misc]
    """Returns the result that the value of its string column names."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return RESULTS[str(model_input["what"].iloc[0])]()


DTYPES = "bool uint8 int8 int32 uint64 float16 float64 str bytes datetime64[ns]".split()
DEEP: dict[str, Any] = {
    "arrays": Array(Array(DataType.long)),
    "objects": Array(POINT),
    "maps": Map(Array(DataType.string)),
    "blobs": Array(DataType.binary),
    "times": Object(
        [Property("t", DataType.datetime), Property("b", DataType.boolean, required=False)]
    ),
}

SINCE = dict.fromkeys(("deep_anything", "every_param"), TYPE_HINTS)


def every_param() -> ParamSchema:
    return ParamSchema(
        [
            ParamSpec("bo", DataType.boolean, True),
            ParamSpec("i", DataType.integer, 1),
            ParamSpec("l", DataType.long, 1),
            ParamSpec("f", DataType.float, 0.5),
            ParamSpec("d", DataType.double, 0.5),
            ParamSpec("s", DataType.string, "x"),
            ParamSpec("dt", DataType.datetime, np.datetime64("2020-01-02")),
            ParamSpec("many", DataType.double, [0.5, 1.5], shape=(-1,)),
            ParamSpec("object", POINT, {"x": 1}),
        ]
    )


def tensor_of(dtype: str) -> Schema:
    return Schema([TensorSpec(np.dtype(dtype), (-1, 2, 1), "t")])


MODELS: dict[str, Callable[[], Callable[[Path], None]]] = {
    "gives": lambda: python_model(Gives(), ModelSignature(inputs=columns(("string", "what")))),
    "every_param": lambda: echo(columns(("double", "d")), every_param()),
    **{f"tensor_{dtype}": lambda dtype=dtype: echo(tensor_of(dtype)) for dtype in DTYPES},  # type: ignore[misc]
    **{f"deep_{name}": lambda kind=kind: echo(columns((kind, "x"))) for name, kind in DEEP.items()},  # type: ignore[misc]
    "deep_anything": lambda: echo(columns((Array(AnyType()), "x"))),
    "optional": lambda: echo(
        columns(("double", "d", False), ("long", "l", False), ("string", "s", False))
    ),
}


def parquet(frame: pd.DataFrame, **options: Any) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, **options)
    return buffer.getvalue()


ALL = pd.DataFrame(
    {
        "bo": [True, False],
        "i": np.array([1, 2], "int32"),
        "l": [1, 2],
        "f": np.array([0.1, 2], "float32"),
        "d": [0.1, 2.5],
        "s": ["x", "é"],
        "bi": [b"hi\x00", b"\xff"],
        "dt": pd.to_datetime(["2020-01-02", "2021-01-02"]).as_unit("ns"),
    }
)
THREE = pd.DataFrame({"a": [1.0, 4], "b": [2.5, 5], "c": [-0.5, 6]})


def parquets() -> Iterator[Case]:
    frames: list[tuple[str, pd.DataFrame]] = [
        ("linear", THREE),
        ("linear", THREE[["c", "b", "a"]]),
        ("linear", THREE.assign(z=1)),
        ("linear", THREE[["a", "b"]]),
        ("linear", THREE.astype("float32")),
        ("linear", THREE.astype({"a": "Int64"})),
        ("linear", THREE.assign(a=[1, 2])),
        ("linear", THREE.assign(a=["1", "2"])),
        ("linear", THREE.assign(a=[float("nan"), 1.0])),
        ("linear", THREE.iloc[:0]),
        ("linear", THREE.set_index("a")),
        ("linear", THREE.set_axis(["x", "y"])),
        ("echo_all", ALL),
        ("echo_all", ALL.drop(columns="d")),
        ("echo_all", ALL.assign(dt=ALL["dt"].dt.tz_localize("UTC"))),
        ("echo_all", ALL.assign(dt=ALL["dt"].dt.as_unit("us"))),
        ("echo_all", ALL.assign(i=ALL["l"])),
        ("echo_all", ALL.assign(s=ALL["s"].astype("category"))),
        ("echo_none", ALL),
        ("echo_array", pd.DataFrame({"arr": [[1.0, 2.0], []]})),
        ("echo_object", pd.DataFrame({"obj": [{"x": 1, "y": "t"}]})),
        ("echo_tensor", pd.DataFrame([[1.0, 2, 3]]).rename(columns=str)),
        ("echo_params", pd.DataFrame({"d": [1.5]})),
        ("people", pd.DataFrame({"name": ["Ann"], "age": [3]})),
        ("optional", pd.DataFrame({"l": [1]})),
    ]
    for model, frame in frames:
        yield case(model, parquet(frame), PARQUET)
    good = parquet(THREE)
    yield case("linear", parquet(THREE, compression="gzip"), PARQUET)
    for body in (good[:-8], good[8:], good[:100], b"PAR1PAR1", b""):
        yield case("linear", body, PARQUET)
    for content_type in (
        f"{PARQUET}; charset=utf-8",
        f"{PARQUET};charset=latin-1",
        f"{PARQUET}; version=1",
    ):
        yield case("linear", good, content_type)
    for content_type in ("application/x-parquet", PARQUET.upper(), "application/octet-stream"):
        yield case("linear", good, content_type)
    for content_type in (JSON, CSV):
        yield case(
            "linear", good[:60], content_type
        )  # MLflow's error repeats the whole body, this server's a bounded part


def csvs() -> Iterator[Case]:
    values = {
        "boolean": ["True", "true", "1", "yes", ""],
        "integer": ["1", "1.0", "1.5", "2147483648", "", "x"],
        "long": ["1", "1.0", "9223372036854775807", "9223372036854775808", "", "1e3"],
        "float": ["1", "0.1", "1e39", "nan", "inf", ""],
        "double": ["1", "1_000", " 7.4 ", "1,5", "NA", "1e400", "0x10", "-"],
        "string": ["x", "1", "1.50", "NA", '"a,b"', '"a""b"', "None", "é", "True"],
        "binary": ["aGk=", "x", ""],
        "datetime": ["2020-01-02", "2020-01-02T03:04:05Z", "x", "1577934245"],
    }
    for kind, texts in values.items():
        for text in texts:
            yield case(f"echo_{kind}", f"{COLUMN[kind]}\n{text}\n", CSV)
    header = ",".join(name for _, name in SCALARS)
    yield case("echo_all", f"{header}\nTrue,1,2,1.5,2.5,x,aGk=,2020-01-02\n", CSV)
    for body in (
        "a,a,b,c\n1,2,3,4\n",
        "a;b;c\n1;2;3\n",
        ",a,b,c\n0,1,2,3\n",
        "a,b,c\r\n1,2,3\r\n",
        "a,b,c\n\n1,2,3\n\n",
    ):
        yield case("linear", body, CSV)
        yield case("echo_none", body, CSV)
    for body in (
        '"a","b","c"\n1,2,3',
        "\ufeffa,b,c\n1,2,3\n",
        "a,b,c\n1,2,3\x00\n",
        "# a\na,b,c\n1,2,3\n",
        "a, b,c\n1,2,3\n",
    ):
        yield case("linear", body, CSV)
    for model in ("people", "shouts", "chats", "tensors", "echo_params", "optional"):
        yield case(model, "d\n1.5\n", CSV)
    for content_type in (
        f"{CSV};charset=latin-1",
        f"{CSV}; header=present",
        "TEXT/CSV",
        f"{CSV};",
        "text/tab-separated-values",
    ):
        yield case("linear", "a,b,c\n1,2,3\n", content_type)


def params() -> Iterator[Case]:
    examples: dict[str, list[Any]] = {
        "bo": [False, 0, "true", None],
        "i": [2, 2.0, 2.5, 2**31, True, "2", None],
        "l": [2, 2**53 + 1, 2**63, 2.5],
        "f": [0.25, 1, 1e39, "x"],
        "d": [0.25, 1, True, "0.5", [0.5]],
        "s": ["y", 1, None, ["y"]],
        "dt": ["2021-01-02", "2021-01-02T03:04:05", "x", 5],
        "many": [[1.5], [], [1], ["x"], 1.5, [[1.5]], None],
        "object": [{"x": 2}, {"x": 2, "y": "t"}, {"y": "t"}, {"x": "t"}, 5, {}],
    }
    for name, values in examples.items():
        for value in values:
            yield case("every_param", {"inputs": [1.5], "params": {name: value}})
    some = {"params": {"l": 3, "s": "z"}}
    yield case("every_param", split([[1.5]], ["d"]) | some)
    yield case("every_param", {"dataframe_records": [{"d": 1.5}]} | some)
    yield case("every_param", {"instances": [{"d": 1.5}]} | some)
    yield case("every_param", {"inputs": {"d": [1.5]}, "params": {"l": 3, "unknown": 1}})
    for odd in ("x", 5, True, [], [{"l": 3}], {"": 1}):
        yield case("every_param", {"inputs": [1.5], "params": odd})
    for model in ("linear", "people", "shouts", "words", "tensors"):
        yield case(model, {"inputs": [{"a": 1.0, "b": 2.0, "c": 3.0}], "params": {"x": 1}})


def tensors() -> Iterator[Case]:
    values: list[Any] = [
        [[1], [0]],
        [[True], [False]],
        [[1.5], [2]],
        [[-1], [300]],
        [["a"], ["b"]],
        [["2020-01-02"], ["1"]],
    ]
    for dtype in DTYPES:
        for value in values:
            yield case(f"tensor_{dtype}", {"inputs": {"t": [value]}})
            yield case(f"tensor_{dtype}", {"instances": [{"t": value}, {"t": value}]})
        yield case(f"tensor_{dtype}", {"inputs": [[[1], [0]]]})
        yield case(f"tensor_{dtype}", {"inputs": {"t": [[1, 0]]}})
        yield case(f"tensor_{dtype}", {"inputs": {"t": [[[None], [0]]]}})
        yield case(f"tensor_{dtype}", split([[[[1], [0]]]], ["t"]))
        yield case(f"tensor_{dtype}", "t\n1\n", CSV)


def deep() -> Iterator[Case]:
    examples: dict[str, list[Any]] = {
        "arrays": [[[1, 2], [3]], [], [[]], [1], [["x"]], [[1.5]], None],
        "objects": [[{"x": 1}, {"x": 2, "y": "t"}], [], [{}], {"x": 1}, [{"x": None}]],
        "maps": [{"k": ["a"]}, {"k": []}, {"k": "a"}, {"k": [1]}, {"": ["a"]}],
        "blobs": [["aGk="], [], ["x"], [1]],
        "times": [
            {"t": "2020-01-02"},
            {"t": "x"},
            {"t": "2020-01-02", "b": True},
            {"t": 5},
            {"t": "2020-01-02", "b": 1},
        ],
        "anything": [[1, "a", None, {"k": [1.5]}], [], [[1], [2]], 5, None],
    }
    for name, values in examples.items():
        for value in values:
            yield case(f"deep_{name}", split([[value]], ["x"]))
            yield case(f"deep_{name}", {"dataframe_records": [{"x": value}]})
            yield case(f"deep_{name}", {"inputs": {"x": value}})
            yield case(f"deep_{name}", {"inputs": {"x": [value]}})
            yield case(f"deep_{name}", {"inputs": [{"x": value}]})
            yield case(f"deep_{name}", {"instances": [{"x": value}]})


def optional() -> Iterator[Case]:
    for row in (
        {},
        {"l": 1},
        {"d": None, "l": 1},
        {"l": None, "s": None},
        {"d": 1, "s": "x"},
        {"s": None},
        {"z": 1},
    ):
        yield case("optional", {"dataframe_records": [row]})
        yield case("optional", {"inputs": [row]})
        yield case("optional", {"instances": [row]})
        yield case("optional", {"inputs": {name: [value] for name, value in row.items()}})
        yield case("optional", split([list(row.values())], list(row)))


def all_cases() -> Iterator[Case]:
    yield from parquets()
    yield from csvs()
    yield from params()
    yield from tensors()
    yield from deep()
    yield from optional()
    for result in RESULTS:
        yield case("gives", {"inputs": [result]})
        yield case("gives", split([[result]], ["what"]))


MORE = list(all_cases())

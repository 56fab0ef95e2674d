"""Codec `pd`: round trips of every kind of column; errors name the column."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver import MLModel
from mlserver.codecs import CodecError, PandasCodec, encode_response_output
from mlserver.context import model_context
from mlserver.errors import CannotBatch
from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest, Parameters, RequestInput, RequestOutput, TensorData

OverJson = Callable[[Any], Any]


pandas: Any = pd  # the stubs know fewer forms than pandas takes


def series(values: Any, dtype: Any) -> Any:
    return pandas.Series(values, dtype=dtype)


def times(*texts: str | None, unit: str = "us") -> Any:
    return pandas.Series(np.array(texts, dtype=f"M8[{unit}]"))


COLUMNS: dict[str, Any] = {
    "floats": [1.5, float("nan"), -0.0, 1e300],
    "float32": np.array([1.1, np.nan], "f4"),
    "float16": np.array([1.5, -2.0], "f2"),
    **{
        f"{code} numbers": np.array([1, 2, 3], code)
        for code in ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">f8"]
    },
    "largest integers": np.array([2**64 - 1], "u8"),
    "booleans": [True, False],
    "text": ["x", "é", "", "𝄞", "a\0"],
    "text with gaps": ["x", None, "y"],
    "text as objects": series(["x", "y"], object),
    "text as objects with nan": series(["x", np.nan], object),
    "text as objects with NA": series(["x", pd.NA], object),
    "nullable text": series(["x", pd.NA], "string"),
    "nullable text without gaps": series(["x", "y"], "string"),
    "nullable integers": series([1, pd.NA, 2**53], "Int64"),
    "nullable integers that no float holds": series([1, pd.NA, 2**62 + 1], "Int64"),
    "nullable integers without gaps": series([1, 2], "Int32"),
    "only missing integers": series([pd.NA, pd.NA], "Int64"),
    "nullable unsigned": series([1, pd.NA, 2**64 - 1], "UInt64"),
    "nullable floats": series([1.5, pd.NA], "Float64"),
    "nullable booleans": series([True, pd.NA], "boolean"),
    "nullable booleans without gaps": series([True, False], "boolean"),
    "datetimes": times("2020-01-01", "2021-02-03T04:05:06.123456"),
    "nanoseconds": times("2020-01-01T00:00:00.123456789", None, unit="ns"),
    "seconds": times("2020-01-01", "1500-02-01", unit="s"),
    "zoned": times("2020-01-01", "2021-07-03").dt.tz_localize("Europe/Paris"),
    "zoned with gaps": times("2020-01-01T00:00:00.123456789", None, unit="ns").dt.tz_localize(
        "UTC"
    ),
    "zone of minutes": times("2020-01-01").dt.tz_localize("+01:30"),
    "durations": pandas.to_timedelta([1, 2], unit="s"),
    "durations with gaps": series([pd.Timedelta(5), pd.NaT], "timedelta64[ns]"),
    "categories": pandas.Categorical(["x", "y"], categories=["y", "x", "z"], ordered=True),
    "categories with gaps": pandas.Categorical(["x", None]),
    "integer categories": pandas.Categorical([1, 2, 1]),
    "integer categories with gaps": pandas.Categorical([1, None]),
    "float categories": pandas.Categorical([1.5, 2.5]),
    "boolean categories": pandas.Categorical([True, False]),
    "datetime categories": pandas.Categorical(pandas.to_datetime(["2020-01-01", "2020-01-02"])),
    "datetime categories with gaps": pandas.Categorical(pandas.to_datetime(["2020-01-01", None])),
    "object categories": pandas.Categorical(
        series(["a", None], object), categories=pd.Index(["a"], dtype=object)
    ),
    "no category used": pandas.Categorical([None, None], categories=["q"]),
    "periods": pandas.array(["2020-01", None], dtype="period[M]"),
    "sparse": pd.arrays.SparseArray([0, 0, 1]),
    "sparse floats": pd.arrays.SparseArray([np.nan, 1.0]),
    "bytes": [b"x", b"yy"],
    "bytes that are no text": [b"\xff\x00", b""],
    "dates": [dt.date(2020, 1, 2), dt.date(2021, 1, 1)],
    "datetime objects": series([dt.datetime(2020, 1, 1, 2, 3), dt.datetime(2021, 1, 1)], object),
    "datetimes of several zones": series(
        [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2021, 1, 1)], object
    ),
    "objects": series(["x", None, 3, [1, [2]], {"k": 2**70}, True], object),
    "lists of equal length": [[1, 2], [3, 4]],
    "no rows": series([], "f8"),
    "no objects": series([], object),
    "no text": series([], pd.Series(["a"]).dtype),
    "no integers": series([], "Int64"),
    "no datetimes": series([], "datetime64[us]"),
}

FRAMES: dict[str, pd.DataFrame] = {
    "no columns": pd.DataFrame(),
    "one dtype": pd.DataFrame(np.arange(6.0).reshape(2, 3), columns=["a", "b", "c"]),
    "several dtypes": pd.DataFrame(
        {"i": [1, 2], "f": [0.5, np.nan], "t": ["x", "y"], "b": [True, False]}
    ),
    "integer labels": pd.DataFrame([[1, 2, 3.5]], columns=[0, 1, 2]),
    "duplicate labels": pd.DataFrame([[1, 2, "x"]], columns=["a", "a", "a.1"]),
    "labels of one text": pd.DataFrame(
        [[1, 2, "x"]], columns=pd.Index(["a", 0, "0"], dtype=object)
    ),
    "tuples as labels": pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    ),
}


@pytest.mark.parametrize("use_bytes", [True, False])
@pytest.mark.parametrize("values", COLUMNS.values(), ids=COLUMNS.keys())
def test_column_round_trip(values: Any, use_bytes: bool, over_json: OverJson) -> None:
    frame = pd.DataFrame({"column": values})
    request = PandasCodec.encode_request(frame, use_bytes=use_bytes)
    pd.testing.assert_frame_equal(PandasCodec.decode_request(request), frame)
    pd.testing.assert_frame_equal(PandasCodec.decode_request(over_json(request)), frame)


@pytest.mark.parametrize("dtype", ["int64[pyarrow]", "double[pyarrow]", "bool[pyarrow]", "string"])
def test_arrow_column_round_trip(dtype: str, over_json: OverJson) -> None:
    pa = pytest.importorskip("pyarrow")
    chosen = pd.ArrowDtype(pa.string()) if dtype == "string" else dtype
    values: Any = {"string": ["a", None], "bool[pyarrow]": [True, None]}.get(dtype, [1, None])
    frame = pd.DataFrame({"column": series(values, chosen), "full": series(values[:1] * 2, chosen)})
    pd.testing.assert_frame_equal(
        PandasCodec.decode_request(over_json(PandasCodec.encode_request(frame))), frame
    )


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_frame_round_trip(frame: pd.DataFrame, over_json: OverJson) -> None:
    request = over_json(PandasCodec.encode_request(frame))
    assert len({tensor.name for tensor in request.inputs}) == len(frame.columns)
    pd.testing.assert_frame_equal(PandasCodec.decode_request(request), frame)
    response = over_json(PandasCodec.encode_response("m", frame, "v1"))
    assert (response.model_name, response.model_version) == ("m", "v1")
    pd.testing.assert_frame_equal(PandasCodec.decode_response(response), frame)


VALUES = {
    "f8": st.floats(allow_infinity=False),
    "i8": st.integers(-(2**63), 2**63 - 1),
    "Int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "boolean": st.none() | st.booleans(),
    "string": st.none() | st.text(),
    "object": st.none() | st.text() | st.integers() | st.lists(st.booleans()),
    "datetime64[us]": st.none() | st.datetimes(),
    "category": st.none() | st.sampled_from("abc"),
}


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 4))
    names = draw(st.lists(st.text(max_size=3), max_size=4, unique=True))
    kinds = [draw(st.sampled_from(sorted(VALUES))) for _ in names]
    return pd.DataFrame(
        {
            name: series(draw(st.lists(VALUES[kind], min_size=rows, max_size=rows)), kind)
            for name, kind in zip(names, kinds, strict=True)
        }
    )


@given(frame=frames())
@settings(max_examples=150, deadline=None)
def test_any_frame_round_trip(frame: pd.DataFrame, over_json: OverJson) -> None:
    decoded = PandasCodec.decode_request(over_json(PandasCodec.encode_request(frame)))
    if len(frame.columns):  # rows without a column cannot be encoded
        pd.testing.assert_frame_equal(decoded, frame)


def test_encoded_as_published_servers_do() -> None:
    frame = pd.DataFrame({"n": [1, 2], "t": ["x", "y"], "j": [{"a": np.int64(1)}, [1.5, None]]})
    outputs = PandasCodec.encode_outputs(frame)
    assert [output.model_dump() for output in outputs] == [
        {"name": "n", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]},
        {
            "name": "t",
            "shape": [2, 1],
            "datatype": "BYTES",
            "parameters": {"content_type": "str"},
            "data": [b"x", b"y"],
        },
        {
            "name": "j",
            "shape": [2, 1],
            "datatype": "BYTES",
            "parameters": {"content_type": "pd_json"},
            "data": [b'{"a":1}', b"[1.5,null]"],
        },
    ]


def test_missing_text_becomes_json() -> None:
    (tensor,) = PandasCodec.encode_request(pd.DataFrame({"a": ["x", None]})).inputs
    assert tensor.data.root == [b'"x"', b"null"]


@pytest.mark.parametrize(
    "values, named",
    [
        ([1j], "complex128"),
        (pd.interval_range(0, 1), "interval"),
        ([object()], "object"),
        ([Decimal(1)], "decimal.Decimal"),
        (series([1, {2: object}], object), "type"),
    ],
)
def test_unsupported_columns_are_named(values: Any, named: str) -> None:
    with pytest.raises(CodecError, match=f"column 'odd'.*{named}"):
        PandasCodec.encode_request(pd.DataFrame({"odd": values}))


# -- decoding what clients send --


def tensor(
    name: str, shape: list[int], datatype: str, data: Any, **parameters: Any
) -> RequestInput:
    return RequestInput(
        name=name,
        shape=shape,
        datatype=datatype,
        data=data if isinstance(data, TensorData) else TensorData(data),
        parameters=Parameters(**parameters) if parameters else None,
    )


def decode(*tensors: RequestInput) -> pd.DataFrame:
    return PandasCodec.decode_request(InferenceRequest(inputs=list(tensors)))


def test_columns_keep_their_datatypes() -> None:
    frame = decode(
        tensor("a", [2], "FP32", [1, None]),
        tensor("b", [2, 1], "INT16", [[1], [2]]),
        tensor("c", [2], "BYTES", ["x", "y"]),
        tensor("d", [2], "BYTES", [b"x", b"y"]),
        tensor("e", [2], "BYTES", ["2020-01-01", "2020-01-02"], content_type="datetime"),
    )
    assert [str(dtype) for dtype in frame.dtypes][:2] == ["float32", "int16"]
    assert frame["c"].tolist() == ["x", "y"]
    assert frame["d"].tolist() == [b"x", b"y"]
    assert frame["e"].dt.day.tolist() == [1, 2]


def test_numbers_are_the_frames_own() -> None:
    raw = np.arange(3, dtype="<f4").tobytes()
    frame = decode(
        *(tensor(name, [3], "FP32", TensorData.from_raw(raw, "FP32", [3])) for name in "ab")
    )
    frame["a"] += 1
    frame.loc[0, "b"] = 7
    assert frame.to_numpy().tolist() == [[1, 7], [2, 1], [3, 2]]
    assert np.frombuffer(raw, "<f4").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "texts", [['{"k": [1]}', "null"], [b'{"k": [1]}', b"null"], [{"k": [1]}, None]]
)
def test_json_columns(texts: list[Any]) -> None:
    assert decode(tensor("j", [2, 1], "BYTES", texts, content_type="pd_json"))["j"].tolist() == [
        {"k": [1]},
        None,
    ]


@pytest.mark.parametrize(
    "tensors, text",
    [
        ([tensor("a", [2, 2], "FP32", [1, 2, 3, 4])], r"column 'a'.*one value per row.*\[2, 2\]"),
        (
            [tensor("a", [2], "FP32", [1, 2]), tensor("b", [3], "FP32", [1, 2, 3])],
            "'a' has 2, 'b' has 3",
        ),
        ([tensor("a", [1], "BYTES", ["{"], content_type="pd_json")], "column 'a'.*JSON"),
        ([tensor("a", [1], "BYTES", ["x"], content_type="datetime")], "column 'a'.*ISO 8601"),
        (
            [tensor("a", [1], "BYTES", ["x"], content_type="str", pandas_dtype="int64")],
            "column 'a'.*int64",
        ),
        (
            [tensor("a", [1], "BYTES", ["x"], content_type="str", pandas_dtype="no such")],
            "column 'a'.*no such",
        ),
        (
            [tensor("a", [1], "BYTES", ["x"], content_type="str", pandas_dtype="U1000000000")],
            "column 'a'.*U1000000000",
        ),
        (
            [tensor("a", [1], "BYTES", ["x"], content_type="str", pandas_dtype="category")],
            "pandas_categories",
        ),
        ([tensor("a", [1], "FP32", [1], pandas_label="{")], "pandas_label"),
    ],
)
def test_what_does_not_fit_is_named(tensors: list[RequestInput], text: str) -> None:
    with pytest.raises(CodecError, match=text):
        decode(*tensors)


@pytest.mark.parametrize(
    "column, is_together",
    [
        (series([1.5, None, 2.5], "float64"), True),
        (series(["a", "b", "c"], object), True),
        (series(["a", None, "b"], object), False),
        (series(["a", None, "b"], "string"), False),
        (series([1, 2, 3], "Int64"), True),
        (series([1, None, 3], "Int64"), False),
        (series([1, None, 3], "Float64"), True),
        (series(["a", "b", "a"], "category"), False),
        (series(["a", "a", "a"], "category"), True),
        (series([b"a", b"\xff", b"c"], object), False),
    ],
)
def test_joined_rows_are_encoded_as_they_are_alone(column: Any, is_together: bool) -> None:
    model = ModelSettings(name="m", implementation=MLModel)
    with model_context(model, joined=(1, 2)):
        if is_together:
            assert PandasCodec.encode_response("m", pd.DataFrame({"x": column})).outputs
        else:
            with pytest.raises(CannotBatch):
                PandasCodec.encode_response("m", pd.DataFrame({"x": column}))


def test_joined_lists_have_the_codec_that_they_have_alone() -> None:
    model, output = ModelSettings(name="m", implementation=MLModel), RequestOutput(name="y")
    with model_context(model, joined=(1, 2)):
        assert encode_response_output(["a", "b", "c"], output) is not None
        for values in (["a", b"b", b"c"], ["a", {"k": 1}, {"k": 2}]):
            with pytest.raises(CannotBatch):
                encode_response_output(values, output)

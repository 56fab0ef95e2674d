"""Arrow streams: columns to tensors and back, and the limits of memory."""

from __future__ import annotations

import datetime as dt
import struct
from typing import Any

import numpy as np
import pytest

from mlserver.errors import MLServerError, PayloadTooLarge
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    ResponseOutput,
    TensorData,
)
from mlserver.wire.arrow import stream as arrow

pa = pytest.importorskip("pyarrow")
LIMIT = 10_000_000


def stream(columns: Any, **options: Any) -> bytes:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def read(columns: Any, limit: int = LIMIT, **options: Any) -> InferenceRequest:
    """The request, normalized as by the data plane."""
    request = arrow.read_request(stream(columns, **options), limit)
    for tensor in request.inputs:
        tensor.data.normalize(str(tensor.datatype), tensor.shape)
    return request


DAY = dt.datetime(2020, 1, 2, 3)
# Column -> datatype, shape, content type and elements of the tensor.
COLUMNS: dict[str, tuple[Any, tuple[str, list[int], str | None, list[Any]]]] = {
    **{
        f"{kind}": (pa.array([1, 2], kind), (datatype, [2, 1], None, [1, 2]))
        for kind, datatype in [
            (pa.int8(), "INT8"),
            (pa.int16(), "INT16"),
            (pa.int32(), "INT32"),
            (pa.int64(), "INT64"),
            (pa.uint8(), "UINT8"),
            (pa.uint16(), "UINT16"),
            (pa.uint32(), "UINT32"),
            (pa.uint64(), "UINT64"),
            (pa.float32(), "FP32"),
            (pa.float64(), "FP64"),
        ]
    },
    "half": (pa.array(np.array([0.5, 2], "f2")), ("FP16", [2, 1], None, [0.5, 2])),
    "bool": (pa.array([True, False]), ("BOOL", [2, 1], None, [True, False])),
    "missing floats": (pa.array([0.5, None]), ("FP64", [2, 1], None, [0.5, None])),
    "missing integers": (pa.array([1, None]), ("FP64", [2, 1], None, [1, None])),
    "only missing": (pa.array([None, None], pa.int8()), ("FP64", [2, 1], None, [None, None])),
    "missing booleans": (pa.array([True, None]), ("BYTES", [2, 1], "pd_json", ["true", "null"])),
    "text": (pa.array(["a", "snow \u2603"]), ("BYTES", [2, 1], None, ["a", "snow \u2603"])),
    "missing text": (pa.array(["a", None]), ("BYTES", [2, 1], None, ["a", None])),
    "large text": (pa.array(["a", ""], pa.large_string()), ("BYTES", [2, 1], None, ["a", ""])),
    "text views": (
        pa.array(["a", "b" * 20], pa.string_view()),
        ("BYTES", [2, 1], None, ["a", "b" * 20]),
    ),
    "categories": (pa.array(["x", "x"]).dictionary_encode(), ("BYTES", [2, 1], None, ["x", "x"])),
    "bytes": (pa.array([b"\xff", b""]), ("BYTES", [2, 1], "base64", [b"/w==", b""])),
    "timestamps": (
        pa.array([DAY, None]),
        ("BYTES", [2, 1], "datetime", ["2020-01-02T03:00:00", "NaT"]),
    ),
    "dates": (pa.array([DAY.date()]), ("BYTES", [1, 1], "datetime", ["2020-01-02"])),
    "lists": (pa.array([[1, 2], [3]]), ("BYTES", [2, 1], "pd_json", ["[1, 2]", "[3]"])),
    "fixed lists": (
        pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)),
        ("INT8", [2, 2], None, [1, 2, 3, 4]),
    ),
    "structures": (
        pa.array([{"a": DAY}]),
        ("BYTES", [1, 1], "pd_json", ['{"a": "2020-01-02T03:00:00"}']),
    ),
    "no rows": (pa.array([], pa.float32()), ("FP32", [0, 1], None, [])),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns(name: str) -> None:
    column, expected = COLUMNS[name]
    (tensor,) = read({"x": column}).inputs

    content_type = tensor.parameters.content_type if tensor.parameters is not None else None
    assert (str(tensor.datatype), tensor.shape, content_type, tensor.data.root) == expected


def test_numbers_are_views_of_the_body() -> None:
    body = stream({"x": np.arange(1000.0)})
    (tensor,) = arrow.read_request(body, LIMIT).inputs

    assert tensor.data.representations == ("raw",)
    assert tensor.data.raw is not None
    assert np.shares_memory(np.frombuffer(body, "u1"), np.frombuffer(tensor.data.raw, "u1"))


def test_a_table_in_several_batches() -> None:
    table = pa.table({"x": pa.array(["a", "b", "a"]).dictionary_encode(), "y": [1, 2, 3]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(batch)
    request = arrow.read_request(bytes(sink.getvalue()), LIMIT)

    assert [tensor.data.root for tensor in request.inputs] == [["a", "b", "a"], [1, 2, 3]]


def test_columns_have_the_content_type_pd() -> None:
    one_per_row, lists = read({"x": [1]}), read({"x": pa.array([[1, 2]], pa.list_(pa.int8(), 2))})

    assert one_per_row.parameters is not None
    assert one_per_row.parameters.content_type == "pd"
    assert lists.parameters is None


def test_row_labels_are_not_inputs() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": [1.0]}, index=["label"])

    assert [tensor.name for tensor in read(pa.Table.from_pandas(frame)).inputs] == ["x"]


# -- refused --


@pytest.mark.parametrize(
    "column, text",
    [
        (pa.nulls(3), "Arrow's null"),
        (pa.array([dt.timedelta(1)]), "Arrow's duration"),
        (pa.array([[None]], pa.list_(pa.null())), "Arrow's list<item: null>"),
        (pa.array([2**53 + 1, None]), "missing values beside integers over 2**53"),
    ],
)
def test_columns_that_no_tensor_carries(column: Any, text: str) -> None:
    with pytest.raises(MLServerError, match="column 'x'") as error:
        read({"x": column})
    assert text in error.value.message
    assert error.value.status_code == 400


WHOLE = stream({"x": np.arange(100.0), "s": ["text"] * 100})


@pytest.mark.parametrize(
    "body", [b"", b"\xff" * 8, b"{}", WHOLE[:-400], WHOLE[8:], WHOLE.replace(b"text", b"\xff" * 4)]
)
def test_broken_streams(body: bytes) -> None:
    with pytest.raises(MLServerError, match="expected an Arrow stream") as error:
        arrow.read_request(body, LIMIT)
    assert error.value.status_code == 400


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_bomb(codec: str) -> None:
    body = stream({"x": np.zeros(1_000_000)}, compression=codec)

    assert len(body) < 100_000
    with pytest.raises(PayloadTooLarge):
        arrow.read_request(body, 1_000_000)
    assert arrow.read_request(body, LIMIT).inputs[0].shape == [1_000_000, 1]


def repeated_view(text: bytes, count: int) -> Any:
    """An array of views of one text."""
    view = struct.pack("<i4sii", len(text), text[:4], 0, 0)
    return pa.Array.from_buffers(
        pa.string_view(), count, [None, pa.py_buffer(view * count), pa.py_buffer(text)]
    )


@pytest.mark.parametrize(
    "column",
    [
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, "i1")), pa.array(["a" * 10_000])),
        repeated_view(b"a" * 1000, 5000),
        pa.array(np.zeros(10**6, "?")),
    ],
    ids=["dictionary", "views", "bits"],
)
def test_repetition_is_counted(column: Any) -> None:
    body = stream({"x": column})

    assert len(body) < 1_000_000
    with pytest.raises(PayloadTooLarge):
        arrow.read_request(body, 1_000_000)


# -- writing --


def answer(**outputs: tuple[str, list[int], Any, str | None]) -> InferenceResponse:
    response_outputs = [
        ResponseOutput(
            name=name,
            datatype=datatype,
            shape=shape,
            data=TensorData(data),
            parameters=Parameters(content_type=content_type),
        )
        for name, (datatype, shape, data, content_type) in outputs.items()
    ]
    return InferenceResponse(model_name="m", model_version="3", id="1", outputs=response_outputs)


def written(**outputs: tuple[str, list[int], Any, str | None]) -> Any:
    return pa.ipc.open_stream(arrow.write_response(answer(**outputs))).read_all()


def test_outputs() -> None:
    table = written(
        number=("FP32", [2, 1], [0.5, None], None),
        flag=("BOOL", [2], [True, False], None),
        wide=("INT8", [2, 2], [1, 2, 3, 4], "np"),
        text=("BYTES", [2], ["a", "b"], "str"),
        gaps=("BYTES", [2], ['"a"', "null"], "pd_json"),
        objects=("BYTES", [2], ['{"a": 1}', "null"], "pd_json"),
        blob=("BYTES", [2, 1], ["/w==", ""], "base64"),
        odd=("BYTES", [2], [b"\xff", b""], None),
        when=("BYTES", [2], ["2020-01-02T03:00:00", "NaT"], "datetime"),
        zoned=("BYTES", [2], ["2020-01-02T03:00:00+01:00", "NaT"], "datetime"),
        never=("BYTES", [2], ["soon", "NaT"], "datetime"),
    )

    assert table.column("number").to_pylist() == [0.5, pytest.approx(float("nan"), nan_ok=True)]
    assert table.drop(["number"]).to_pydict() == {
        "flag": [True, False],
        "wide": [[1, 2], [3, 4]],
        "text": ["a", "b"],
        "gaps": ["a", None],
        "objects": ['{"a": 1}', "null"],
        "blob": [b"\xff", b""],
        "odd": [b"\xff", b""],
        "when": [DAY, None],
        "zoned": [dt.datetime(2020, 1, 2, 2, tzinfo=dt.UTC), None],
        "never": ["soon", "NaT"],
    }
    assert table.schema.metadata == {b"model_name": b"m", b"model_version": b"3", b"id": b"1"}


def test_a_scalar_is_a_row() -> None:
    assert written(x=("INT64", [], [7], None)).to_pydict() == {"x": [7]}


def test_no_outputs() -> None:
    assert written().num_columns == 0


def test_outputs_of_different_lengths_are_refused() -> None:
    with pytest.raises(MLServerError, match="'a' 1, 'b' 2") as error:
        written(a=("INT8", [1], [1], None), b=("INT8", [2], [1, 2], None))
    assert error.value.status_code == 406

"""Codec `np`: round trips of dtypes and shapes; decoded arrays are writable, made without lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mlserver.codecs import CodecError, NumpyCodec, NumpyRequestCodec
from mlserver.codecs.numpy import _encode_data, _to_ndarray, convert_nan, to_datatype, to_dtype
from mlserver.types import Datatype, InferenceRequest, Parameters, RequestInput, TensorData

OverJson = Callable[[Any], Any]
NUMBERS = [
    np.dtype(code)
    for code in ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
]


@given(
    array=npst.arrays(
        st.sampled_from(NUMBERS),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        elements={"allow_infinity": False},
    )
)
@settings(deadline=None)
def test_numbers_round_trip(array: np.ndarray[Any, Any], over_json: OverJson) -> None:
    decoded = NumpyRequestCodec.decode_request(over_json(NumpyRequestCodec.encode_request(array)))
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded.reshape(array.shape), array)


@given(texts=st.lists(st.text()))
@settings(deadline=None)
def test_text_of_any_length_round_trips(texts: list[str], over_json: OverJson) -> None:
    array = np.array(texts, dtype=object).reshape(-1, 1)
    decoded = NumpyRequestCodec.decode_request(over_json(NumpyRequestCodec.encode_request(array)))
    assert decoded.ravel().tolist() == texts


@pytest.mark.parametrize(
    "shape, sent",
    [((3,), [3, 1]), ((), [1]), ((2, 3), [2, 3]), ((0,), [0, 1]), ((1, 1, 1), [1, 1, 1])],
)
def test_shapes(shape: tuple[int, ...], sent: list[int]) -> None:
    array = np.ones(shape)
    output = NumpyCodec.encode_output("o", array)
    assert output.shape == sent
    assert output.data.array is array  # as the model gave it, no copy and no list
    assert output.data.representations == ("array",)
    assert output.parameters == Parameters(content_type="np")


def test_missing_floats_are_null() -> None:
    assert NumpyCodec.encode_output("o", np.array([1.0, np.nan])).data.root == [1.0, None]
    assert convert_nan(float("nan")) is None
    assert convert_nan(1) == 1


@pytest.mark.parametrize(
    "array, data, datatype",
    [
        (np.array(["a", "bcd"]), [b"a", b"bcd"], "BYTES"),
        (np.array([b"a", b"bcd"]), [b"a", b"bcd"], "BYTES"),
        (np.array(["a", 1, None, 2.5, np.int64(3)], dtype=object), ["a", 1, None, 2.5, 3], "BYTES"),
        (np.array([1, 2], dtype=">i4"), [1, 2], "INT32"),
        (np.ma.masked_array([1.0, 2.0], mask=[False, True]), [1.0, None], "FP64"),
        (np.asfortranarray([[1, 2], [3, 4]], dtype="i1"), [1, 2, 3, 4], "INT8"),
    ],
)
def test_data(array: Any, data: list[Any], datatype: str) -> None:
    output = NumpyCodec.encode_output("o", array)
    assert output.data.root == data
    assert str(output.datatype) == datatype


def test_data_as_a_list() -> None:
    assert _encode_data(np.array([[1.0, np.nan]]), "FP64") == [1.0, None]
    assert _encode_data(np.array(["é"]), "BYTES") == ["é".encode()]


def test_text_for_json() -> None:
    assert NumpyCodec.encode_output("o", np.array(["é"]), use_bytes=False).data.root == ["é"]
    assert NumpyCodec.encode_output("o", np.array(["é".encode()]), use_bytes=False).data.root == [
        "é"
    ]


def test_datetimes_are_iso_text(over_json: OverJson) -> None:
    array = np.array([["2020-01-01T00:00:00.123456789", "NaT"]], dtype="M8[ns]")
    request = NumpyRequestCodec.encode_request(array)
    assert request.inputs[0].parameters == Parameters(content_type="datetime")
    assert request.inputs[0].data.root == [b"2020-01-01T00:00:00.123456789", b"NaT"]
    decoded = NumpyRequestCodec.decode_request(over_json(request))
    np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize(
    "array, named",
    [
        (np.array([1j]), "complex128"),
        (np.array([1], dtype="m8[s]"), "timedelta64"),
        (np.zeros(1, dtype=[("a", "i4")]), "void"),
        (np.array([{"a": 1}], dtype=object), "dict"),
        (np.ma.masked_array([1, 2], mask=[False, True]), "int64"),
    ],
)
def test_unsupported_arrays_name_the_dtype(array: Any, named: str) -> None:
    with pytest.raises(CodecError, match=named):
        NumpyCodec.encode_output("o", array)


# -- decoding --


def tensor(shape: list[int], datatype: str, data: Any, **parameters: Any) -> RequestInput:
    return RequestInput(
        name="x",
        shape=shape,
        datatype=datatype,
        data=data if isinstance(data, TensorData) else TensorData(data),
        parameters=Parameters(**parameters) if parameters else None,
    )


@pytest.mark.parametrize(
    "given_, expected",
    [
        (tensor([2, 2], "INT32", [1, 2, 3, 4]), np.array([[1, 2], [3, 4]], "i4")),
        (tensor([2, 2], "INT32", [[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]], "i4")),
        (tensor([], "FP64", [7]), np.array(7.0)),
        (tensor([2], "FP32", [1, None]), np.array([1, np.nan], "f4")),
        (tensor([2], "FP32", TensorData.from_array(np.array([1, 2]))), np.array([1, 2], "f4")),
        (tensor([2, 1], "BYTES", ["a", "bcd"]), np.array([["a"], ["bcd"]])),
        (tensor([2, 1], "BYTES", [["a"], ["bcd"]]), np.array([["a"], ["bcd"]])),
        (tensor([2], "BYTES", [b"a", b"bcd\0"]), np.array([b"a", b"bcd\0"], dtype=object)),
        (tensor([2], "BYTES", ["a", "b\0"]), np.array(["a", "b\0"], dtype=object)),
        (tensor([3], "BYTES", ["a", None, 1]), np.array(["a", None, 1], dtype=object)),
        (tensor([0], "BYTES", []), np.array([], dtype="U1")),
    ],
)
def test_decode(given_: RequestInput, expected: np.ndarray[Any, Any]) -> None:
    decoded = NumpyCodec.decode_input(given_)
    assert decoded.dtype == expected.dtype
    np.testing.assert_array_equal(decoded, expected)


def test_raw_bytes_become_an_array_that_can_be_written_to() -> None:
    raw = np.arange(4, dtype="<f4").tobytes()
    request_input = tensor([2, 2], "FP32", TensorData.from_raw(raw, "FP32", [2, 2]))
    decoded = _to_ndarray(request_input)
    decoded *= 2
    assert decoded.tolist() == [[0, 2], [4, 6]]
    assert NumpyCodec.decode_input(request_input).tolist() == [[0, 1], [2, 3]]
    assert "root" not in request_input.data.representations


def test_raw_text_keeps_every_length() -> None:
    block = b"".join(len(text).to_bytes(4, "little") + text for text in (b"a", b"longer", b""))
    decoded = NumpyCodec.decode_input(
        tensor([3], "BYTES", TensorData.from_raw(block, "BYTES", [3]))
    )
    assert decoded.tolist() == [b"a", b"longer", b""]


def test_brain_floats_widen() -> None:
    data = TensorData.from_raw(b"\x80\x3f\x00\x40", "BF16", [2])
    assert NumpyCodec.decode_input(tensor([2], "BF16", data)).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "shape, datatype, data",
    [([3], "FP32", [1, 2]), ([-1, 2], "FP32", [1, 2]), ([1], "INT8", [300]), ([2], "BYTES", ["a"])],
)
def test_what_does_not_fit_names_the_tensor(
    shape: list[int], datatype: str, data: list[Any]
) -> None:
    with pytest.raises(CodecError, match="tensor 'x': expected"):
        NumpyCodec.decode_input(tensor(shape, datatype, data))


def test_invalid_datetime_text() -> None:
    with pytest.raises(CodecError, match="ISO 8601"):
        NumpyCodec.decode_input(tensor([1], "BYTES", ["soon"], content_type="datetime"))


def test_one_tensor_only() -> None:
    request = InferenceRequest(inputs=[tensor([1], "FP32", [1]), tensor([1], "FP32", [1])])
    with pytest.raises(
        CodecError, match=r"The 'np' codec only supports a single input tensor \(2 were received\)"
    ):
        NumpyRequestCodec.decode_request(request)


def test_datatypes_and_dtypes() -> None:
    assert [to_datatype(dtype).value for dtype in NUMBERS] == [
        *(
            "BOOL",
            "UINT8",
            "UINT16",
            "UINT32",
            "UINT64",
            "INT8",
            "INT16",
            "INT32",
            "INT64",
            "FP16",
            "FP32",
            "FP64",
        )
    ]
    assert (
        to_datatype(np.dtype("S3"))
        is to_datatype(np.dtype("U3"))
        is to_datatype(np.dtype(object))
        is Datatype.BYTES
    )
    assert to_dtype(tensor([1], "FP16", [1])) == np.dtype("f2")
    assert to_dtype(tensor([1], "BYTES", ["a"])) == np.dtype(object)


def test_response_round_trip(over_json: OverJson) -> None:
    response = over_json(NumpyRequestCodec.encode_response("m", np.eye(2), "v1"))
    assert response.model_dump(exclude={"outputs"}) == {
        "model_name": "m",
        "model_version": "v1",
        "parameters": {"content_type": "np"},
    }
    assert response.outputs[0].name == "output-1"
    np.testing.assert_array_equal(NumpyRequestCodec.decode_response(response), np.eye(2))


@pytest.mark.parametrize(
    "datatype, numbers",
    [
        ("UINT64", [2**63 + 1, 0]),
        ("UINT64", [2**64 - 1, 1]),
        ("UINT64", [2**64 - 1024, 0.0]),
        ("INT64", [2**63 - 1, -(2**63)]),
        ("INT64", [2**53 + 1, 0.0]),
    ],
)
def test_large_integers_are_exact_however_they_are_nested(
    datatype: str, numbers: list[Any]
) -> None:
    for data in (numbers, [[number] for number in numbers]):
        assert NumpyCodec.decode_input(tensor([2, 1], datatype, data)).ravel().tolist() == numbers


@pytest.mark.parametrize(
    "datatype, number", [("UINT64", 2**64), ("UINT64", -1), ("INT64", 2**63), ("INT64", 1e300)]
)
def test_integers_out_of_range_are_refused_however_they_are_nested(
    datatype: str, number: Any
) -> None:
    for data in ([number, 0], [[number], [0]], [[number], [0.5]]):
        with pytest.raises(CodecError, match=f"range of {datatype}"):
            NumpyCodec.decode_input(tensor([2, 1], datatype, data))


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["2020", "2021-02"], "datetime64[M]"),
        (["2020-01-01", "2020-01-01T03:04:05.123456789"], "datetime64[ns]"),
        (["2020-01-01T03", "NaT", None], "datetime64[h]"),
        (["2020-01-01T03:04", ""], "datetime64[m]"),
        (["NaT", None], "datetime64[D]"),
        ([], "datetime64[D]"),
    ],
)
def test_datetimes_have_the_finest_unit_of_their_texts(
    texts: list[str | None], expected: str
) -> None:
    actual = NumpyCodec.decode_input(tensor([len(texts)], "BYTES", texts, content_type="datetime"))
    missing = [text if text else "NaT" for text in texts]
    np.testing.assert_array_equal(actual, np.array(missing, dtype=expected))
    assert actual.dtype == np.dtype(expected)

"""The codecs of BYTES tensors: text, Base64, datetimes and JSON."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.codecs import Base64Codec, CodecError, DatetimeCodec, StringCodec, StringRequestCodec
from mlserver.codecs.json import (
    JsonColumnCodec,
    JSONEncoderWithArray,
    decode_from_bytelike_json_to_dict,
    decode_json_input_or_output,
    encode_to_json,
    encode_to_json_bytes,
)
from mlserver.codecs.lists import as_list, is_list_of
from mlserver.codecs.string import decode_str, encode_str
from mlserver.types import Parameters, RequestInput, ResponseOutput, TensorData

OverJson = Callable[[Any], Any]


def tensor(data: Any, shape: list[int] | None = None, datatype: str = "BYTES") -> RequestInput:
    return RequestInput(
        name="x",
        shape=[len(data), 1] if shape is None else shape,
        datatype=datatype,
        data=data if isinstance(data, TensorData) else TensorData(data),
    )


# -- str --


@given(texts=st.lists(st.text()))
def test_text_round_trip(texts: list[str], over_json: OverJson) -> None:
    request = StringRequestCodec.encode_request(texts)
    assert StringRequestCodec.decode_request(request) == texts
    assert StringRequestCodec.decode_request(over_json(request)) == texts


def test_text_as_published_servers_do() -> None:
    assert StringCodec.encode_output("o", ["é"]) == ResponseOutput(
        name="o",
        shape=[1, 1],
        datatype="BYTES",
        data=["é".encode()],
        parameters=Parameters(content_type="str"),
    )
    assert StringCodec.encode_input("i", ["é"], use_bytes=False).data.root == ["é"]
    assert (encode_str("é"), decode_str("é".encode()), decode_str("é"), decode_str(None)) == (
        "é".encode(),
        "é",
        "é",
        None,
    )


@pytest.mark.parametrize(
    "given_, expected",
    [
        (tensor(["a", b"b", None]), ["a", "b", None]),
        (tensor([["a"], ["b"]]), ["a", "b"]),
        (tensor("alone", [1]), ["alone"]),
        (tensor(b"alone", [1]), ["alone"]),
        (tensor(["sloppy", "shape"], [1]), ["sloppy", "shape"]),
        (tensor(TensorData.from_raw(b"\x01\0\0\0a\0\0\0\0", "BYTES", [2, 1]), [2, 1]), ["a", ""]),
    ],
)
def test_decode_text(given_: RequestInput, expected: list[Any]) -> None:
    assert StringCodec.decode_input(given_) == expected


@pytest.mark.parametrize(
    "given_, named", [(tensor([1], datatype="INT32"), "int"), (tensor([b"\xff"]), "UTF-8")]
)
def test_elements_that_are_not_text(given_: RequestInput, named: str) -> None:
    with pytest.raises(CodecError, match=f"tensor 'x' of content type str.*{named}"):
        StringCodec.decode_input(given_)


# -- base64 --


@given(blobs=st.lists(st.binary()))
def test_base64_round_trip(blobs: list[bytes]) -> None:
    for use_bytes in (True, False):
        assert (
            Base64Codec.decode_input(Base64Codec.encode_input("x", blobs, use_bytes=use_bytes))
            == blobs
        )


def test_base64_elements() -> None:
    assert Base64Codec.encode_output("x", ["Python"]).data.root == [b"UHl0aG9u"]
    assert Base64Codec.decode_input(tensor(["UHl0aG9u", None])) == [b"Python", None]
    assert Base64Codec.decode_input(tensor([b"\xff raw"])) == [b"\xff raw"]


@pytest.mark.parametrize("data", [["!!"], ["é"], [1]])
def test_text_that_is_not_base64_is_refused(data: list[Any]) -> None:
    with pytest.raises(CodecError, match="tensor 'x' of content type base64"):
        Base64Codec.decode_input(tensor(data))


# -- datetime --


@given(times=st.lists(st.datetimes(timezones=st.none() | st.just(dt.UTC))))
def test_datetime_round_trip(times: list[dt.datetime], over_json: OverJson) -> None:
    encoded = DatetimeCodec.encode_input("x", times)
    assert DatetimeCodec.decode_input(encoded) == times


def test_datetime_elements() -> None:
    assert DatetimeCodec.encode_output(
        "x", ["2020-01-01", dt.datetime(2020, 1, 2), None]
    ).data.root == [*(b"2020-01-01", b"2020-01-02T00:00:00", b"NaT")]
    assert DatetimeCodec.decode_input(tensor(["2020-01-01T00:00:00Z", None, b"NaT"])) == [
        *(dt.datetime(2020, 1, 1, tzinfo=dt.UTC), None, None)
    ]
    with pytest.raises(CodecError, match=r"tensor 'x' of content type datetime.*'soon'"):
        DatetimeCodec.decode_input(tensor(["soon"]))


# -- JSON --

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@given(values=st.lists(JSON))
def test_json_round_trip(values: list[Any]) -> None:
    assert JsonColumnCodec.decode_input(JsonColumnCodec.encode_input("x", values)) == values


def test_json_of_arrays_and_times() -> None:
    value = {
        "a": np.array([[1, 2]]).T,
        "b": np.float32(0.5),
        "c": dt.date(2020, 1, 2),
        "d": b"x",
        "e": float("nan"),
        "f": 2**70,
    }
    expected = b'{"a":[[1],[2]],"b":0.5,"c":"2020-01-02","d":"x","e":null}'
    assert (
        encode_to_json_bytes({key: part for key, part in value.items() if key != "f"}) == expected
    )
    assert json.loads(encode_to_json({"f": 2**70, "a": np.array([1])})) == {"f": 2**70, "a": [1]}
    assert encode_to_json([1, "é"], use_bytes=False) == '[1,"é"]'
    assert json.dumps([np.int64(1), {2}], cls=JSONEncoderWithArray) == "[1, [2]]"


def test_json_elements() -> None:
    assert decode_from_bytelike_json_to_dict(b'{"a": 1}') == {"a": 1}
    assert decode_json_input_or_output(tensor(['{"a": 1}', b"2"])) == [{"a": 1}, 2]
    assert JsonColumnCodec.decode_input(tensor([{"a": 1}, "null"])) == [{"a": 1}, None]


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, b"\xff"])
def test_invalid_json(text: Any) -> None:
    with pytest.raises(CodecError, match="tensor 'x' of content type pd_json: expected JSON"):
        JsonColumnCodec.decode_input(tensor([text]))


def test_values_without_a_json_form() -> None:
    with pytest.raises(CodecError, match="type object"):
        encode_to_json_bytes(object())


# -- lists --


def test_lists() -> None:
    assert is_list_of([], str)
    assert is_list_of(["a"], str)
    assert not is_list_of(["a", 1], str)
    assert not is_list_of(("a",), str)
    assert is_list_of(["a", 1], (str, int))
    assert as_list("abc") == ["abc"]
    assert as_list(TensorData([1, 2])) == [1, 2]
    assert as_list((1, 2)) == [1, 2]

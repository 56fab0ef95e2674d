"""Selection of codecs by content type, payload and type hint, without imports."""

from __future__ import annotations

import datetime as dt
import logging
import subprocess
import sys
from typing import Annotated, Any, ClassVar, List, Union  # noqa: UP035

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from mlserver import codecs
from mlserver.codecs.base import (
    find_input_codec,
    find_input_codec_by_payload,
    find_input_codec_by_type_hint,
    find_request_codec,
    find_request_codec_by_payload,
    find_request_codec_by_type_hint,
)
from mlserver.codecs.hints import unwrap_optional
from mlserver.types import RequestInput, ResponseOutput


class Point:
    def __init__(self, x: float) -> None:
        self.x = x


class PointCodec(codecs.InputCodec):
    ContentType = "point"
    TypeHint: ClassVar[Any] = Point

    @classmethod
    def can_encode(cls, payload: Any) -> bool:
        return isinstance(payload, Point)

    @classmethod
    def encode_output(cls, name: str, payload: Any, **kwargs: Any) -> ResponseOutput:
        return ResponseOutput(name=name, shape=[1], datatype="FP64", data=[payload.x])

    @classmethod
    def decode_input(cls, request_input: RequestInput) -> Point:
        return Point(request_input.data[0])


@pytest.mark.parametrize(
    "content_type, codec",
    [
        ("np", codecs.NumpyCodec),
        ("str", codecs.StringCodec),
        ("base64", codecs.Base64Codec),
        ("datetime", codecs.DatetimeCodec),
        ("pd", None),
        ("unknown", None),
    ],
)
def test_input_codec_by_content_type(content_type: str, codec: Any) -> None:
    assert find_input_codec(content_type) is codec


@pytest.mark.parametrize(
    "content_type, codec",
    [
        ("np", codecs.NumpyRequestCodec),
        ("str", codecs.StringRequestCodec),
        ("pd", codecs.PandasCodec),
        ("base64", None),
    ],
)
def test_request_codec_by_content_type(content_type: str, codec: Any) -> None:
    assert find_request_codec(content_type) is codec


@pytest.mark.parametrize(
    "payload, codec, request_codec",
    [
        ([], codecs.StringCodec, codecs.StringRequestCodec),
        (["a"], codecs.StringCodec, codecs.StringRequestCodec),
        ([b"a"], codecs.Base64Codec, None),
        ([dt.datetime(2020, 1, 1)], codecs.DatetimeCodec, None),
        (np.array([]), codecs.NumpyCodec, codecs.NumpyRequestCodec),
        (pd.DataFrame(), None, codecs.PandasCodec),
        ([1], None, None),
        (None, None, None),
    ],
)
def test_codec_by_payload(payload: Any, codec: Any, request_codec: Any) -> None:
    assert find_input_codec_by_payload(payload) is codec
    assert find_request_codec_by_payload(payload) is request_codec
    if payload is not None:
        assert find_input_codec(payload=payload) is codec


@pytest.mark.parametrize(
    "hint, codec",
    [
        (np.ndarray, codecs.NumpyCodec),
        (npt.NDArray[np.float64], codecs.NumpyCodec),
        (Annotated[np.ndarray, "rows"], codecs.NumpyCodec),
        (list[str], codecs.StringCodec),
        (List[str], codecs.StringCodec),  # noqa: UP006
        (list[bytes], codecs.Base64Codec),
        (list[dt.datetime], codecs.DatetimeCodec),
        (List[Union[str, dt.datetime]], codecs.DatetimeCodec),  # noqa: UP006, UP007
        (list[dt.datetime | str], codecs.DatetimeCodec),
        (list[int], None),
        (str, None),
        (None, None),
        (type(None), None),
    ],
)
def test_codec_by_type_hint(hint: Any, codec: Any) -> None:
    assert find_input_codec_by_type_hint(hint) is codec
    assert find_input_codec(type_hint=hint) is codec


def test_request_codec_by_type_hint() -> None:
    assert find_request_codec_by_type_hint(pd.DataFrame) is codecs.PandasCodec


def test_optional_hints() -> None:
    assert unwrap_optional(np.ndarray | None) == (np.ndarray, True)
    assert unwrap_optional(list[str]) == (list[str], False)
    assert unwrap_optional(int | str | None) == (int | str, True)
    assert unwrap_optional(int | str) == (int | str, False)


def test_a_custom_codec_is_selected_by_every_criterion() -> None:
    assert codecs.register_input_codec(PointCodec) is PointCodec
    assert find_input_codec("point") is PointCodec
    assert find_input_codec_by_payload(Point(1)) is PointCodec
    assert find_input_codec_by_type_hint(Point) is PointCodec


def test_instances_register_and_the_last_is_used() -> None:
    first, last = PointCodec(), PointCodec()
    codecs.register_input_codec(first)
    codecs.register_input_codec(last)
    assert find_input_codec("point") is last


def test_derived_methods() -> None:
    encoded = PointCodec.encode_input("x", Point(2.5))
    assert isinstance(encoded, RequestInput)
    assert PointCodec.decode_output(ResponseOutput(**encoded.model_dump())).x == 2.5


def test_deprecated_names_work_and_warn(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("mlserver"), "propagate", True)
    output = PointCodec.encode("x", Point(2.5))
    assert PointCodec.decode(RequestInput(**output.model_dump())).x == 2.5
    response = codecs.StringRequestCodec.encode("m", ["a"])
    assert response.outputs[0].name == "output-1"
    request = codecs.StringRequestCodec.encode_request(["a"])
    assert codecs.StringRequestCodec.decode(request) == ["a"]
    assert [record.message.count("DEPRECATED") for record in caplog.records] == [1] * 4


def test_missing_methods_raise() -> None:
    for call in (
        lambda: codecs.InputCodec.encode_output("x", 1),
        lambda: codecs.InputCodec.decode_input(
            RequestInput(name="x", shape=[1], datatype="FP32", data=[1])
        ),
        lambda: codecs.RequestCodec.encode_response("m", 1),
        lambda: codecs.RequestCodec.encode_request(1),
    ):
        with pytest.raises(NotImplementedError, match="Codec does not"):
            call()


LIGHT = """
import sys
import mlserver.codecs
from mlserver import MLModel
from mlserver.codecs.base import *
assert find_input_codec_by_payload(object()) is None
assert find_request_codec_by_type_hint(dict) is None
assert find_input_codec("str") is mlserver.codecs.StringCodec
assert not {"numpy", "pandas", "fastapi", "grpc"} & set(sys.modules), sorted(sys.modules)
assert find_input_codec("np").ContentType == "np"
assert "numpy" in sys.modules and "pandas" not in sys.modules
"""


def test_importing_codecs_loads_no_library() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        codecs.nope  # noqa: B018
    assert set(codecs.__all__) <= set(dir(codecs))

"""Large JSON requests give the same requests and errors as `wire.json`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver.errors import MLServerError
from mlserver.tensor import DATATYPES, TensorError
from mlserver.types import InferenceRequest
from mlserver.wire import json, large_json

pytest.importorskip("simdjson")
TEN = list(range(10))


def body_of(*inputs: Any, **fields: Any) -> bytes:
    return orjson.dumps({"inputs": list(inputs), **fields})


def build_tensor(
    data: Any, datatype: str = "FP32", shape: list[int] | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "name": "x",
        "shape": [len(data)] if shape is None else shape,
        "datatype": datatype,
        "data": data,
        **more,
    }


def normalized(read: Any) -> Any:
    """The content of a request with numbers as bytes, or the text of its error."""
    try:
        request: InferenceRequest = read()
        for tensor in request.inputs:
            tensor.data.normalize(str(tensor.datatype), tensor.shape)
    except (MLServerError, TensorError) as error:
        return str(error)
    kept = [
        (
            tensor.name,
            tensor.shape,
            tensor.datatype,
            tensor.parameters,
            bytes(tensor.data.raw or b""),
            tensor.data.root,
        )
        for tensor in request.inputs
    ]
    return kept, request.id, request.parameters, request.outputs


def assert_the_same(body: bytes) -> None:
    document = large_json.read_document(body)
    if document is not None:
        assert normalized(lambda: json.validate_document(document)) == normalized(
            lambda: json.validate_document(json.read_json(body))
        )


SURE: dict[str, bytes] = {
    "flat": body_of(build_tensor([0.5] * 10)),
    "nested": body_of(build_tensor([TEN, TEN], "INT64", [2, 10])),
    "nested, flat shape": body_of(build_tensor([TEN, TEN], "FP64", [20])),
    "narrow": body_of(build_tensor([*TEN[2:], 127, -128], "INT8")),
    "unsigned": body_of(build_tensor([2**64 - 1, *TEN], "UINT64")),
    "signed": body_of(build_tensor([2**63 - 1, -(2**63), *TEN], "INT64")),
    "rounded once": body_of(build_tensor([2**53 + 1, 2**63 + 2**39 + 1, 16777217, *TEN])),
    "negative zero": body_of(build_tensor([-0.0, *TEN])),
    "half": body_of(build_tensor([65504, 0.1, *TEN], "FP16")),
    "texts and flags beside": body_of(
        build_tensor([1.5] * 9),
        {**build_tensor(["a", "b"], "BYTES"), "name": "y"},
        build_tensor([True], "BOOL"),
    ),
    "everything": body_of(
        build_tensor(TEN, parameters={"content_type": "np", "deep": {"a": None}}),
        id="7",
        parameters={"n": 2**60, "flag": False},
        outputs=None,
    ),
}


@pytest.mark.parametrize("case", SURE)
def test_read_here(case: str) -> None:
    assert large_json.read_document(SURE[case]) is not None
    assert_the_same(SURE[case])


DOUBTFUL: dict[str, bytes] = {
    "missing values": body_of(build_tensor([None, *TEN])),
    "flags as numbers": body_of(build_tensor([True, *TEN])),
    "texts as numbers": body_of(build_tensor(["1", *TEN])),
    "fractions": body_of(build_tensor([1.5, *TEN], "INT32")),
    "beyond FP32": body_of(build_tensor([1e39, *TEN])),
    "beyond INT8": body_of(build_tensor([128, *TEN], "INT8")),
    "below zero": body_of(build_tensor([-1, *TEN], "UINT64")),
    "too few": body_of(build_tensor(TEN, shape=[11])),
    "too many": body_of(build_tensor(TEN, shape=[2, 3])),
    "ragged": body_of(build_tensor([TEN, TEN[1:]], shape=[19])),
    "a list in a row": body_of(build_tensor([TEN, [*TEN[1:], [10]]], shape=[2, 10])),
    "lists that cancel": body_of(build_tensor([[*TEN, []], [*TEN, [1, 2]]], shape=[2, 11])),
    "numbers beside rows": body_of(build_tensor([1, TEN], shape=[11])),
    "rows of little": body_of(build_tensor([[1]] * 20, shape=[20, 1])),
    "three levels": body_of(build_tensor([[TEN], [TEN]], shape=[2, 1, 10])),
    "outputs": body_of(build_tensor(TEN), outputs=[{"name": "y"}]),
    "brackets in a name": body_of({**build_tensor(TEN), "name": "x[0]"}),
    "no shape": orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "data": TEN}]}),
    "a shape of text": body_of({**build_tensor(TEN), "shape": ["10"]}),
    "a negative shape": body_of(build_tensor(TEN, shape=[-1])),
    "an enormous shape": body_of(build_tensor(TEN, shape=[10**18, 10**18])),
    "an unknown datatype": body_of(build_tensor(TEN, "FLOAT")),
    "a datatype twice": body_of(build_tensor(TEN)).replace(
        b'"datatype"', b'"datatype":"INT8","datatype"'
    ),
    "inputs twice": body_of(build_tensor(TEN)).replace(b'{"inputs"', b'{"inputs":[],"inputs"'),
    "inputs is none": b'{"inputs": null}',
    "an input is a number": b'{"inputs": [1]}',
    "data is none": b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": 1}]}',
    "a list": b"[1]",
    "nothing": b"",
    "a mark": b"\xef\xbb\xbf" + body_of(build_tensor(TEN)),
    "cut": body_of(build_tensor(TEN))[:-1],
    "more behind": body_of(build_tensor(TEN)) + b" 1",
    "1e400": body_of(build_tensor(TEN)).replace(b"[0,", b"[1e400,"),
    "NaN": body_of(build_tensor(TEN)).replace(b"[0,", b"[NaN,"),
    "over 64 bits": body_of(build_tensor(TEN)).replace(b"[0,", b"[18446744073709551616,"),
    "bad UTF-8": body_of(build_tensor(TEN)).replace(b'"x"', b'"\xff"'),
    "half a surrogate": body_of(build_tensor(TEN)).replace(b'"x"', b'"\\ud800"'),
    "deep": body_of(build_tensor(TEN)).replace(b"[0,", b"[" * 5000 + b"]" * 5000 + b","),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_read_by_wire_json(case: str) -> None:
    assert_the_same(DOUBTFUL[case])


NUMBERS = st.one_of(
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.booleans(),
    st.none(),
    st.just(-0.0),
    st.text(max_size=2),
)
ROWS = st.lists(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=8, max_size=9), max_size=3
)
DATA = st.one_of(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20),
    st.lists(st.integers(-130, 300), max_size=20),
    st.lists(NUMBERS, max_size=12),
    ROWS,
    st.lists(st.one_of(NUMBERS, st.lists(NUMBERS)), max_size=10),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(DATA, st.sampled_from(DATATYPES), st.lists(st.integers(0, 12), max_size=2)),
        max_size=2,
    )
)
def test_any_request(tensors: list[tuple[Any, str, list[int]]]) -> None:
    inputs = [
        {"name": str(at), "datatype": datatype, "shape": shape or [len(data)], "data": data}
        for at, (data, datatype, shape) in enumerate(tensors)
    ]
    text = orjson.dumps({"inputs": inputs}) if _fits(inputs) else b""
    assert_the_same(text)


def _fits(inputs: Any) -> bool:
    try:
        orjson.dumps(inputs)
    except TypeError:
        return False
    return True


def test_small_bodies_are_read_by_wire_json() -> None:
    large = body_of(build_tensor([0.5] * 50_000))
    small = body_of(build_tensor([0.5] * 100))

    assert json.read_request(large).inputs[0].data.representations == ("raw",)
    assert json.read_request(small).inputs[0].data.representations == ("root",)


def test_without_simdjson() -> None:
    code = (
        "import sys; sys.modules['simdjson'] = None\n"
        "from mlserver.wire import json\n"
        'head = b\'{"inputs":[{"name":"x","shape":[50000],"datatype":"FP32","data":[\'\n'
        "body = head + b'0.5,' * 49999 + b'1]}]}'\n"
        "assert len(json.read_request(body).inputs[0].data.root) == 50000"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

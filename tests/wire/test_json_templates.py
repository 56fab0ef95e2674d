"""A body read by its layout is what the parser makes of it, or the parser reads it."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver.errors import InvalidPayload
from mlserver.types import InferenceRequest
from mlserver.types.row_block import PackedRequest, packed
from mlserver.wire import json as wire
from mlserver.wire import json_templates

DATATYPES = ["FP64", "FP32", "INT64", "INT32", "UINT8"]
# Number tokens as callers write them: plain, and on every border of what a layout may take.
TOKENS = (
    st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.integers(-(2**70), 2**70).map(str)
    | st.decimals(-1000, 1000, places=6).map(lambda value: f"{value:f}")
    | st.text("0123456789.-+eE", min_size=1, max_size=22)
    | st.sampled_from(
        [
            "-0",
            "-0.0",
            "0",
            "0.0",
            "1e400",
            "1E5",
            "01",
            "1.",
            ".5",
            "9007199254740993",
            "NaN",
            "255",
            "256",
        ]
    )
)
IDS = st.none() | st.text(max_size=8) | st.sampled_from(['a"b', "a\\", '"id"', "1"])


# What may stand beside the inputs. Some hold what looks like the data or the id of a request.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from([0.5, "1", '"data": [1]', '"id": "1"'])
)
NAMES = st.sampled_from(["content_type", "k", "id", "data", "timeout"])
PARAMETERS = st.dictionaries(NAMES, SCALARS | st.just([1]), max_size=2)
OUTPUTS = st.lists(
    st.fixed_dictionaries({"name": st.text(max_size=3)}, optional={"parameters": PARAMETERS}),
    max_size=2,
)
RESTS = st.fixed_dictionaries(
    {}, optional={"parameters": st.none() | PARAMETERS, "outputs": st.none() | OUTPUTS}
)


def body(
    datatype: str,
    names: list[str],
    tokens: list[str],
    request_id: str | None,
    first: bool,
    rest: dict[str, Any] | None = None,
) -> bytes:
    tensors = ", ".join(
        f'{{"name": {json.dumps(name)}, "shape": [1], "datatype": "{datatype}", "data": [{token}]}}'
        for name, token in zip(names, tokens, strict=True)
    )
    inputs = f'"inputs": [{tensors}]'
    own = [f'"{name}": {json.dumps(value)}' for name, value in (rest or {}).items()]
    if request_id is not None:
        own.append(f'"id": {json.dumps(request_id)}')
    return ("{" + ", ".join([*own, inputs] if first else [inputs, *own]) + "}").encode()


def parsed(data: bytes) -> Any:
    """What the validator makes of it."""
    try:
        document = wire.read_json(data)
        request = wire.request_of(document)
    except InvalidPayload as error:
        return error.message
    return shown(request)


def shown(request: InferenceRequest) -> Any:
    """What a request says, with its numbers in the datatypes that they will have."""
    for tensor in request.inputs:
        tensor.data.normalize(str(tensor.datatype), tensor.shape)
    return request.model_dump()


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_layout_reads_what_the_parser_reads(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(DATATYPES))
    names = data.draw(
        st.lists(
            st.text(max_size=6) | st.sampled_from(['"data": [1]', "data", "id", '"id": "1"']),
            min_size=1,
            max_size=4,
        )
    )
    first = data.draw(st.booleans())
    plain = ["1"] * len(names)
    with_id = data.draw(st.booleans())
    rest = data.draw(RESTS)
    seen = body(datatype, names, plain, "x" if with_id else None, first, rest)
    request = wire.one_row(wire.read_json(seen))
    layout = json_templates.learn(seen, request) if isinstance(request, PackedRequest) else None
    if layout is None:
        return
    for _ in range(3):
        tokens = data.draw(st.lists(TOKENS, min_size=len(names), max_size=len(names)))
        own = body(datatype, names, tokens, data.draw(IDS), data.draw(st.booleans()), rest)
        found = layout.read(own)
        if found is not None:
            assert shown(found) == parsed(own)


@given(
    st.sampled_from(DATATYPES),
    st.lists(st.integers(0, 255), min_size=1, max_size=5),
    st.none() | st.uuids().map(str),
)
def test_plain_bodies_have_a_layout(
    datatype: str, values: list[int], request_id: str | None
) -> None:
    names = [f"x{at}" for at in range(len(values))]
    one = body(datatype, names, ["7"] * len(values), request_id, True)
    request = wire.one_row(wire.read_json(one))
    assert request is not None
    layout = json_templates.learn(one, request)
    assert layout is not None
    found = layout.read(
        body(datatype, names, [str(value) for value in values], request_id and "other", True)
    )
    assert found is not None
    assert found.id == (request_id and "other")
    rows = packed(found)
    assert rows is not None
    code = {"FP64": "d", "FP32": "f", "INT64": "q", "INT32": "i", "UINT8": "B"}[datatype]
    assert list(struct.unpack(f"<{len(values)}{code}", rows.block)) == values


def test_reading_is_the_same_from_the_first_body_to_the_hundredth() -> None:
    for at in range(100):
        one = body(
            "FP64",
            ["a layout", "b"],
            [f"{at}.25", f"-{at}.5e0" if at % 7 == 0 else "0.1"],
            f"id-{at}",
            at % 2 == 0,
        )
        assert shown(wire.read_request(one)) == parsed(one)
        bad = body("FP64", ["a layout", "b"], ["1.0", "x"], None, True)
        with pytest.raises(InvalidPayload):
            wire.read_request(bad)


def test_what_is_done_to_one_request_stays_with_it() -> None:
    rest = {"parameters": {"timeout": 5}, "outputs": [{"name": "y", "parameters": {"k": 1}}]}
    for at in range(json_templates.SEEN_BEFORE + 2):
        request = wire.read_request(body("FP64", ["changed"], [f"{at}.5"], None, True, rest))
        assert request.model_dump()["parameters"] == {"timeout": 5}
        assert request.model_dump()["outputs"] == rest["outputs"]
        assert request.parameters is not None
        assert request.outputs is not None
        (request.parameters.model_extra or {}).pop("timeout")
        (request.outputs.pop().parameters.model_extra or {}).clear()  # type: ignore[union-attr]


def test_only_so_many_patterns_are_made() -> None:
    own = json_templates.Layouts()
    for at in range(json_templates.MOST_PATTERNS * 2):
        one = body("FP64", [f"column {at}"], ["1"], None, True)
        request = wire.one_row(wire.read_json(one))
        assert request is not None
        for _ in range(json_templates.SEEN_BEFORE):
            own.saw(one, request)
    made = sum(
        own.read(body("FP64", [f"column {at}"], ["1"], None, True)) is not None for at in range(256)
    )
    assert made == json_templates.MOST_PATTERNS

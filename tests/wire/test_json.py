"""JSON: invalid bodies, fields of the wrong type, error texts, numbers as text."""

from __future__ import annotations

import json as library
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.batching.batch import split
from mlserver.errors import InvalidPayload, MLServerError
from mlserver.handlers.validation import check_request
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataServerResponse,
    Parameters,
    RequestOutput,
    ResponseOutput,
    RowBlockRequest,
    TensorData,
)
from mlserver.wire import json, json_client

GOOD = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}


def refusal(body: bytes) -> InvalidPayload:
    with pytest.raises(InvalidPayload) as error:
        json.read_request(body)
    assert error.value.status_code == 400
    assert len(error.value.message) < 600
    assert error.value.faults
    assert all(fault["loc"][0] == "body" for fault in error.value.faults)
    return error.value


@pytest.mark.parametrize(
    "body, words",
    [
        (b"", "an empty body"),
        (b" ", "line 1 column"),
        (b"inputs", "line 1 column 1"),
        (b'{"inputs": [}', "line 1 column 13"),
        (b'{"inputs": []} x', "line 1 column"),
        (b'{"a": NaN}', "line 1"),
        (b'{"a": Infinity}', "line 1"),
        (b'{"a": 01}', "line 1"),
        (b'{"a": "\xff"}', "line 1"),
        (b'{"a": "\\ud800"}', "line 1"),
        (b'{"a": "\x01"}', "line 1"),
        (b"\xef\xbb\xbf{}", "line 1"),
        (b"[" * 100_000, "Invalid body"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "Invalid body"),
        (b"[]", "an object with 'inputs', received []"),
        (b"null", "received None"),
        (b'"inputs"', "received 'inputs'"),
        (b"1e999", "Invalid body"),
        (b"{}", "Invalid inputs: this field is required and missing"),
        (b'{"dataframe_split": {}}', "MLflow models accept it at /invocations"),
        (b'{"inputs": {}}', "Invalid inputs: it should be a valid list, received {}"),
        (b'{"inputs": [1]}', "Invalid inputs[0]"),
        (b'{"inputs": [{}]}', "Invalid inputs[0].name: this field is required and missing"),
        (b'{"inputs": [], "id": 7}', "Invalid id: it should be a valid string, received 7"),
        (b'{"inputs": [], "parameters": []}', "Invalid parameters"),
        (b'{"inputs": [], "outputs": [{}]}', "Invalid outputs[0].name"),
    ],
)
def test_bodies_that_are_not_requests(body: bytes, words: str) -> None:
    assert words in refusal(body).message


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("name", 7, "inputs[0].name: it should be a valid string, received 7"),
        ("name", None, "inputs[0].name"),
        ("shape", 1, "inputs[0].shape: it should be a valid list"),
        ("shape", [1.5], "inputs[0].shape[0]"),
        ("shape", ["a"], "inputs[0].shape[0]"),
        ("shape", None, "inputs[0].shape"),
        ("datatype", "fp32", "inputs[0].datatype"),
        ("datatype", None, "inputs[0].datatype"),
        ("datatype", ["FP32"], "inputs[0].datatype"),
        ("parameters", 1, "inputs[0].parameters"),
        ("parameters", {"content_type": 1}, "inputs[0].parameters.content_type"),
    ],
)
def test_fields_of_the_wrong_type(field: str, value: Any, words: str) -> None:
    body = {"inputs": [GOOD["inputs"][0] | {field: value}]}

    assert words in refusal(library.dumps(body).encode()).message


@pytest.mark.parametrize("field", ["name", "shape", "datatype", "data"])
def test_missing_fields(field: str) -> None:
    tensor = {key: value for key, value in GOOD["inputs"][0].items() if key != field}

    assert (
        f"Invalid inputs[0].{field}: this field is required and missing"
        in refusal(library.dumps({"inputs": [tensor]}).encode()).message
    )


def test_all_faults_are_listed() -> None:
    error = refusal(b'{"inputs": [{"name": 1}], "id": 2}')

    assert {".".join(map(str, fault["loc"])) for fault in error.faults} == {
        "body.id",
        "body.inputs.0.name",
        "body.inputs.0.shape",
        "body.inputs.0.datatype",
        "body.inputs.0.data",
    }


def test_a_large_value_is_not_repeated() -> None:
    refusal(library.dumps({"inputs": [{"name": ["x" * 10**6]}]}).encode())
    refusal(library.dumps("x" * 10**6).encode())


@given(
    st.dictionaries(
        st.sampled_from(["inputs", "id", "parameters", "outputs", "more"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.floats(allow_nan=False)
            | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), inner
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_any_document_is_a_request_or_refused(document: Any) -> None:
    try:
        body = orjson.dumps(document)
    except TypeError:
        return
    try:
        check_request(json.read_request(body))
    except MLServerError as error:
        assert error.status_code == 400  # noqa: PT017 - either end is right


TENSOR = {
    "name": st.text(max_size=3) | st.none(),
    "shape": st.lists(
        st.integers(-1, 3) | st.sampled_from([2**31, 2**63, True, 1.0, "1"]), max_size=3
    ),
    "datatype": st.sampled_from(
        ["FP32", "INT8", "UINT64", "BOOL", "BYTES", "FP16", "BF16", "FP99", "", None]
    ),
    "data": st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=10,
    ),
}


@given(st.lists(st.fixed_dictionaries({}, optional=TENSOR), max_size=2))
def test_any_tensors_are_normalized_or_refused(tensors: Any) -> None:
    try:
        request = json.read_request(orjson.dumps({"inputs": tensors}))
        check_request(request)
    except MLServerError as error:
        assert error.status_code == 400  # noqa: PT017 - either end is right
        return
    for tensor in request.inputs:
        assert tensor.data.to_array(str(tensor.datatype), tensor.shape).shape == tuple(tensor.shape)


# -- the fast path of plain bodies must agree with the validator --


@given(
    st.lists(st.fixed_dictionaries(TENSOR), max_size=2),
    st.none() | st.text(max_size=3) | st.integers(0, 9),
)
def test_plain_requests_equal_the_validated_ones(tensors: Any, request_id: Any) -> None:
    document = {"inputs": tensors, "id": request_id}

    def read(document: Any) -> Any:
        try:
            return json.validate_document(document).model_dump()
        except InvalidPayload as error:
            return error.faults

    plain = orjson.loads(orjson.dumps(document))
    assert read(plain) == read(
        plain | {"parameters": None}
    )  # which says nothing, but is not the plain form


# -- writing --


def written(datatype: str, data: Any, shape: list[int] | None = None, **fields: Any) -> str:
    tensor_data = TensorData.from_array(data) if isinstance(data, np.ndarray) else TensorData(data)
    output = ResponseOutput(
        name="y", datatype=datatype, shape=shape or [len(data)], data=tensor_data
    )
    tensor_data.normalize(datatype, output.shape)
    return json.write_response(
        InferenceResponse(model_name="m", outputs=[output], **fields)
    ).decode()


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize(
    "datatype, value, text",
    [
        ("BOOL", True, "true"),
        ("UINT64", 2**64 - 1, "18446744073709551615"),
        ("INT64", -(2**63), "-9223372036854775808"),
        ("FP64", 0.1, "0.1"),
        ("FP64", 1e300, "1e+300"),
        ("FP32", 0.1, "0.10000000149011612"),
        ("FP16", 0.1, "0.0999755859375"),
        ("FP64", float("nan"), "null"),
        ("FP32", float("inf"), "null"),
        ("FP16", float("-inf"), "null"),
        ("FP64", -0.0, "-0.0"),
    ],
)
def test_numbers_as_text(datatype: str, value: Any, text: str, count: int) -> None:
    """Few numbers and many are written by different functions, with the same text."""
    data = json_data(written(datatype, [value] * count))

    assert data.split(",") == [text.replace("e+", "e")] * count or data.split(",") == [text] * count


def json_data(body: str) -> str:
    return body[body.index('"data":[') + 8 : body.rindex("]}]")]


def test_responses_have_only_fields_that_are_set() -> None:
    empty = InferenceResponse(model_name="m", outputs=[])
    assert json.write_response(empty) == b'{"model_name":"m","parameters":{},"outputs":[]}'

    full = InferenceResponse(
        model_name="m",
        model_version="1",
        id="i",
        outputs=[],
        parameters=Parameters(content_type="np", k=None),
    )
    assert library.loads(json.write_response(full)) == {
        "model_name": "m",
        "model_version": "1",
        "id": "i",
        "parameters": {"content_type": "np", "k": None},
        "outputs": [],
    }


def test_bytes_that_are_not_text() -> None:
    with pytest.raises(
        MLServerError, match="Output 'y' holds bytes that are not UTF-8 text"
    ) as error:
        written("BYTES", [b"\xff"])
    assert error.value.status_code == 406


@pytest.mark.parametrize(
    "value, text",
    [
        (np.float32(0.5), "0.5"),
        (np.array([1]), "[1]"),
        (b"a", '"a"'),
        (TensorData([1]), "[1]"),
        (1j, '"1j"'),
        (RequestOutput(name="y"), '{"name":"y"}'),
    ],
)
def test_parameters_of_any_type(value: Any, text: str) -> None:
    body = written("INT8", [1], parameters=Parameters(k=value))

    assert f'"parameters":{{"k":{text}}}' in body


@pytest.mark.parametrize(
    "fields, is_fast",
    [
        ({}, True),
        ({"parameters": {"a": 1}, "outputs": [{"name": "y", "parameters": {"b": 2}}]}, True),
        ({"parameters": {"headers": {}}}, False),
        ({"parameters": {"content_type": "np"}, "outputs": []}, True),
        ({"outputs": [{"name": "y", "parameters": {"headers": {}}}]}, False),
    ],
)
def test_one_row_of_plain_fields_takes_the_fast_path(fields: dict[str, Any], is_fast: bool) -> None:
    """Requests that need the validator take the slow path; both paths read the same fields."""
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [0.5]}
    document = {"id": "mine", "inputs": [tensor], **fields}
    request = json.read_request(library.dumps(document).encode())
    assert isinstance(request, RowBlockRequest) == is_fast
    validated = InferenceRequest.model_validate(document)
    for field in ("id", "parameters", "outputs"):
        assert getattr(request, field) == getattr(validated, field), field


def test_errors_and_messages() -> None:
    assert json.write_error(MLServerError('a "b" é')) == '{"error":"a \\"b\\" é"}'.encode()
    message = MetadataServerResponse(name="s", version="1", extensions=[])
    assert json.write_message(message) == b'{"name":"s","version":"1","extensions":[]}'


def test_round_trip() -> None:
    request = InferenceRequest.model_validate(GOOD)

    assert json.read_request(orjson.dumps(request.model_dump(mode="json"))) == request


@pytest.mark.parametrize("is_share", [False, True])
@pytest.mark.parametrize("datatype, dtype", [("FP16", "f2"), ("FP32", "f4"), ("FP64", "f8")])
@pytest.mark.parametrize("count", [1, 40])
def test_infinities_are_null_and_their_positions_a_parameter(
    is_share: bool, datatype: str, dtype: str, count: int
) -> None:
    array = np.array([[np.inf, 0.5], [np.nan, -np.inf]] * count, dtype)
    output = ResponseOutput(
        name="y", shape=[2 * count, 2], datatype=datatype, data=TensorData.from_array(array)
    )
    response = InferenceResponse(
        model_name="m", outputs=[output], parameters=Parameters(content_type="np")
    )
    if is_share:
        response, _ = split(response, [2 * count - 1, 1])
        array = array[:-1]
    body = json.write_response(response)
    shown = orjson.loads(body)["outputs"][0]
    flat = array.ravel().tolist()
    assert shown["data"] == [value if np.isfinite(value) else None for value in flat]
    assert shown["parameters"]["infinity"] == [
        at for at, value in enumerate(flat) if value == np.inf
    ]
    negative = [at for at, value in enumerate(flat) if value == -np.inf]
    assert shown["parameters"].get("negative_infinity", []) == negative
    read = json_client.read_response(body).outputs[0]
    assert np.array_equal(read.data.to_array(datatype, read.shape), array, equal_nan=True)


@pytest.mark.parametrize("name", ["y", "u" * 10, "u" * 100, "a null value", "nul", "ull"])
@pytest.mark.parametrize("value", [0.5, np.inf])
@pytest.mark.parametrize("count", [1, 5000])
def test_infinities_are_found_beside_any_text(name: str, value: float, count: int) -> None:
    numbers = [0.25] * (count - 1) + [value]
    outputs = [
        ResponseOutput(name=name, shape=[1], datatype="BYTES", data=TensorData([name])),
        ResponseOutput(name="last", shape=[count], datatype="FP64", data=TensorData(numbers)),
    ]
    body = json.write_response(InferenceResponse(model_name=name, outputs=outputs))
    read = json_client.read_response(body).outputs[1]
    assert read.data.to_array("FP64", read.shape).tolist() == numbers


def test_nan_has_no_parameter() -> None:
    output = ResponseOutput(name="y", shape=[2], datatype="FP64", data=TensorData([1.0, None]))
    shown = orjson.loads(json.write_response(InferenceResponse(model_name="m", outputs=[output])))[
        "outputs"
    ][0]
    assert shown == {"name": "y", "shape": [2], "datatype": "FP64", "data": [1.0, None]}

"""Events: copies that change neither request nor response, their sizes, and their JSON."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from mlserver.batching.batch import split
from mlserver.errors import MLServerError
from mlserver.handlers.validation import check_request
from mlserver.payload_log.encoding import encode_body, encode_line, list_unknown_masks
from mlserver.payload_log.events import ModelLog, copy_error, copy_request, copy_response
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
    RowBlock,
    RowBlockRequest,
    TensorData,
)
from mlserver.types.row_block import OutputSliceResponse

LOG = ModelLog("wine", "3", 65536)
NAN = float("nan")
SECRET = "123456.75"


def masked_log(*masks: str, inputs: tuple[str, ...] = ()) -> ModelLog:
    return ModelLog("wine", "3", 65536, masks=frozenset(masks), inputs=frozenset(inputs))


def request_of(*tensors: tuple[str, str, list[int], Any], **fields: Any) -> InferenceRequest:
    """A validated request, as a stage gets it."""
    inputs = [
        RequestInput(name=name, datatype=datatype, shape=shape, data=data)
        for name, datatype, shape, data in tensors
    ]
    request = InferenceRequest(id="r1", inputs=inputs, **fields)
    check_request(request)
    return request


def rows_request(values: list[float], names: tuple[str, ...]) -> InferenceRequest:
    block = struct.pack(f"<{len(values)}d", *values)
    return RowBlockRequest.from_rows(
        RowBlock(names, "FP64", (), len(values) // len(names), block), "r1"
    )


def response_of(*outputs: ResponseOutput, **fields: Any) -> InferenceResponse:
    return InferenceResponse(model_name="wine", outputs=list(outputs), **fields)


def line(event: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encode_line(event))
    return document


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("FP64", [0.1, NAN], [0.1, None]),
        ("FP32", [0.5, 2.0], [0.5, 2.0]),
        ("FP16", [0.5, NAN], [0.5, None]),
        ("INT64", [2**53 + 1, -1], [2**53 + 1, -1]),
        ("UINT64", [2**64 - 1, 0], [2**64 - 1, 0]),
        ("BOOL", [True, False], [True, False]),
        ("BYTES", ["a", None], ["a", None]),
        ("BYTES", [b"a", "snow \u2603"], ["a", "snow \u2603"]),
        ("BYTES", [{"role": "user"}, ["x"]], [{"role": "user"}, ["x"]]),
    ],
)
def test_every_datatype_is_logged_as_json(datatype: str, data: Any, expected: Any) -> None:
    logged = line(copy_request(LOG, request_of(("x", datatype, [2], data))))
    assert logged["inputs"] == [{"name": "x", "shape": [2], "datatype": datatype, "data": expected}]
    assert (logged["type"], logged["id"], logged["model"], logged["version"]) == (
        "request",
        "r1",
        "wine",
        "3",
    )


def test_bytes_that_are_not_text_are_logged_as_base64() -> None:
    logged = line(copy_request(LOG, request_of(("x", "BYTES", [2], [b"\xff\x00", "a"]))))
    (tensor,) = logged["inputs"]
    assert tensor["data"] == ["/wA=", "YQ=="]
    assert tensor["parameters"]["content_type"] == "base64"


def test_a_row_block_is_logged_by_column_and_stays_a_block() -> None:
    request = rows_request([1.0, 2.0, 3.0, NAN], ("a", "b"))
    logged = line(copy_request(LOG, request))
    assert request.rows is not None
    assert [(tensor["name"], tensor["data"]) for tensor in logged["inputs"]] == [
        ("a", [1.0, 3.0]),
        ("b", [2.0, None]),
    ]


def test_the_slice_of_a_batch_is_logged_and_stays_a_slice() -> None:
    raw = struct.pack("<3d", 1.0, 2.0, 3.0)
    output = ResponseOutput(
        name="y", datatype="FP64", shape=[3, 1], data=TensorData.from_raw(raw, "FP64", [3, 1])
    )
    first, second = split(response_of(output), [1, 2])
    assert isinstance(second, OutputSliceResponse)
    logged = line(copy_response(LOG, second, "r1"))
    assert second.output_slice is not None
    assert logged["outputs"] == [
        {"name": "y", "shape": [2, 1], "datatype": "FP64", "data": [2.0, 3.0]}
    ]
    assert line(copy_response(LOG, first, "r2"))["outputs"][0]["data"] == [1.0]


@pytest.mark.parametrize(
    "data",
    [
        TensorData([0.1, 0.2]),
        TensorData.from_array(np.array([0.1, 0.2])),
        TensorData.from_raw(struct.pack("<2f", 0.1, 0.2), "FP32", [2]),
    ],
    ids=["elements", "array", "raw"],
)
def test_a_copy_adds_no_representation(data: TensorData) -> None:
    """The front end would write other digits for a number with bytes than for its element."""
    before = data.representations
    event = copy_response(
        LOG, response_of(ResponseOutput(name="y", datatype="FP32", shape=[2], data=data)), "r1"
    )
    encode_line(event)
    assert data.representations == before


def test_later_changes_of_a_message_are_not_logged() -> None:
    array = np.array([1.0, 2.0])
    elements = ["a", {"k": 1}]
    response = response_of(
        ResponseOutput(name="y", datatype="FP64", shape=[2], data=TensorData.from_array(array)),
        ResponseOutput(name="z", datatype="BYTES", shape=[2], data=TensorData(elements)),
    )
    event = copy_response(LOG, response, "r1")
    array[:] = 9
    elements[0] = "changed"
    elements[1]["k"] = 2  # type: ignore[index]
    response.outputs.clear()
    assert [tensor["data"] for tensor in line(event)["outputs"]] == [[1.0, 2.0], ["a", {"k": 1}]]


def test_parameters_are_logged_without_headers() -> None:
    parameters = Parameters(content_type="pd", headers={"authorization": SECRET}, limit=3)
    request = request_of(("x", "FP64", [1], [1.0]), parameters=parameters)
    logged = line(copy_request(LOG, request))
    assert logged["parameters"] == {"content_type": "pd", "limit": 3}
    assert SECRET not in encode_body(copy_request(LOG, request)).decode()


@pytest.mark.parametrize(
    "request_message",
    [
        request_of(("x", "FP64", [5], [1.0] * 5)),
        request_of(("x", "BYTES", [1], ["long enough to be too long for it"])),
        request_of(("x", "BYTES", [1], [{"text": "long enough", "more": [1, 2, 3]}])),
        rows_request([1.0] * 6, ("x",)),
    ],
    ids=["numbers", "text", "objects", "rows"],
)
def test_tensors_over_max_bytes_are_logged_without_data(request_message: InferenceRequest) -> None:
    event = copy_request(ModelLog("wine", None, 32), request_message)
    assert event.size < 2000
    (tensor,) = line(event)["inputs"]
    assert "data" not in tensor
    assert tensor["parameters"]["omitted_bytes"] > 32


def test_an_event_counts_the_bytes_that_it_holds() -> None:
    event = copy_request(LOG, request_of(("x", "BYTES", [1], ["a" * 5000])))
    assert event.size > 5000
    large = Parameters(note="n" * 70_000)
    event = copy_request(LOG, request_of(("x", "FP64", [1], [1.0]), parameters=large))
    assert event.size < 5000
    assert line(event)["parameters"] == {"omitted": True}


@pytest.mark.parametrize(
    "request_message",
    [
        request_of(("age", "BYTES", [1], [SECRET]), ("x", "FP64", [1], [1.0])),
        request_of(("age", "FP64", [1], [float(SECRET)]), ("x", "FP64", [1], [1.0])),
        request_of((" age", "FP64", [1], [float(SECRET)]), ("x", "FP64", [1], [1.0])),
        rows_request([float(SECRET), 1.0], ("age", "x")),
        request_of(("x", "FP64", [1], [1.0]), parameters=Parameters.from_values({"age": SECRET})),
        # Rows of unnamed columns: the masked one may be among them.
        request_of(("matrix", "FP64", [1, 2], [float(SECRET), 1.0]), ("x", "FP64", [1], [1.0])),
    ],
    ids=["text", "number", "spaces", "rows", "parameter", "matrix"],
)
def test_masked_values_are_not_logged(request_message: InferenceRequest) -> None:
    event = copy_request(masked_log("age", inputs=("age", "x")), request_message)
    for text in (encode_line(event).decode(), encode_body(event).decode()):
        assert SECRET not in text
        assert "1.0" in text


def test_outputs_with_the_name_of_a_mask_are_masked() -> None:
    output = ResponseOutput(name="age", datatype="FP64", shape=[1], data=[float(SECRET)])
    event = copy_response(masked_log("age"), response_of(output), "r1")
    assert SECRET not in encode_line(event).decode()


def test_the_text_of_an_error_is_not_logged() -> None:
    error = MLServerError(f"expected a number, received {SECRET}", 422)
    logged = line(copy_error(LOG, error, "r1"))
    assert logged["error"] == {"code": error.code, "status": 422}
    assert SECRET not in json.dumps(logged)
    assert line(copy_error(LOG, ValueError(SECRET), None))["error"]["status"] == 500


def test_the_body_of_an_event_is_a_v2_message() -> None:
    output = ResponseOutput(name="y", datatype="FP64", shape=[1], data=[1.0])
    body = json.loads(encode_body(copy_response(LOG, response_of(output), "r1")))
    assert InferenceResponse.model_validate(body).outputs[0].data.root == [1.0]
    assert (body["id"], body["model_name"], body["model_version"]) == ("r1", "wine", "3")


def test_masks_that_name_nothing_are_listed() -> None:
    assert list_unknown_masks(masked_log("agee", "x", inputs=("x",)), ["y"]) == ["agee"]
    assert list_unknown_masks(masked_log("agee"), []) == []

"""Joining and splitting: a request gets the same response in a batch and alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver.batching.batch import RowsDisagree, batch_key, join, rows_of, split
from mlserver.tensor import DTYPES, join_bytes_block
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    ResponseOutput,
    TensorData,
)

NUMBERS = [name for name in DTYPES if name != "BOOL"]
TEXTS = st.text(max_size=5) | st.binary(max_size=5)
REPRESENTATIONS = ("list", "nested", "array", "raw")


def request(*inputs: RequestInput, **fields: Any) -> InferenceRequest:
    request = InferenceRequest(inputs=list(inputs), **fields)
    for tensor in request.inputs:
        tensor.data.normalize(str(tensor.datatype), tensor.shape)
    return request


def tensor(
    name: str, datatype: str, shape: list[int], elements: list[Any], representation: str = "list"
) -> RequestInput:
    """An input with its data in one of the possible representations."""
    data = TensorData(elements)
    if representation == "array" and datatype != "BYTES":
        data = TensorData.from_array(data.to_array(datatype, shape))
    elif representation == "raw":
        raw = join_bytes_block(elements) if datatype == "BYTES" else data.to_raw(datatype, shape)
        data = TensorData.from_raw(raw, datatype, shape)
    elif representation == "nested" and len(shape) == 2:
        data = TensorData([elements[at * shape[1] : (at + 1) * shape[1]] for at in range(shape[0])])
    return RequestInput(name=name, datatype=datatype, shape=shape, data=data)


@st.composite
def batches(draw: st.DrawFn) -> list[InferenceRequest]:
    """Requests with equal names, datatypes, inner shapes, parameters and outputs."""
    columns = draw(
        st.lists(
            st.tuples(st.sampled_from([*DTYPES, "BYTES"]), st.lists(st.integers(1, 3), max_size=2)),
            min_size=1,
            max_size=3,
        )
    )
    parameters = draw(
        st.none() | st.dictionaries(st.sampled_from(["content_type", "k"]), st.text(max_size=3))
    )
    outputs = draw(st.none() | st.lists(st.sampled_from(["out0", "out1"]), max_size=2, unique=True))
    payloads = []
    for rows in draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)):
        inputs = []
        for index, (datatype, inner) in enumerate(columns):
            shape = [rows, *inner]
            representation = draw(st.sampled_from(REPRESENTATIONS))
            count = math.prod(shape)
            element = (
                TEXTS if datatype == "BYTES" else st.integers(0, 1 if datatype == "BOOL" else 100)
            )
            inputs.append(
                tensor(
                    f"in{index}",
                    datatype,
                    shape,
                    draw(st.lists(element, min_size=count, max_size=count)),
                    representation,
                )
            )
        fields: dict[str, Any] = {
            "outputs": None if outputs is None else [{"name": name} for name in outputs]
        }
        payloads.append(request(*inputs, parameters=parameters, **fields))
    return payloads


def row_wise(request: InferenceRequest, keep_rank: bool = True) -> InferenceResponse:
    """The response of a row-wise model: each input doubled (strings reversed) and its sums."""
    outputs = []
    for index, tensor in enumerate(request.inputs):
        datatype, shape = str(tensor.datatype), tensor.shape
        array = tensor.data.to_array(datatype, shape)
        if datatype == "BYTES":
            data = TensorData([element[::-1] for element in array.ravel()])
            outputs.append(
                ResponseOutput(name=f"out{index}", datatype="BYTES", shape=shape, data=data)
            )
            continue
        doubled = array if datatype == "BOOL" else array + array
        outputs.append(
            ResponseOutput(
                name=f"out{index}",
                datatype=datatype,
                shape=shape,
                data=TensorData.from_array(doubled),
            )
        )
        sums = array.reshape(shape[0], -1).sum(axis=1, dtype="f8")
        # As codecs do: the array keeps its rank, and the output's shape has one more column.
        shown = [shape[0]] if keep_rank else [shape[0], 1]
        outputs.append(
            ResponseOutput(
                name=f"sum{index}", datatype="FP64", shape=shown, data=TensorData.from_array(sums)
            )
        )
    parameters = (
        None if request.parameters is None else Parameters.from_values(request.parameters.to_dict())
    )
    return InferenceResponse(model_name="m", outputs=outputs, parameters=parameters)


def visible_fields(response: InferenceResponse) -> Any:
    """The fields of a response that a client can read."""
    return [
        (
            output.name,
            output.datatype,
            output.shape,
            list(output.data.block_shape or []) if str(output.datatype) != "BYTES" else None,
            output.data.to_array(str(output.datatype), output.shape).ravel().tolist(),
        )
        for output in response.outputs
    ], response.parameters


@given(batches(), st.booleans())
@settings(max_examples=150)
def test_batched_equals_unbatched(requests: list[InferenceRequest], keep_rank: bool) -> None:
    assert len({repr(batch_key(request)) for request in requests}) == 1
    alone = [visible_fields(row_wise(request, keep_rank)) for request in requests]
    rows = [rows_of(request) for request in requests]

    joined = join(requests)
    assert rows_of(joined) == sum(rows)
    answers = split(row_wise(joined, keep_rank), rows)

    assert [visible_fields(answer) for answer in answers] == alone


@given(batches())
@settings(max_examples=50)
def test_responses_share_no_mutable_object(requests: list[InferenceRequest]) -> None:
    answers = split(
        row_wise(join([*requests, *requests])),
        [rows_of(request) for request in [*requests, *requests]],
    )
    answers[0].id = "first"
    answers[0].outputs.pop()
    if answers[0].parameters is not None:
        answers[0].parameters.headers = {"a": "b"}

    assert visible_fields(answers[-1]) == visible_fields(row_wise(requests[-1]))
    assert answers[-1].id is None


# -- which requests may be joined --


def simple(rows: int = 1, **fields: Any) -> InferenceRequest:
    return request(tensor("x", "FP32", [rows, 2], [0.5] * 2 * rows), **fields)


DIFFERENT: dict[str, InferenceRequest] = {
    "name": request(tensor("y", "FP32", [1, 2], [0.5, 0.5])),
    "datatype": request(tensor("x", "FP64", [1, 2], [0.5, 0.5])),
    "inner shape": request(tensor("x", "FP32", [1, 3], [0.5] * 3)),
    "rank": request(tensor("x", "FP32", [1], [0.5])),
    "one more input": request(tensor("x", "FP32", [1, 2], [1, 1]), tensor("y", "FP32", [1], [1])),
    "content type": simple(parameters={"content_type": "pd"}),
    "a parameter": simple(parameters={"k": 1}),
    "an output": simple(outputs=[{"name": "o"}]),
    "no output": simple(outputs=[]),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_requests_that_differ(what: str) -> None:
    assert batch_key(DIFFERENT[what]) != batch_key(simple())


@pytest.mark.parametrize(
    "first, other",
    [(1, True), (1, 1.0), (0, False), (1, "1"), (None, 0), ([1], [True]), (0.0, -0.0)],
)
def test_parameters_of_another_type_differ(first: Any, other: Any) -> None:
    """A model may distinguish `true` from 1, which are equal in Python."""
    assert batch_key(simple(parameters={"k": first})) != batch_key(simple(parameters={"k": other}))
    with_output = [
        simple(outputs=[{"name": "o", "parameters": {"k": value}}]) for value in (first, other)
    ]
    assert batch_key(with_output[0]) != batch_key(with_output[1])


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "1"},
        {"parameters": {}},
        {"parameters": {"headers": {"a": "b"}}},
        {"parameters": None},
    ],
)
def test_ids_and_headers_do_not_prevent_joining(fields: dict[str, Any]) -> None:
    assert batch_key(simple(5, **fields)) == batch_key(simple())


@pytest.mark.parametrize(
    "shapes, rows",
    [
        ([[3]], 3),
        ([[3, 2], [3]], 3),
        ([[3], [2]], 0),
        ([[]], 0),
        ([[3], []], 0),
        ([[], [3]], 0),
        ([[0]], 0),
        ([[0], [3]], 0),
        ([[3], [0]], 0),
        ([], 0),
    ],
)
def test_rows(shapes: list[list[int]], rows: int) -> None:
    inputs = [
        tensor(str(at), "INT8", shape, [0] * math.prod(shape)) for at, shape in enumerate(shapes)
    ]

    assert rows_of(request(*inputs)) == rows


def test_headers_equal_in_all_requests_are_kept() -> None:
    def with_headers(**headers: str) -> InferenceRequest:
        return simple(parameters={"content_type": "np", "headers": headers})

    joined = join([with_headers(a="1", b="2"), with_headers(a="1", b="3", c="4")])
    assert joined.parameters is not None
    assert joined.parameters.to_dict() == {"content_type": "np", "headers": {"a": "1"}}

    without = join([simple(parameters={"headers": {"a": "1"}}), simple()])
    assert without.parameters is not None
    assert not without.parameters.headers


def test_numbers_are_joined_without_lists() -> None:
    requests = [simple(rows) for rows in (1, 2)]
    joined = join(requests)

    assert joined.inputs[0].data.representations == ("raw",)
    assert all(request.inputs[0].data.representations == ("raw",) for request in requests)


def test_tensors_that_are_not_normalized_are_joined() -> None:
    """A pipeline of models joins requests that a model has created, in any representation."""
    lists = [RequestInput(name="x", datatype="FP32", shape=[1], data=TensorData([0.5]))]
    arrays = TensorData.from_array(np.array([1.5, 2.5], dtype="<f4"))
    created = [
        InferenceRequest(inputs=lists),
        InferenceRequest(inputs=[RequestInput(name="x", datatype="FP32", shape=[2], data=arrays)]),
        request(tensor("x", "FP32", [1], [3.5])),
    ]
    joined = join(created).inputs[0]
    assert joined.data.representations == ("raw",)
    assert joined.data.to_array("FP32", joined.shape).tolist() == [0.5, 1.5, 2.5, 3.5]


def test_raw_texts_are_joined_without_lists() -> None:
    requests = [request(tensor("x", "BYTES", [1], [text], "raw")) for text in ("a", "bc")]
    joined = join(requests).inputs[0]
    assert joined.data.representations == ("raw",)
    assert joined.data.root == [b"a", b"bc"]


def test_text_and_binary_elements_in_one_batch() -> None:
    requests = [
        request(tensor("x", "BYTES", [1], ["é"])),
        request(tensor("x", "BYTES", [2], [b"\xff", b""], "raw")),
        request(tensor("x", "BYTES", [1], [None])),
    ]

    assert join(requests).inputs[0].data.root == ["é", b"\xff", b"", None]


# -- responses that cannot be split --


def answer(*outputs: ResponseOutput) -> InferenceResponse:
    return InferenceResponse(model_name="m", outputs=list(outputs))


def output(shape: list[int], data: Any, datatype: str = "FP32") -> ResponseOutput:
    tensor_data = TensorData.from_array(data) if isinstance(data, np.ndarray) else TensorData(data)
    return ResponseOutput(name="y", datatype=datatype, shape=shape, data=tensor_data)


@pytest.mark.parametrize(
    "response",
    [
        answer(),
        answer(output([], [1.0])),
        answer(output([1], [1.0])),
        answer(output([2], [1.0, 2.0])),
        answer(output([4], [1.0] * 4)),
        answer(output([1, 3], [1.0] * 3)),
        answer(output([2], ["a", "b"], "BYTES")),
        answer(output([3], [1.0] * 3), output([2], [1.0] * 2)),
        answer(output([3, 1], np.ones((1, 3), "f4"))),
        answer(output([3, 1], np.ones((), "f4"))),
    ],
)
def test_responses_with_another_number_of_rows_are_not_split(response: InferenceResponse) -> None:
    with pytest.raises(RowsDisagree):
        split(response, [1, 2])


def test_outputs_without_elements() -> None:
    first, second = split(answer(output([3, 0], [])), [1, 2])

    assert (first.outputs[0].shape, second.outputs[0].shape) == ([1, 0], [2, 0])
    assert second.outputs[0].data.root == []


def test_parts_are_views() -> None:
    array = np.arange(6, dtype="f4").reshape(3, 2)
    first, second = split(answer(output([3, 2], array)), [1, 2])
    array[0, 0], array[2, 1] = 8, 9

    assert first.outputs[0].data.root == [8, 1]
    assert second.outputs[0].data.root == [2, 3, 4, 9]

"""V2 requests for signatures without names, with integer names, and with names that no request
can have.

A model receives the frame that MLflow builds: column 0 for a list, columns 2, 0 and 1 for a frame
with them. Every response is the same over JSON, binary data and gRPC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.protocols import infer, infer_by_all
from support.repository import tensor, write_settings
from support.server import Server, run_mlserver
from support.signature_models import ORDERS, UNUSABLE

RUNTIME = "mlserver_mlflow.MLflowRuntime"
# Texts of scikit-learn's warnings.
WARNINGS = ("valid feature names", "has feature names")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, signature_models: Path) -> Path:
    """A repository with these models."""
    repository = tmp_path_factory.mktemp("repository")
    for model in (path.parent for path in signature_models.glob("*/MLmodel")):
        write_settings(
            repository / model.name,
            name=model.name,
            implementation=RUNTIME,
            parameters={"uri": str(model)},
        )
    return repository


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with Server(folder, workers=2, tracebacks=True) as started:
        yield started


def described(server: Server, model: str, inputs: list[dict[str, Any]]) -> Any:
    """The model's description of its input."""
    answer = infer_by_all(server, model, inputs)
    assert isinstance(answer, list), answer
    return json.loads(answer[0][3][0])


def inputs_of(server: Server, model: str) -> list[dict[str, Any]]:
    return list(server.get(f"/v2/models/{model}").json()["inputs"])


def predictions(server: Server, model: str, body: dict[str, Any]) -> Any:
    return server.post(f"/v2/models/{model}/invocations", body).json()["predictions"]


# -- signatures without names --


@pytest.mark.parametrize("name", ["input-0", "text", "inputs", "0"])
@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_texts_become_the_column_that_mlflow_makes_of_a_list(
    server: Server, name: str, shape: list[int]
) -> None:
    texts = ["good", "bad", "also good"]
    sent = tensor(name, texts, "BYTES", shape)

    assert described(server, "describe-texts", [sent]) == [[0], [texts]]
    answer = infer_by_all(server, "classify", [sent])
    assert isinstance(answer, list), answer
    assert (
        answer[0][3]
        == predictions(server, "classify", {"inputs": texts})
        == ["POSITIVE", "NEGATIVE", "POSITIVE"]
    )


def test_a_pipeline_of_text_answers_once_per_text(server: Server) -> None:
    texts = ["good fine", "bad sad", "nice"]
    answer = infer_by_all(server, "text-column", [tensor("input-0", texts, "BYTES")])
    assert isinstance(answer, list), answer
    assert (
        answer[0][3]
        == predictions(server, "text-column", {"inputs": texts})
        == ["pos", "neg", "pos"]
    )


def test_a_pipeline_that_cannot_take_mlflows_frame_refuses_over_v2_as_well(server: Server) -> None:
    """TfidfVectorizer reads the names of a frame's columns.

    MLflow's is the number 0, not a text.
    """
    texts = ["good fine", "bad sad", "nice"]
    body = {"inputs": texts}
    assert server.post("/v2/models/text-direct/invocations", body).status_code == 400
    answer = infer(server, "text-direct", [tensor("input-0", texts, "BYTES")], "json")
    assert "'int' object has no attribute 'lower'" in answer


def test_several_columns_come_by_position_or_by_the_names_of_the_metadata(server: Server) -> None:
    columns = [
        tensor("p", [1.5, 2.5], "FP64"),
        tensor("q", [3, 4], "INT64"),
        tensor("r", ["a", "b"], "BYTES"),
    ]
    expected = [[0, 1, 2], [[1.5, 2.5], [3, 4], ["a", "b"]]]
    assert described(server, "describe-three", columns) == expected

    named = [input_tensor | {"name": f"input-{at}"} for at, input_tensor in enumerate(columns)]
    assert described(server, "describe-three", named) == expected
    assert described(server, "describe-three", [named[2], named[0], named[1]]) == expected


@pytest.mark.parametrize(
    "names", [["input-1", "input-0", "r"], ["p", "q"], ["p", "q", "r", "s"], ["q", "input-0", "r"]]
)
def test_names_that_leave_the_order_open_are_refused(server: Server, names: list[str]) -> None:
    inputs = [tensor(name, [1.0], "FP64") for name in names]
    for protocol in ("json", "grpc typed"):
        answer = infer(server, "describe-numbers", inputs, protocol)
        assert "expected 3 inputs, by position or as 'input-0', 'input-1', 'input-2'" in answer


def test_one_tensor_of_rows_and_columns_is_all_columns(server: Server) -> None:
    rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    sent = tensor("x", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "FP64", [2, 3])
    expected = [[0, 1, 2], [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]]
    assert described(server, "describe-numbers", [sent]) == expected
    assert json.loads(predictions(server, "describe-numbers", {"inputs": rows})[0]) == expected


@pytest.mark.slow
def test_check_passes_and_examples_are_answered(server: Server, folder: Path) -> None:
    for model in ("classify", "describe-three", "order-201", "unusable"):
        document = server.get(f"/v2/models/{model}/docs/dataplane.json")
        assert document.status_code == 200
    code, printed = run_mlserver("check", str(folder / "classify"))
    assert code == 0, printed


# -- scikit-learn's warnings --


@pytest.mark.parametrize("model", ["fit-array", "forest-array", "fit-201", "fit-02", "text-column"])
def test_no_request_makes_scikit_learn_warn_about_names(server: Server, model: str) -> None:
    types = {"FP64": 0.5, "FP32": 0.5, "BYTES": "good"}
    inputs = [
        tensor(
            input_tensor["name"],
            [types[input_tensor["datatype"]]] * 2,
            input_tensor["datatype"],
            [2, 1],
        )
        for input_tensor in inputs_of(server, model)
    ]
    for _ in range(3):
        assert isinstance(infer_by_all(server, model, inputs), list)
    assert not [text for text in WARNINGS if text in server.log]


def test_an_array_for_a_model_that_was_fitted_with_names_warns_as_little(server: Server) -> None:
    values = [1.0, 2.0, 3.0]
    for _ in range(3):
        answer = infer_by_all(server, "fit-frame", [tensor("x", values, "FP64", [1, 3])])
        assert isinstance(answer, list), answer
        assert answer[0][3][0] == pytest.approx(1 - 2 * 2 + 0.5 * 3)
    assert not [text for text in WARNINGS if text in server.log]


# -- names that are not text --


@pytest.mark.parametrize("model", ORDERS)
def test_columns_come_under_the_labels_of_the_signature(server: Server, model: str) -> None:
    labels = ORDERS[model]
    inputs = [tensor(str(label), [float(at), at + 10.0], "FP64") for at, label in enumerate(labels)]
    expected = [labels, [[float(at), at + 10.0] for at in range(len(labels))]]

    assert [input_tensor["name"] for input_tensor in inputs_of(server, model)] == [
        str(label) for label in labels
    ]
    assert described(server, model, inputs) == expected
    assert described(server, model, inputs[::-1]) == expected


@pytest.mark.parametrize("model", ORDERS)
def test_tensors_come_under_the_names_of_the_signature(server: Server, model: str) -> None:
    labels = ORDERS[model]
    inputs = [
        tensor(str(label), [float(at), at + 10.0], "FP64", [1, 2])
        for at, label in enumerate(labels)
    ]
    expected = [[label, [[float(at), at + 10.0]]] for at, label in enumerate(labels)]

    assert described(server, f"tensor-{model}", inputs) == expected
    assert described(server, f"tensor-{model}", inputs[::-1]) == expected


def test_the_columns_of_an_estimator_are_not_mixed_up(server: Server) -> None:
    inputs = {"2": 1.0, "0": 2.0, "1": 3.0}
    sent = [tensor(name, [value], "FP64") for name, value in inputs.items()]
    forward, backward = (infer_by_all(server, "fit-201", order) for order in (sent, sent[::-1]))
    assert isinstance(forward, list), forward
    assert forward == backward
    with_zero = infer_by_all(
        server, "fit-02", [tensor("2", [2.0], "FP64"), tensor("0", [1.0], "FP64")]
    )
    body = {"dataframe_split": {"columns": [0, 2], "data": [[1.0, 2.0]]}}
    assert isinstance(with_zero, list)
    assert with_zero[0][3] == predictions(server, "fit-02", body)


def test_invocations_reads_integer_names_as_mlflow_does(server: Server) -> None:
    body = {"dataframe_split": {"columns": ["0", "2"], "data": [[1.0, 2.0]]}}
    answer = server.post("/v2/models/order-02/invocations", body)
    assert answer.status_code == 400
    assert "missing inputs [0, 2]" in answer.json()["message"]


# -- names that no request can have --


def test_the_metadata_lists_names_that_requests_may_use(server: Server) -> None:
    listed = inputs_of(server, "unusable")
    assert [input_tensor["name"] for input_tensor in listed] == [
        "input-0",
        "input-1",
        "input-2",
        "plain",
    ]
    assert [input_tensor["parameters"].get("mlflow_name") for input_tensor in listed] == [
        *UNUSABLE[:3],
        None,
    ]
    inputs = [
        tensor(input_tensor["name"], [float(at)], "FP64") for at, input_tensor in enumerate(listed)
    ]
    assert described(server, "unusable", inputs) == [UNUSABLE, [[0.0], [1.0], [2.0], [3.0]]]
    server.wait_for_line("input 'a\\nb' of the signature is named 'input-0' in V2 requests")


def test_two_names_of_the_same_text_are_told_apart(server: Server) -> None:
    assert [input_tensor["name"] for input_tensor in inputs_of(server, "same-text")] == [
        "input-0",
        "input-1",
        "c",
    ]
    inputs = [
        tensor("input-0", [1.0], "FP64"),
        tensor("input-1", [2.0], "FP64"),
        tensor("c", ["x"], "BYTES"),
    ]
    assert described(server, "same-text", inputs) == [["1", 1, "c"], [[1.0], [2.0], ["x"]]]


# -- lists in columns --


@pytest.mark.parametrize("shape", [[2, 2], [1, 4], [4, 1], [0, 3], [2, 0]])
def test_lists_of_text_come_as_rows_of_a_bytes_tensor(server: Server, shape: list[int]) -> None:
    count = shape[0] * shape[1]
    texts = [f"t{at}" for at in range(count)]
    rows = [texts[row * shape[1] : (row + 1) * shape[1]] for row in range(shape[0])]
    sent = tensor("words", texts, "BYTES", shape, parameters={"content_type": "str"})
    assert described(server, "lists-words", [sent]) == [["words"], [rows]]
    if shape[1] != 1:
        assert described(server, "lists-words", [tensor("words", texts, "BYTES", shape)]) == [
            ["words"],
            [rows],
        ]


def test_one_json_text_per_row_is_still_read(server: Server) -> None:
    for shape in ([2], [2, 1]):
        sent = tensor("words", ['["a", "b"]', "[]"], "BYTES", shape)
        assert described(server, "lists-words", [sent]) == [["words"], [[["a", "b"], []]]]


def test_nested_lists_and_lists_of_bytes(server: Server) -> None:
    nested = tensor("nested", ["a", "b", "c", "d"], "BYTES", [1, 2, 2])
    assert described(server, "lists-nested", [nested]) == [["nested"], [[[["a", "b"], ["c", "d"]]]]]
    blobs = tensor("blobs", ["aGk=", "aG8="], "BYTES", [1, 2])
    assert described(server, "lists-blobs", [blobs]) == [["blobs"], [[["b'hi'", "b'ho'"]]]]
    numbers = tensor("numbers", ["a", "b"], "BYTES", [1, 2])
    assert "numbers" in infer(server, "lists-numbers", [numbers], "json")


# -- params that are lists --


def test_lists_among_the_params_are_json_text_over_grpc(server: Server) -> None:
    inputs = [tensor("x", ["a"], "BYTES")]
    expected = {"stop": ["a", "b"], "temperature": 0.25, "counts": [1, 2, 3], "name": "[1]"}
    as_text = {"stop": '["a", "b"]', "temperature": 0.25, "counts": "[1, 2, 3]", "name": "[1]"}
    for parameters in (expected, as_text):
        answer = infer_by_all(server, "params", inputs, parameters=parameters)
        assert isinstance(answer, list), answer
        assert json.loads(answer[0][3][0]) == expected


@pytest.mark.parametrize("value", ["x", "[1", "5", '{"a": 1}'])
def test_text_that_is_no_list_is_refused(server: Server, value: str) -> None:
    for protocol in ("json", "grpc typed"):
        answer = infer(
            server, "params", [tensor("x", ["a"], "BYTES")], protocol, parameters={"stop": value}
        )
        assert "stop" in answer


# -- categories of LightGBM --


@pytest.mark.parametrize("model", ["lightgbm-regressor", "lightgbm-booster", "lightgbm-classifier"])
def test_lightgbm_gets_the_categories_that_it_was_trained_with(
    server: Server, signature_models: Path, model: str
) -> None:
    pytest.importorskip("lightgbm")
    answers = json.loads((signature_models / "lightgbm.json").read_text())
    types = {"text": "BYTES", "number": "FP64", "size": "INT64", "flag": "BOOL"}
    inputs = [tensor(name, values, types[name]) for name, values in answers["rows"].items()]

    answer = infer_by_all(server, model, inputs)
    assert isinstance(answer, list), answer
    assert answer[0][3] == answers[model]
    if model == "lightgbm-classifier":
        expected = infer_by_all(server, model, inputs, outputs=[{"name": "predict_proba"}])
        assert isinstance(expected, list)
        assert expected[0][3] == answers["probabilities"]

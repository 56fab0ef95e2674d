"""The payload log of a running server: every protocol, masks, receivers that fail, processes."""

from __future__ import annotations

import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.models import WINE, Models
from support.repository import tensor, write_model, write_server_settings, write_settings
from support.server import Server, run_mlserver
from support.slow import slow

# Values of the masked inputs, which no file may have in any form, and values that are logged.
SECRET, OTHER_SECRET = 123456.75, 654321.25
SECRET_TEXTS = ("123456.75", "654321.25", "MTIzNDU2")
ROW = WINE | {"alcohol": SECRET, "pH": OTHER_SECRET, "density": 0.875}
INPUTS = [
    {"name": "age", "datatype": "FP64", "shape": [-1]},
    {"name": "x", "datatype": "FP64", "shape": [-1]},
]


def read_events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def of_kind(events: list[dict[str, Any]], kind: str, model: str) -> list[dict[str, Any]]:
    return [event for event in events if (event["type"], event["model"]) == (kind, model)]


def values(event: dict[str, Any]) -> dict[str, Any]:
    tensors = event.get("inputs", event.get("outputs"))
    assert tensors is not None
    return {tensor["name"]: tensor.get("data") for tensor in tensors}


@pytest.fixture(scope="module")
def logged(
    models: Models, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """The events of the requests of `send_all`, by the request's id, after the server's exit."""
    folder = tmp_path_factory.mktemp("payload")
    (folder / "logs").mkdir()
    write_server_settings(folder, payload_log={"to": "logs/payload.jsonl", "sample": 1.0})
    write_model(folder / "echo", inputs=INPUTS, payload_log={"mask": ["age", "agee"]})
    write_settings(
        folder / "wine",
        implementation="mlserver_mlflow.MLflowRuntime",
        parameters={"uri": str(models["wine"])},
        payload_log={"mask": ["alcohol", "pH"]},
    )
    write_model(folder / "silent", "Echo", payload_log={"sample": 0})
    with Server(folder) as server:
        send_all(server)
        assert "payload_log.mask': expected names of inputs or outputs" in server.log
        assert "'agee'" in server.log
    path = folder / "logs" / "payload.jsonl"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    text = path.read_text()
    assert not [secret for secret in SECRET_TEXTS if secret in text]
    events: dict[str, list[dict[str, Any]]] = {}
    for event in read_events(path):
        events.setdefault(event["id"] or "", []).append(event)
    return events


def send_all(server: Server) -> None:
    """Send a request per protocol and format."""
    both = [tensor("age", [SECRET], "FP64"), tensor("x", [1.5], "FP64")]
    assert server.infer("echo", both, id="v2-json").status_code == 200
    assert server.infer("silent", both, id="silent").status_code == 200
    assert server.infer("echo", [tensor("age", ["no"], "FP64")], id="invalid").status_code == 400
    head = {
        "id": "binary",
        "inputs": [
            {
                "name": name,
                "shape": [1],
                "datatype": "FP64",
                "parameters": {"binary_data_size": 8},
            }
            for name in ("age", "x")
        ],
    }
    text = json.dumps(head).encode()
    body = text + struct.pack("<2d", SECRET, 2.5)
    headers = {"inference-header-content-length": str(len(text))}
    assert server.post("/v2/models/echo/infer", body, headers=headers).status_code == 200
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        message = pb.ModelInferRequest(model_name="echo", id="grpc")
        for name, value in (("age", SECRET), ("x", 3.5)):
            message.inputs.add(name=name, datatype="FP64", shape=[1])
            message.raw_input_contents.append(struct.pack("<d", value))
        stub.ModelInfer(message, timeout=60)
        message.id = "stream"
        assert len(list(stub.ModelStreamInfer(iter([message, message]), timeout=60))) == 2
    send_tables(server)


def send_tables(server: Server) -> None:
    """Send the wine row as V2 columns, and in the forms of /invocations."""
    columns = [tensor(name, [value], "FP64") for name, value in ROW.items()]
    assert server.infer("wine", columns, id="v2-columns").status_code == 200
    matrix = tensor("matrix", list(ROW.values()), "FP64", [1, len(ROW)])
    server.infer("wine", [matrix], id="matrix")
    split = {"columns": list(ROW), "data": [list(ROW.values())]}
    path = "/v2/models/wine/invocations"
    assert server.post(path, {"dataframe_split": split}).status_code == 200
    with_index = {"dataframe_split": split | {"index": [0]}}
    assert server.post(path, with_index).status_code == 200
    assert server.post(path, {"dataframe_records": [ROW | {"new": SECRET}]}).status_code == 200
    text = f"{','.join(ROW)}\n{','.join(map(str, ROW.values()))}\n"
    as_csv = {"content-type": "text/csv"}
    assert server.post(path, text, headers=as_csv).status_code == 200
    for wrong in (f"alcohol\n{SECRET},1\n", f'a,"\n{SECRET}', f"{SECRET}"):
        assert server.post(path, wrong, headers=as_csv).status_code == 400
    for wrong in (f'{{"dataframe_split": {SECRET}}}', f"[{SECRET}]", f"{SECRET}"):
        assert server.post(path, wrong).status_code == 400


Events = dict[str, list[dict[str, Any]]]


@pytest.mark.parametrize(("request_id", "x"), [("v2-json", 1.5), ("binary", 2.5), ("grpc", 3.5)])
def test_a_request_and_its_response_are_logged(logged: Events, request_id: str, x: float) -> None:
    request, response = logged[request_id]
    assert (request["type"], response["type"]) == ("request", "response")
    assert values(request) == values(response) == {"age": None, "x": [x]}
    assert request["time"] <= response["time"]


def test_a_stream_is_logged(logged: Events) -> None:
    kinds = [event["type"] for event in logged["stream"]]
    assert sorted(kinds) == ["request", "request", "response", "response"]
    assert {values(event)["x"][0] for event in logged["stream"]} == {3.5}


def test_what_is_not_a_request_and_what_a_model_turns_off_is_not_logged(logged: Events) -> None:
    assert "invalid" not in logged
    assert "silent" not in logged


def test_columns_of_a_table_are_logged_in_every_form(logged: Events) -> None:
    request, response = logged["v2-columns"]
    columns: dict[str, Any] = {name: [value] for name, value in ROW.items()}
    columns |= {"alcohol": None, "pH": None}
    assert values(request) == columns
    (prediction,) = values(response).values()
    generated = [events for key, events in logged.items() if len(key) == 36]
    tables = [values(events[0]) for events in generated if "error" not in events[-1]]
    assert len(tables) == 4
    assert tables[:2] == [columns, columns]
    assert tables[2] == columns | {f"unknown {len(columns) + 1}": None}
    as_text = {name: data and [str(data[0])] for name, data in columns.items()}
    assert tables[3] == as_text
    predictions = [values(events[1]) for events in generated if "error" not in events[-1]]
    assert [list(item.values()) for item in predictions] == [[prediction]] * 4


def test_a_body_with_unknown_columns_is_masked_as_a_whole(logged: Events) -> None:
    failed = [events for key, events in logged.items() if len(key) == 36 and "error" in events[-1]]
    assert len(failed) == 6
    assert {events[-1]["error"]["status"] for events in failed} == {400}
    for request, _ in failed:
        assert not [data for data in values(request).values() if data is not None]
    request, *_ = logged["matrix"]
    assert values(request) == {"unknown 1": None}


def test_each_http_process_has_a_file(tmp_path: Path) -> None:
    write_server_settings(tmp_path, payload_log={"to": "log.jsonl", "sample": 1.0}, http_workers=2)
    write_model(tmp_path / "echo", inputs=INPUTS)
    count = 40
    with Server(tmp_path) as server:
        for number in range(count):
            headers = {"connection": "close"}
            body = {"id": str(number), "inputs": [tensor("x", [1.0], "FP64")]}
            path = "/v2/models/echo/infer"
            assert server.post(path, body, headers=headers).status_code == 200
        page = server.get("/metrics").text
        assert "mlserver_payload_log_events_total" in page
    paths = sorted(path.name for path in tmp_path.glob("log.jsonl*"))
    assert paths == ["log.jsonl", "log.jsonl.w2"]
    events = [event for path in paths for event in read_events(tmp_path / path)]
    requests = {event["id"] for event in of_kind(events, "request", "echo")}
    responses = {event["id"] for event in of_kind(events, "response", "echo")}
    assert requests == responses == {str(number) for number in range(count)}


def test_a_model_in_the_servers_process_is_logged_and_files_rotate(tmp_path: Path) -> None:
    settings = {"to": "log.jsonl", "sample": 1.0, "max_file_bytes": 1000, "max_files": 3}
    write_server_settings(tmp_path, payload_log=settings)
    write_model(tmp_path / "echo")
    with Server(tmp_path, workers=0) as server:
        for number in range(30):
            inputs = [tensor("x", [1.0], "FP64")]
            assert server.infer("echo", inputs, id=str(number)).status_code == 200
    paths = sorted(path.name for path in tmp_path.glob("log.jsonl*"))
    assert paths == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    for path in paths:
        assert (tmp_path / path).stat().st_size <= 1000
        read_events(tmp_path / path)
    assert read_events(tmp_path / "log.jsonl")[-1]["id"] == "29"


def test_a_receiver_that_hangs_delays_no_request_and_no_exit(tmp_path: Path) -> None:
    pytest.importorskip("cloudevents")
    from support.event_receiver import EventReceiver

    with EventReceiver(is_hanging=True) as receiver:
        write_server_settings(tmp_path, payload_log={"to": receiver.url, "sample": 1.0})
        write_model(tmp_path / "echo")
        with Server(tmp_path) as server:
            payload = tensor("x", [1.0] * 8000, "FP64")
            for _ in range(300):
                assert server.infer("echo", [payload]).status_code == 200
            page = server.get("/metrics").text
            name = "mlserver_payload_log_dropped_total"
            (line,) = (item for item in page.splitlines() if item.startswith(f"{name}{{"))
            assert 'reason="queue_full"' in line
            assert float(line.split()[-1]) > 0
        assert "events are lost: not written within 2.0 s at shutdown" in server.log
        assert receiver.attempts


def test_events_arrive_at_an_address(tmp_path: Path) -> None:
    pytest.importorskip("cloudevents")
    from support.event_receiver import EventReceiver

    with EventReceiver([500]) as receiver:
        write_server_settings(
            tmp_path, payload_log={"to": receiver.url, "sample": 1.0, "mask": ["age"]}
        )
        write_model(tmp_path / "echo", inputs=INPUTS)
        with Server(tmp_path) as server:
            inputs = [tensor("age", [SECRET], "FP64"), tensor("x", [1.5], "FP64")]
            assert server.infer("echo", inputs, id="r1").status_code == 200
            events = {event.kind: event for event in receiver.wait_for_events(2)}
    assert values(events["request"].data) == {"age": None, "x": [1.5]}
    assert events["response"].data["id"] == events["response"].attributes["id"] == "r1"
    assert events["response"].attributes["inferenceservicename"] == "echo"
    assert SECRET_TEXTS[0] not in json.dumps([event.data for event in events.values()])


@pytest.mark.parametrize(
    ("payload_log", "text"),
    [
        (
            {"to": "missing/log.jsonl"},
            "field 'payload_log.to': expected a file in a folder that exists, received",
        ),
        slow(
            {"sample": 0.5}, "field 'payload_log.to': expected the path of a file, or an http:// or"
        ),
        (
            {"to": "log.jsonl", "sample": 1.5},
            "field 'payload_log.sample': expected less than or equal to 1, received 1.5",
        ),
        slow({"to": "."}, "field 'payload_log.to': expected a regular file, received"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, payload_log: Any, text: str) -> None:
    write_server_settings(
        tmp_path, payload_log=payload_log, http_port=0, grpc_port=0, metrics_port=0
    )
    write_model(tmp_path / "echo")
    code, output = run_mlserver("start", str(tmp_path))
    assert code != 0
    assert text in output
    assert "Traceback" not in output

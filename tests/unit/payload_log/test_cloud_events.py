"""CloudEvents at a real receiver, which checks them with the `cloudevents` package."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlserver.errors import MLServerError
from mlserver.metrics.server_metrics import ServerMetrics
from mlserver.payload_log import cloud_events
from mlserver.payload_log.cloud_events import CloudEventSender, NotDelivered, build_headers
from mlserver.payload_log.encoding import encode_body
from mlserver.payload_log.events import (
    ModelLog,
    PayloadEvent,
    copy_error,
    copy_request,
    copy_response,
)
from mlserver.payload_log.writer import PayloadWriter
from mlserver.settings.payload_log import PayloadLogSettings
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput

pytest.importorskip("cloudevents")

from support.event_receiver import EventReceiver, RawReceiver
from support.ports import free_ports

LOG = ModelLog("wine", "3", 65536, service="cellar")


@pytest.fixture(autouse=True)
def _retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_events, "RETRY_DELAYS", (0.0, 0.0))


def event_of(log: ModelLog = LOG, request_id: str = "r1", index: int = 0) -> PayloadEvent:
    tensor = RequestInput(name="x", datatype="FP64", shape=[1], data=[1.5])
    return copy_request(log, InferenceRequest(id=request_id, inputs=[tensor]), index)


def response_event() -> PayloadEvent:
    output = ResponseOutput(name="y", datatype="FP64", shape=[1], data=[2.5])
    return copy_response(LOG, InferenceResponse(model_name="wine", outputs=[output]), "r1")


def post(sender: CloudEventSender, event: PayloadEvent) -> None:
    sender.send(event, encode_body(event))


@contextmanager
def sender_to(url: str, stopping: threading.Event | None = None) -> Iterator[CloudEventSender]:
    sender = CloudEventSender(url, stopping or threading.Event())
    yield sender
    sender.close()


def test_the_receiver_reads_kserves_types_and_extensions() -> None:
    with EventReceiver() as receiver, sender_to(receiver.url) as sender:
        post(sender, event_of())
        post(sender, response_event())
        request, response = receiver.wait_for_events(2)
    assert request.attributes["type"] == "org.kubeflow.serving.inference.request"
    assert response.attributes["type"] == "org.kubeflow.serving.inference.response"
    assert request.attributes["id"] == response.attributes["id"] == "r1"
    for name, value in {
        "inferenceservicename": "cellar",
        "component": "predictor",
        "endpoint": "default",
        "modelversion": "3",
    }.items():
        assert request.attributes[name] == value
    assert request.data["inputs"] == [
        {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}
    ]
    assert response.data["outputs"][0]["data"] == [2.5]


def test_any_printable_id_and_name_are_read_back() -> None:
    text = 'caf\u00e9 "100 %"\u2603'
    with EventReceiver() as receiver, sender_to(receiver.url) as sender:
        post(sender, event_of(ModelLog(text, None, 100), text, 2))
        (event,) = receiver.wait_for_events(1)
    assert event.attributes["id"] == f"{text}.2"
    assert event.attributes["inferenceservicename"] == text
    assert event.data["id"] == text


def test_the_namespace_is_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_events, "get_namespace", lambda: "team-a")
    assert build_headers(event_of(ModelLog("named", None, 100)))["ce-namespace"] == "team-a"


@pytest.mark.parametrize("statuses", [(500,), (503, 429)])
def test_a_busy_receiver_gets_the_event_again(statuses: tuple[int, ...]) -> None:
    with EventReceiver(list(statuses)) as receiver, sender_to(receiver.url) as sender:
        post(sender, event_of())
        receiver.wait_for_events(1)
        assert receiver.attempts == len(statuses) + 1


def test_attempts_are_bounded() -> None:
    with EventReceiver([500] * 10) as receiver, sender_to(receiver.url) as sender:
        with pytest.raises(NotDelivered, match="status 500"):
            post(sender, event_of())
        assert receiver.attempts == 3


@pytest.mark.parametrize("status", [302, 400, 404, 413])
def test_an_event_that_is_refused_is_not_sent_again(status: int) -> None:
    with EventReceiver([status]) as receiver, sender_to(receiver.url) as sender:
        with pytest.raises(NotDelivered, match=f"status {status}"):
            post(sender, event_of())
        assert receiver.attempts == 1


def test_an_idle_connection_that_was_closed_is_opened_again() -> None:
    with EventReceiver() as receiver, sender_to(receiver.url) as sender:
        post(sender, event_of())
        assert sender._socket is not None
        sender._socket.shutdown(2)
        post(sender, event_of())
        receiver.wait_for_events(2)


def test_a_receiver_that_is_away_is_an_error() -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/"
    with sender_to(url) as sender, pytest.raises(NotDelivered, match="refused"):
        post(sender, event_of())


def test_no_further_attempt_is_made_while_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_events, "RETRY_DELAYS", (3600.0,))
    stopping = threading.Event()
    stopping.set()
    with EventReceiver([500] * 10) as receiver, sender_to(receiver.url, stopping) as sender:
        with pytest.raises(NotDelivered):
            post(sender, event_of())
        assert receiver.attempts == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    ],
    ids=["interim", "chunked", "close"],
)
def test_every_kind_of_response_is_read(answer: bytes) -> None:
    with RawReceiver(answer) as receiver, sender_to(receiver.url) as sender:
        post(sender, event_of())
        post(sender, event_of())


@pytest.mark.parametrize(
    "answer", [b"", b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok"]
)
def test_what_is_no_response_is_an_error(answer: bytes) -> None:
    with (
        RawReceiver(answer, closes=True) as receiver,
        sender_to(receiver.url) as sender,
        pytest.raises(NotDelivered),
    ):
        post(sender, event_of())


def test_a_response_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_events, "TIMEOUT", 0.05)
    with EventReceiver(is_hanging=True) as receiver, sender_to(receiver.url) as sender:
        with pytest.raises(NotDelivered, match="TimeoutError"):
            post(sender, event_of())
        assert sender._socket is None


async def test_errors_are_not_sent_and_lost_events_are_counted() -> None:
    metrics = ServerMetrics()
    metrics.add_model("wine", "3")
    recorder = metrics.for_model("wine", "3")
    with EventReceiver([404]) as receiver:
        writer = PayloadWriter(PayloadLogSettings(to=receiver.url), 0)
        writer.put(event_of(), recorder)
        receiver.wait_for_attempts(1)
        writer.put(copy_error(LOG, MLServerError("no"), "r1"), recorder)
        writer.put(event_of(), recorder)
        receiver.wait_for_events(1)
        await writer.close()
    assert [event.kind for event in receiver.events] == ["request"]
    assert metrics.models.payload_dropped.values == {("wine", "3", "not_delivered"): 1}

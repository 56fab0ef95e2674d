"""Format of Kafka messages, committed offsets, properties of librdkafka: without a broker."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import orjson
import pytest

from mlserver.cloudevents import CloudEvents
from mlserver.errors import MLServerError, PayloadTooLarge
from mlserver.kafka import InvalidMessageHeaders, messages
from mlserver.kafka.client_thread import KafkaClientThread, consumer_config, producer_config
from mlserver.kafka.messages import Incoming, Reply
from mlserver.kafka.offset_tracker import OffsetTracker
from mlserver.pipeline import RequestContext
from mlserver.settings import Settings
from mlserver.types import InferenceResponse, ResponseOutput

BODY = b'{"id": "own", "inputs": [{"name": "x", "shape": [1], "datatype": "INT32", "data": [1]}]}'


def test_headers_are_text_and_their_names_lower_case() -> None:
    assert messages.read_headers([("A", b"1"), ("a", b"2"), ("B", None), ("c", b"\xff")]) == {
        "a": "2",
        "b": "",
        "c": "\ufffd",
    }


def test_requested_model() -> None:
    assert messages.read_model({"mlserver-model": "m"}) == ("m", None)
    assert messages.read_model({"mlserver-model": "m", "mlserver-version": "2"}) == ("m", "2")


@pytest.mark.parametrize(
    "headers, name",
    [
        ({}, "mlserver-model"),
        ({"mlserver-model": ""}, "mlserver-model"),
        ({"mlserver-model": "m", "mlserver-method": "load"}, "mlserver-method"),
    ],
)
def test_invalid_headers(headers: dict[str, str], name: str) -> None:
    with pytest.raises(InvalidMessageHeaders, match=name) as caught:
        messages.read_model(headers)
    assert caught.value.status_code == 422


@pytest.mark.parametrize(
    "key, expected", [(None, "own"), (b"", "own"), (b"k", "k"), ("é".encode(), "é")]
)
def test_key_replaces_the_id(key: bytes | None, expected: str) -> None:
    assert messages.read_request(Incoming(key, BODY, ()), 1000).id == expected


def test_invalid_requests() -> None:
    with pytest.raises(PayloadTooLarge):
        messages.read_request(Incoming(None, BODY, ()), len(BODY) - 1)
    with pytest.raises(MLServerError, match="UTF-8"):
        messages.read_request(Incoming(b"\xff", BODY, ()), 1000)
    with pytest.raises(MLServerError, match="empty body"):
        messages.read_request(Incoming(None, None, ()), 1000)


def response() -> InferenceResponse:
    output = ResponseOutput(name="y", shape=[1], datatype="INT32", data=[1])
    return InferenceResponse(model_name="m", id="7", outputs=[output])


def test_responses_have_cloudevents_and_the_models_headers() -> None:
    context = RequestContext(response_headers={"ce-source": "mine", "x": 1, "raw": b"\xff"})
    reply = messages.write_response(response(), context, CloudEvents("server"))
    headers = dict(reply.headers)
    assert reply.key == b"7"
    assert orjson.loads(reply.value)["outputs"][0]["data"] == [1]
    assert (headers["ce-source"], headers["x"], headers["raw"]) == (b"mine", b"1", b"\xff")
    assert (headers["Ce-Id"], headers["Ce-Modelid"]) == (b"7", b"m")
    assert "Ce-Source" not in headers


def test_too_large_reply_becomes_an_error_and_then_one_without_key() -> None:
    first = messages.write_too_large(Reply(b"k", b"x" * 100, []))
    assert first.key == b"k"
    assert dict(first.headers) == {"mlserver-status": b"500"}
    assert "100 bytes" in orjson.loads(first.value)["error"]
    assert messages.write_too_large(first).key is None


def test_offsets_are_committed_without_gaps() -> None:
    for order in itertools.permutations((3, 5, 6)):
        tracker = OffsetTracker()
        for offset in (3, 5, 6):
            tracker.add(offset)
        committed = [tracker.finish(offset) for offset in order]
        assert committed[-1] == 7 or order[-1] != 3
        commits = [offset for offset in committed if offset is not None]
        assert commits == sorted(commits)
        assert commits[-1] == 7
        assert (committed[0] is None) == (order[0] != 3)


def test_properties_of_the_library() -> None:
    config: dict[str, Any] = {
        "security.protocol": "ssl",
        "consumer.auto.offset.reset": "latest",
        "producer.linger.ms": 5,
        "consumer.enable.auto.offset.store": True,
    }
    settings = Settings(kafka_servers="k:1", server_name="s", kafka_config=config)
    consumer, producer = consumer_config(settings), producer_config(settings)
    assert consumer["bootstrap.servers"] == producer["bootstrap.servers"] == "k:1"
    assert consumer["security.protocol"] == producer["security.protocol"] == "ssl"
    assert (consumer["auto.offset.reset"], producer["linger.ms"]) == ("latest", 5)
    assert consumer["enable.auto.offset.store"] is False
    assert consumer["group.id"] == "s"
    assert consumer_config(Settings(kafka_group_id="g"))["group.id"] == "g"
    assert not {"consumer.auto.offset.reset", "producer.linger.ms", "auto.offset.reset"} & set(
        producer
    )


async def test_missing_library_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MLServerError, match=r"kafka_enabled.*pip install 'mlserver\[kafka\]'"):
        KafkaClientThread(Settings(), lambda records: None)


async def test_properties_rejected_by_the_library() -> None:
    pytest.importorskip("confluent_kafka")
    with pytest.raises(MLServerError, match="no.such.property"):
        KafkaClientThread(Settings(kafka_config={"no.such.property": 1}), lambda records: None)

"""Kafka front end over a real pipeline and librdkafka's mock cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mlserver import MLModel
from mlserver.kafka import KafkaServer
from mlserver.settings import ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, ResponseOutput
from support.inline_pipeline import InlinePipeline

pytest.importorskip("confluent_kafka")

from support.kafka import LIMIT, Cluster
from support.ports import free_ports

GATE = threading.Event()


class Echo(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        headers = (payload.parameters and payload.parameters.headers) or {}
        outputs = [
            ResponseOutput(
                name=tensor.name,
                shape=tensor.shape,
                datatype=tensor.datatype,
                data=tensor.data,
            )
            for tensor in payload.inputs
        ]
        parameters = Parameters(headers={"x-seen": headers.get("x-sent", "")})
        return InferenceResponse(model_name=self.name, outputs=outputs, parameters=parameters)


class Gated(Echo):
    """Responds once the gate is open."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        await asyncio.to_thread(GATE.wait, LIMIT)
        return await super().predict(payload)


class Wrong(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        raise ValueError("not today")


class Large(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        output = ResponseOutput(name="y", shape=[1], datatype="BYTES", data=["x" * 2_000_000])
        return InferenceResponse(model_name=self.name, outputs=[output])


MODELS = [
    ModelSettings(name=kind.__name__.lower(), implementation=kind, max_batch_size=1)
    for kind in (Echo, Gated, Wrong, Large)
]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    GATE.clear()
    with Cluster() as cluster:
        yield cluster
    GATE.set()


# Group protocols of Kafka. The mock cluster lets the first member of a `classic` group wait 3 s for
# others, so only the tests whose subject is the protocol use it.
CONFIGS: dict[str, dict[str, Any]] = {
    "classic": {"consumer.session.timeout.ms": 3000, "consumer.heartbeat.interval.ms": 300},
    "consumer": {"consumer.group.protocol": "consumer"},
}
FETCH = {"consumer.fetch.wait.max.ms": 20}  # the mock cluster holds an empty fetch for that time


@asynccontextmanager
async def front_end(
    cluster: Cluster, protocol: str = "consumer", **more: Any
) -> AsyncIterator[KafkaServer]:
    settings = Settings(
        kafka_servers=cluster.servers,
        max_body_bytes=100_000,
        kafka_config=CONFIGS[protocol] | FETCH,
        **more,
    )
    async with InlinePipeline(settings, MODELS) as pipeline:
        server = KafkaServer(settings, pipeline.data_plane)
        await server.start()
        try:
            yield server
        finally:
            await server.stop(LIMIT)


async def wait_until_paused(server: KafkaServer) -> None:
    """Wait until the consumer is paused."""
    while not server.is_paused:  # noqa: ASYNC110 (librdkafka's thread has no event to wait for)
        await asyncio.sleep(0.01)


def request(value: int = 1, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1], "datatype": "INT32", "data": [value]}], **more}


async def test_every_message_gets_a_reply(cluster: Cluster) -> None:
    async def read_reply() -> tuple[str | None, str | None, Any]:
        """Return key, status and body of the next reply."""
        reply = await asyncio.to_thread(cluster.answer)
        return reply.key, reply.headers.get("mlserver-status"), reply.body

    async with front_end(cluster, "classic"):
        cluster.ask(request(7, id="own"), b"the-key", X_Sent="hello")
        reply = await asyncio.to_thread(cluster.answer)
        assert (reply.key, reply.body["id"], reply.body["model_name"]) == (
            "the-key",
            "the-key",
            "echo",
        )
        assert reply.body["outputs"][0]["data"] == [7]
        assert reply.headers["x-seen"] == "hello"
        assert (reply.headers["Ce-Id"], reply.headers["Ce-Modelid"]) == ("the-key", "echo")
        assert "mlserver-status" not in reply.headers

        cluster.ask(request(id="own"))
        assert (await read_reply())[0] == "own"
        cluster.ask(request())
        key, _, body = await read_reply()
        assert key == body["id"] != ""

        cluster.ask(request(), b"1", model="missing")
        assert await read_reply() == ("1", "404", {"error": "Model missing not found"})
        cluster.ask(request(), b"2", mlserver_version="9")
        assert (await read_reply())[:2] == ("2", "404")
        cluster.send(b"{", b"3", {"mlserver-model": "echo"})
        assert (await read_reply())[:2] == ("3", "400")
        cluster.send(None, b"4", {"mlserver-model": "echo"})
        assert (await read_reply())[:2] == ("4", "400")
        cluster.send(b"{}", b"5")
        key, status, body = await read_reply()
        assert (key, status) == ("5", "422")
        assert "mlserver-model" in body["error"]
        cluster.ask(request(), b"6", mlserver_method="unload")
        assert (await read_reply())[:2] == ("6", "422")
        cluster.ask(request(), b"\xff")
        assert (await read_reply())[:2] == ("\xff", "400")
        cluster.ask({"inputs": [], "pad": "x" * 200_000}, b"7")
        assert (await read_reply())[:2] == ("7", "413")
        cluster.ask(request(), b"8", model="wrong")
        key, status, body = await read_reply()
        assert (key, status) == ("8", "500")
        assert "not today" in body["error"]
        cluster.ask(request(parameters={"timeout": 1000}), b"9", model="gated")
        assert (await read_reply())[:2] == ("9", "504")
        cluster.ask(request(parameters={"priority": -1}), b"10")
        assert (await read_reply())[:2] == ("10", "400")
        cluster.ask(request(), b"11", model="large")
        key, status, body = await read_reply()
        assert (key, status) == ("11", "500")
        assert "exceeds the limit of the topic" in body["error"]
    assert await asyncio.to_thread(cluster.committed) == 15


async def test_messages_over_the_limit_remain_in_the_topic(cluster: Cluster) -> None:
    keys = {f"{number}" for number in range(40)}
    for key in keys:
        cluster.ask(request(int(key)), key.encode(), model="gated")
    async with front_end(cluster, kafka_max_in_flight=4) as server, asyncio.timeout(LIMIT):
        await wait_until_paused(server)
        assert await asyncio.to_thread(cluster.committed) == 0
        GATE.set()
        reply = await asyncio.to_thread(cluster.answers, len(keys))
        assert {answer.key: str(answer.body["outputs"][0]["data"][0]) for answer in reply} == {
            key: key for key in keys
        }
    assert await asyncio.to_thread(cluster.committed) == len(keys)


async def test_stop_processes_received_messages_only(cluster: Cluster) -> None:
    for number in range(10):
        cluster.ask(request(), f"{number}".encode(), model="gated")
    async with front_end(cluster, kafka_max_in_flight=2) as server, asyncio.timeout(LIMIT):
        await wait_until_paused(server)
        stopping = asyncio.create_task(server.stop(LIMIT))
        await asyncio.sleep(0)
        GATE.set()
        await stopping
        first = await asyncio.to_thread(cluster.answers, 2)
        assert await asyncio.to_thread(cluster.committed) == 2

    async with front_end(cluster):
        rest = await asyncio.to_thread(cluster.answers, 8)
    assert sorted(str(answer.key) for answer in first + rest) == [
        f"{number}" for number in range(10)
    ]
    assert await asyncio.to_thread(cluster.committed) == 10


async def test_messages_not_processed_in_time_are_received_again(cluster: Cluster) -> None:
    cluster.ask(request(), b"late", model="gated")
    async with front_end(cluster, kafka_max_in_flight=1) as server, asyncio.timeout(LIMIT):
        await wait_until_paused(server)
        await server.stop(0)
        GATE.set()
    assert await asyncio.to_thread(cluster.committed) == 0
    async with front_end(cluster):
        assert (await asyncio.to_thread(cluster.answer)).key == "late"


async def test_auth_requires_a_credential(cluster: Cluster, tmp_path: Any) -> None:
    (tmp_path / "keys").write_text("")
    async with front_end(cluster, auth={"keys": str(tmp_path / "keys")}):
        cluster.ask(request(), b"1")
        assert (await asyncio.to_thread(cluster.answer)).headers["mlserver-status"] == "401"


async def test_unreachable_brokers_do_not_block_start_and_stop() -> None:
    (port,) = free_ports(1)
    settings = Settings(kafka_servers=f"127.0.0.1:{port}")
    async with InlinePipeline(settings, MODELS[:1]) as pipeline, asyncio.timeout(LIMIT):
        server = KafkaServer(settings, pipeline.data_plane)
        await server.stop(LIMIT)  # not started yet
        server = KafkaServer(settings, pipeline.data_plane)
        await server.start()
        server.end_connections()
        await wait_until_paused(server)
        await server.stop(LIMIT)

"""librdkafka's mock Kafka cluster, in the test's process, over real sockets."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import confluent_kafka as kafka
import orjson

LIMIT = 30.0  # time limit in seconds; joining a group takes three
INPUT, OUTPUT = "mlserver-input", "mlserver-output"
_silent = logging.getLogger("kafka-test")
_silent.setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Answer:
    """A message of the output topic."""

    key: str | None
    body: Any
    headers: dict[str, str]


class Cluster:
    """A cluster of one broker, with a producer of requests and a consumer of responses.

    Its methods block: call them in a thread from coroutines.
    """

    def __init__(self) -> None:
        self._cluster = kafka.Producer(
            {"bootstrap.servers": "none", "test.mock.num.brokers": 1}, logger=_silent
        )
        brokers = self._cluster.list_topics(timeout=LIMIT).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        own = {"bootstrap.servers": self.servers}
        self._producer = kafka.Producer({**own, "linger.ms": 0}, logger=_silent)
        self._reader = kafka.Consumer(
            {**own, "group.id": "test", "enable.auto.commit": False, "fetch.wait.max.ms": 20},
            logger=_silent,
        )
        self._partitions(
            INPUT
        )  # creates the topic: a member of the group that comes before it waits
        self._reader.assign(
            [kafka.TopicPartition(OUTPUT, number, 0) for number in self._partitions(OUTPUT)]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.close()

    def send(
        self,
        value: bytes | None,
        key: bytes | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        """Produce a message to the input topic."""
        self._producer.produce(INPUT, value, key, headers=list((headers or {}).items()))
        assert self._producer.flush(LIMIT) == 0

    def ask(
        self, value: Any, key: bytes | None = None, model: str = "echo", **headers: str
    ) -> None:
        """Produce a request for a model to the input topic."""
        named = {"mlserver-model": model} | {
            name.replace("_", "-"): text for name, text in headers.items()
        }
        self.send(orjson.dumps(value), key, named)

    def answers(self, count: int) -> list[Answer]:
        """The next messages of the output topic."""
        end = time.monotonic() + LIMIT
        replies: list[Answer] = []
        while len(replies) < count:
            message = self._reader.poll(0.5)
            assert time.monotonic() < end, f"{len(replies)} of {count} answers came: {replies}"
            if message is not None and message.error() is None:
                key = message.key()
                headers = {name: value.decode() for name, value in message.headers() or ()}
                replies.append(
                    Answer(key and key.decode("latin-1"), orjson.loads(message.value()), headers)
                )
        return replies

    def answer(self) -> Answer:
        return self.answers(1)[0]

    def committed(self, group: str = "mlserver") -> int:
        """The number of messages of the input topic that a group has committed."""
        consumer = kafka.Consumer(
            {"bootstrap.servers": self.servers, "group.id": group}, logger=_silent
        )
        try:
            partitions = [kafka.TopicPartition(INPUT, number) for number in self._partitions(INPUT)]
            return sum(
                max(partition.offset, 0)
                for partition in consumer.committed(partitions, timeout=LIMIT)
            )
        finally:
            consumer.close()

    def _partitions(self, topic: str) -> list[int]:
        return list(self._cluster.list_topics(topic, timeout=LIMIT).topics[topic].partitions)

"""Kafka consumer and producer, polled in one thread because librdkafka has no asyncio interface.

The thread passes messages and delivery failures to the event loop. It counts deliveries and stores
offsets itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import _optional
from ..errors import MLServerError
from ..logging import get_logger
from ..settings import Settings
from .messages import Incoming, Reply, write_too_large
from .offset_tracker import OffsetTracker
from .outages import LibraryLog, Outages, read_reason

logger = get_logger().getChild("kafka")

POLL_SECONDS = 0.1  # timeout of one poll of the consumer or the producer
RETRY_SECONDS = 1.0  # delay before an undelivered reply is sent again
CLOSE_SECONDS = 2.0  # limit for leaving the consumer group


@dataclass(frozen=True, slots=True)
class ConsumedRecord:
    """A message to process, and its origin."""

    message: Incoming
    topic: str
    partition: int
    offset: int
    offsets: OffsetTracker


class KafkaClientThread:
    """Consumer, producer and the thread that polls them.

    Args:
        on_records: Called on the event loop with received messages; each needs a call of `send`.
        on_joined: Called on the event loop once the server is a member of its consumer group.

    Raises:
        MLServerError: confluent-kafka is not installed, or rejects the settings.
    """

    def __init__(
        self,
        settings: Settings,
        on_records: Callable[[list[ConsumedRecord]], None],
        on_joined: Callable[[], None] = lambda: None,
    ) -> None:
        self._library = _optional.import_optional(
            "confluent_kafka", "The setting 'kafka_enabled'", "kafka"
        )
        self._settings = settings
        self._on_records = on_records
        self._on_joined: Callable[[], None] | None = on_joined
        self._outages = Outages(settings.kafka_servers)
        self._limit = min(settings.kafka_max_in_flight, settings.max_queue_size)
        self._loop = asyncio.get_running_loop()
        self._has_ended = asyncio.Event()
        self._stops_consuming = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)
        # Used by the thread only:
        self._in_flight = 0
        self._is_paused = False
        self._assigned: set[tuple[str, int]] = set()
        self._trackers: dict[tuple[str, int], OffsetTracker] = {}
        try:
            callbacks = {"error_cb": self._outages.on_error}
            self._consumer = self._library.Consumer(
                {**consumer_config(settings), **callbacks}, logger=LibraryLog()
            )
            self._producer = self._library.Producer(
                {**producer_config(settings), **callbacks}, logger=LibraryLog()
            )
        except (self._library.KafkaException, TypeError, ValueError) as error:
            raise MLServerError(
                f"Kafka: the settings 'kafka_*' are not valid: {error}", 500
            ) from None

    @property
    def is_paused(self) -> bool:
        """Whether the consumer is paused because `kafka_max_in_flight` messages are in progress."""
        return self._is_paused

    def start(self) -> None:
        self._thread.start()

    def stop_consuming(self) -> None:
        """Receive no more messages."""
        self._stops_consuming.set()

    async def close(self, grace: float) -> None:
        """Leave the group once all received messages are processed, at most `grace` seconds later.

        The rest is not committed, so the group's members receive it again.
        """
        self.stop_consuming()
        if not self._thread.is_alive():
            return
        self._deadline = time.monotonic() + grace
        try:
            async with asyncio.timeout(grace + CLOSE_SECONDS):
                await self._has_ended.wait()
        except TimeoutError:
            logger.warning("Kafka: leaving the consumer group exceeded %g s", CLOSE_SECONDS)

    def send(self, record: ConsumedRecord, reply: Reply) -> None:
        """Produce a reply; its delivery marks the message as processed. Call on the event loop."""

        def on_delivery(error: Any, _: object) -> None:
            if error is None:
                self._finish(record)
            else:
                self._run_on_loop(self._handle_failure, record, reply, error)

        topic = self._settings.kafka_topic_output
        try:
            self._producer.produce(
                topic, reply.value, reply.key, headers=reply.headers, on_delivery=on_delivery
            )
        except BufferError:
            self._loop.call_later(POLL_SECONDS, self.send, record, reply)
        except self._library.KafkaException as exception:
            self._handle_failure(record, reply, exception.args[0])

    def _handle_failure(self, record: ConsumedRecord, reply: Reply, error: Any) -> None:
        codes = self._library.KafkaError
        if error.code() in (codes.MSG_SIZE_TOO_LARGE, codes.RECORD_LIST_TOO_LARGE):
            self.send(record, write_too_large(reply))
            return
        logger.error("Kafka: a reply was not delivered, retrying in %g s: %s", RETRY_SECONDS, error)
        self._loop.call_later(RETRY_SECONDS, self.send, record, reply)

    # -- in the thread --

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                [self._settings.kafka_topic_input],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_revoke,
            )
            while not self._is_finished():
                try:
                    self._poll()
                except self._library.KafkaException as error:
                    self._outages.report(read_reason(error.args[0]))
                    self._producer.poll(RETRY_SECONDS)
            self._consumer.close()
        except Exception:
            logger.exception("The Kafka front end failed")
        finally:
            self._run_on_loop(self._has_ended.set)

    def _is_finished(self) -> bool:
        return self._deadline is not None and (
            not self._in_flight or time.monotonic() >= self._deadline
        )

    def _poll(self) -> None:
        """Poll the consumer while there is capacity, else the producer.

        A pause discards fetched messages, so the consumer is paused only if a poll of the producer
        returns no delivery. It must then still be polled: brokers remove members that do not poll
        from the group.
        """
        capacity = self._get_capacity()
        if capacity:
            self._set_paused(False)
            self._receive(self._consumer.poll(POLL_SECONDS), capacity)
            self._producer.poll(0)
        elif not self._producer.poll(POLL_SECONDS) or self._is_paused:
            self._set_paused(True)
            self._receive(self._consumer.poll(0), 1)

    def _get_capacity(self) -> int:
        """Return how many messages may be received; a pause ends at half of the limit."""
        capacity = max(self._limit - self._in_flight, 0)
        stays_paused = self._is_paused and 2 * capacity < self._limit
        return 0 if self._stops_consuming.is_set() or stays_paused else capacity

    def _set_paused(self, paused: bool) -> None:
        if paused != self._is_paused:
            # From the callbacks: `Consumer.assignment` would wait for librdkafka's thread.
            partitions = [self._library.TopicPartition(*key) for key in self._assigned]
            (self._consumer.pause if paused else self._consumer.resume)(partitions)
            self._is_paused = paused

    def _receive(self, first: Any, capacity: int) -> None:
        """Pass the first message, and those already fetched, to the event loop."""
        if first is None or self._stops_consuming.is_set():
            return  # not committed, so the next member of the group receives it
        messages = [first, *(self._consumer.consume(capacity - 1, 0) if capacity > 1 else ())]
        records = []
        for message in messages:
            if message.error() is not None:
                self._outages.report(read_reason(message.error()))
            else:
                records.append(self._create_record(message))
        self._in_flight += len(records)
        self._run_on_loop(self._on_records, records)

    def _create_record(self, message: Any) -> ConsumedRecord:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        offsets = self._trackers.setdefault((topic, partition), OffsetTracker())
        offsets.add(offset)
        incoming = Incoming(message.key(), message.value(), message.headers() or ())
        return ConsumedRecord(incoming, topic, partition, offset, offsets)

    def _finish(self, record: ConsumedRecord) -> None:
        self._in_flight -= 1
        offset = record.offsets.finish(record.offset)
        tracker = self._trackers.get((record.topic, record.partition))
        if offset is None or tracker is not record.offsets:
            return  # an earlier message is open, or the partition was reassigned
        with contextlib.suppress(self._library.KafkaException):
            self._consumer.store_offsets(
                offsets=[self._library.TopicPartition(record.topic, record.partition, offset)]
            )

    def _on_assign(self, _: object, partitions: list[Any]) -> None:
        self._assigned.update((each.topic, each.partition) for each in partitions)
        self._is_paused = False  # new partitions are not paused
        self._outages.end()
        if self._on_joined is not None:
            self._run_on_loop(self._on_joined)
            self._on_joined = None

    def _on_revoke(self, _: object, partitions: list[Any]) -> None:
        for each in partitions:
            self._assigned.discard((each.topic, each.partition))
            self._trackers.pop((each.topic, each.partition), None)

    def _run_on_loop(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *args)


# -- configuration --


def consumer_config(settings: Settings) -> dict[str, Any]:
    """Return librdkafka's properties for the consumer; offsets are stored after delivery."""
    return {
        **_common_config(settings),
        "auto.offset.reset": "earliest",
        "auto.commit.interval.ms": 1000,
        **_select_config(settings, "consumer."),
        "group.id": settings.kafka_group_id or settings.server_name,
        "enable.auto.commit": True,
        "enable.auto.offset.store": False,
    }


def producer_config(settings: Settings) -> dict[str, Any]:
    """Return librdkafka's properties for the producer; the topic limits the size of replies."""
    max_bytes = min(max(settings.max_body_bytes, 1_000_000), 1_000_000_000)
    return {
        **_common_config(settings),
        "linger.ms": 0,
        "message.max.bytes": max_bytes,
        **_select_config(settings, "producer."),
    }


def _common_config(settings: Settings) -> dict[str, Any]:
    return {"bootstrap.servers": settings.kafka_servers, "client.id": settings.server_name}


def _select_config(settings: Settings, prefix: str) -> dict[str, Any]:
    """Return the properties of `kafka_config` for both clients and for the one with this prefix."""
    config = settings.kafka_config
    shared = {
        name: value
        for name, value in config.items()
        if not name.startswith(("consumer.", "producer."))
    }
    return shared | {
        name.removeprefix(prefix): value
        for name, value in config.items()
        if name.startswith(prefix)
    }

"""Consumer and producer, and the one thread that waits for them: librdkafka has no asyncio of its own.

Messages and failures are handed to the event loop; what was delivered is counted, and its offset stored, in the thread.
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
from .outages import LibraryLog, Outages, reason_of

logger = get_logger().getChild("kafka")

WAIT = 0.1  # seconds that the thread waits at one client before it looks after the other
RETRY = 1.0  # seconds until a reply that could not be sent is sent again
LEAVE = 2.0  # seconds that leaving the consumer group may take


@dataclass(frozen=True, slots=True)
class ConsumedRecord:
    """A message that is to be answered, and where it came from."""

    message: Incoming
    topic: str
    partition: int
    offset: int
    progress: OffsetTracker


class KafkaClientThread:
    """The connection to the brokers.

    Args:
        arrived: Called on the event loop with messages; each is to be answered by `send`.
        joined: Called on the event loop when the server has become a member of its consumer group.

    Raises:
        MLServerError: the library is missing, or the settings are not valid for it.
    """

    def __init__(
        self,
        settings: Settings,
        arrived: Callable[[list[ConsumedRecord]], None],
        joined: Callable[[], None] = lambda: None,
    ) -> None:
        self._library = _optional.load("confluent_kafka", "The setting 'kafka_enabled'", "kafka")
        self._settings = settings
        self._arrived = arrived
        self._joined: Callable[[], None] | None = joined
        self._outages = Outages(settings.kafka_servers)
        self._limit = min(settings.kafka_max_in_flight, settings.max_queue_size)
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._ceasing = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)
        # Of the thread alone:
        self._in_flight = 0
        self._paused = False
        self._assigned: set[tuple[str, int]] = set()
        self._progress: dict[tuple[str, int], OffsetTracker] = {}
        try:
            told = {"error_cb": self._outages.on_error}
            self._consumer = self._library.Consumer(
                {**consumer_config(settings), **told}, logger=LibraryLog()
            )
            self._producer = self._library.Producer(
                {**producer_config(settings), **told}, logger=LibraryLog()
            )
        except (self._library.KafkaException, TypeError, ValueError) as error:
            raise MLServerError(f"Cannot use the Kafka settings: {error}", 500) from None

    @property
    def paused(self) -> bool:
        """Whether no messages are taken at present: as many as may be are being answered."""
        return self._paused

    def start(self) -> None:
        self._thread.start()

    def cease(self) -> None:
        """Take no more messages."""
        self._ceasing.set()

    async def close(self, grace: float) -> None:
        """Leave when what was taken has been answered, after `grace` seconds at the latest; the rest is taken again later."""
        self.cease()
        if not self._thread.is_alive():
            return
        self._deadline = time.monotonic() + grace
        try:
            async with asyncio.timeout(grace + LEAVE):
                await self._ended.wait()
        except TimeoutError:
            logger.warning("Kafka's brokers did not let go in time")

    def send(self, work: ConsumedRecord, reply: Reply) -> None:
        """Produce a reply; when it has been delivered, its message counts as answered. On the event loop."""

        def delivered(error: Any, _: object) -> None:
            if error is None:
                self._finish(work)
            else:
                self._hand_over(self._undelivered, work, reply, error)

        topic = self._settings.kafka_topic_output
        try:
            self._producer.produce(
                topic, reply.value, reply.key, headers=reply.headers, on_delivery=delivered
            )
        except BufferError:
            self._loop.call_later(WAIT, self.send, work, reply)
        except self._library.KafkaException as exc:
            self._undelivered(work, reply, exc.args[0])

    def _undelivered(self, work: ConsumedRecord, reply: Reply, error: Any) -> None:
        codes = self._library.KafkaError
        if error.code() in (codes.MSG_SIZE_TOO_LARGE, codes.RECORD_LIST_TOO_LARGE):
            self.send(work, write_too_large(reply))
            return
        logger.error("A reply could not be delivered and is sent again: %s", error)
        self._loop.call_later(RETRY, self.send, work, reply)

    # -- in the thread --

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                [self._settings.kafka_topic_input],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_revoke,
            )
            while not self._is_over():
                try:
                    self._turn()
                except self._library.KafkaException as error:
                    self._outages.report(reason_of(error.args[0]))
                    self._producer.poll(RETRY)
            self._consumer.close()
        except Exception:
            logger.exception("The Kafka front end failed")
        finally:
            self._hand_over(self._ended.set)

    def _is_over(self) -> bool:
        return self._deadline is not None and (
            not self._in_flight or time.monotonic() >= self._deadline
        )

    def _turn(self) -> None:
        """Wait for whichever can go on: the consumer while there is room for more, else the producer.

        Short waits for room are no reason to pause: that throws away what has been fetched. Long ones are, because who does
        not poll is put out of the group.
        """
        room = self._room()
        if room:
            self._pause(False)
            self._take(self._consumer.poll(WAIT), room)
            self._producer.poll(0)
        elif not self._producer.poll(WAIT) or self._paused:
            self._pause(True)
            self._take(self._consumer.poll(0), 1)

    def _room(self) -> int:
        """How many messages may be taken; a paused consumer goes on when half of the places are free."""
        room = max(self._limit - self._in_flight, 0)
        return 0 if self._ceasing.is_set() or (self._paused and 2 * room < self._limit) else room

    def _pause(self, paused: bool) -> None:
        if paused != self._paused:
            # As the callbacks told: asking the library for its list is a question to its own thread, with a wait.
            partitions = [self._library.TopicPartition(*place) for place in self._assigned]
            (self._consumer.pause if paused else self._consumer.resume)(partitions)
            self._paused = paused

    def _take(self, first: Any, room: int) -> None:
        """Hand the first message, and what else is there already, to the loop."""
        if first is None or self._ceasing.is_set():
            return  # what is not taken is not committed: the group's next member gets it
        messages = [first, *(self._consumer.consume(room - 1, 0) if room > 1 else ())]
        works = []
        for message in messages:
            if message.error() is not None:
                self._outages.report(reason_of(message.error()))
            else:
                works.append(self._work_of(message))
        self._in_flight += len(works)
        self._hand_over(self._arrived, works)

    def _work_of(self, message: Any) -> ConsumedRecord:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        progress = self._progress.setdefault((topic, partition), OffsetTracker())
        progress.take(offset)
        incoming = Incoming(message.key(), message.value(), message.headers() or ())
        return ConsumedRecord(incoming, topic, partition, offset, progress)

    def _finish(self, work: ConsumedRecord) -> None:
        self._in_flight -= 1
        offset = work.progress.finish(work.offset)
        if offset is None or self._progress.get((work.topic, work.partition)) is not work.progress:
            return  # not yet, or the partition is another member's by now
        with contextlib.suppress(self._library.KafkaException):
            self._consumer.store_offsets(
                offsets=[self._library.TopicPartition(work.topic, work.partition, offset)]
            )

    def _on_assign(self, _: object, partitions: list[Any]) -> None:
        self._assigned.update((one.topic, one.partition) for one in partitions)
        self._paused = False  # those that are new run
        self._outages.over()
        if self._joined is not None:
            self._hand_over(self._joined)
            self._joined = None

    def _on_revoke(self, _: object, partitions: list[Any]) -> None:
        for one in partitions:
            self._assigned.discard((one.topic, one.partition))
            self._progress.pop((one.topic, one.partition), None)

    def _hand_over(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *args)


# -- configuration --


def consumer_config(settings: Settings) -> dict[str, Any]:
    """librdkafka's properties for the consumer. Offsets are committed as far as answers have been delivered."""
    return {
        **_common(settings),
        "auto.offset.reset": "earliest",
        "auto.commit.interval.ms": 1000,
        **_own(settings, "consumer."),
        "group.id": settings.kafka_group_id or settings.server_name,
        "enable.auto.commit": True,
        "enable.auto.offset.store": False,
    }


def producer_config(settings: Settings) -> dict[str, Any]:
    """librdkafka's properties for the producer. What an answer may measure is for the topic to say."""
    largest = min(max(settings.max_body_bytes, 1_000_000), 1_000_000_000)
    return {
        **_common(settings),
        "linger.ms": 0,
        "message.max.bytes": largest,
        **_own(settings, "producer."),
    }


def _common(settings: Settings) -> dict[str, Any]:
    return {"bootstrap.servers": settings.kafka_servers, "client.id": settings.server_name}


def _own(settings: Settings, prefix: str) -> dict[str, Any]:
    """The properties of `kafka_config` for both clients, and those for this one."""
    config = settings.kafka_config
    both = {
        name: value
        for name, value in config.items()
        if not name.startswith(("consumer.", "producer."))
    }
    return both | {
        name.removeprefix(prefix): value
        for name, value in config.items()
        if name.startswith(prefix)
    }

"""Kafka front end: start, stop, and a reply to every message, valid or not."""

from __future__ import annotations

import asyncio
import time

from .. import log_context as log_contexts
from ..access_log import Access, AccessLog
from ..cloudevents import CloudEvents, get_namespace
from ..errors import MLServerError
from ..handlers import DataPlane
from ..metrics.server_metrics import ServerMetrics
from ..pipeline import RequestContext
from ..security.authorization import INFER, Authorizer, Caller
from ..settings import Settings
from .client_thread import ConsumedRecord, KafkaClientThread, logger
from .messages import (
    Incoming,
    Reply,
    read_headers,
    read_model,
    read_request,
    write_error,
    write_response,
)


class KafkaServer:
    """Kafka front end, a member of a consumer group from `start` on.

    Args:
        access: Access rules; None = those of the settings.
        metrics: Keeps the recent errors; None = metrics of its own.

    Raises:
        MLServerError: confluent-kafka is not installed (the text has the command), or rejects the
            settings.
    """

    def __init__(
        self,
        settings: Settings,
        data_plane: DataPlane,
        access: Authorizer | None = None,
        metrics: ServerMetrics | None = None,
    ) -> None:
        self._settings = settings
        self._data_plane = data_plane
        self._access = access or Authorizer(settings)
        self._metrics = metrics or ServerMetrics()
        self._events = CloudEvents(settings.server_name, get_namespace())
        self._operation = f"Kafka {settings.kafka_topic_input}"
        self._access_log = AccessLog.from_settings(settings, "kafka", logger)
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = KafkaClientThread(settings, self._on_records, self._on_joined)

    @property
    def address(self) -> str:
        """Brokers and topics, for the log."""
        topics = f"{self._settings.kafka_topic_input} to {self._settings.kafka_topic_output}"
        return f"Kafka at {self._settings.kafka_servers}, {topics}"

    @property
    def is_paused(self) -> bool:
        """Whether the consumer is paused because `kafka_max_in_flight` messages are in progress."""
        return self._client.is_paused

    async def start(self) -> None:
        """Start joining the group; unreachable brokers are retried without limit.

        The log reports outages, and when the server has joined.
        """
        self._client.start()

    def end_connections(self) -> None:
        """Receive no more messages; received ones are processed."""
        self._client.stop_consuming()

    async def drain(self) -> None:
        """Do nothing: `stop` waits for received messages and stores their offsets."""

    async def stop(self, grace: float = 0.0) -> None:
        """Leave the group; messages not processed in `grace` seconds are not committed."""
        await self._client.close(grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._access_log is not None:
            self._access_log.flush()

    def _on_joined(self) -> None:
        logger.info("Ready: %s", self.address)

    def _on_records(self, records: list[ConsumedRecord]) -> None:
        for record in records:
            task = asyncio.create_task(self._serve(record))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, record: ConsumedRecord) -> None:
        self._client.send(record, await self._process(record.message))

    async def _process(self, message: Incoming) -> Reply:
        """Return the reply to a message, and log the access."""
        started = time.perf_counter()
        headers = read_headers(message.headers)
        log_context = log_contexts.read_headers(headers)
        log_contexts.variable.set(log_context)
        reply = await self._reply(message, headers, log_context)
        present = {name.lower() for name, _ in reply.headers}
        for name, value in log_context.echoed:
            if name not in present:
                reply.headers.append((name, value.encode()))
        if self._access_log is not None:
            sizes = len(message.value or b""), len(reply.value)
            seconds, topic = time.perf_counter() - started, self._settings.kafka_topic_input
            entry = Access("RECEIVE", topic, reply.status, seconds, *sizes)
            self._access_log.add(entry, log_context)
        log_context.has_ended = True
        return reply

    async def _reply(
        self, message: Incoming, headers: dict[str, str], log_context: log_contexts.LogContext
    ) -> Reply:
        key = message.key or None
        name, version = "", None
        try:
            if self._access.requires_credentials:
                await self._access.check(INFER, Caller("", headers))
            name, version = read_model(headers)
            request = read_request(message, self._settings.max_body_bytes)
            key = key or (request.id or "").encode("utf-8", "replace") or None
            context = RequestContext(headers=headers, operation=self._operation)
            context.trace_parent = log_context.trace_parent
            response = await self._data_plane.infer(request, name, version, context)
            return write_response(response, context, self._events)
        except MLServerError as error:
            if not error.is_recorded:
                self._metrics.errors.add(error, self._operation, name, version or "")
            return write_error(error, key)
        except Exception as error:
            self._metrics.errors.add(error, self._operation, name, version or "")
            logger.exception("Kafka: processing a message failed")
            return write_error(MLServerError("Internal server error", 500), key)

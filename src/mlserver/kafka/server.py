"""The Kafka front end's life, and how one message is answered. Every message is, whatever is wrong with it."""

from __future__ import annotations

import asyncio

from ..cloudevents import CloudEvents, get_namespace
from ..errors import MLServerError
from ..handlers import DataPlane
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
    """The Kafka front end: takes messages from `start` on, as a member of a consumer group.

    Args:
        access: Who may do what; None = as the settings say.

    Raises:
        MLServerError: the library is not installed (the text has the command), or the settings are not valid for it.
    """

    def __init__(
        self, settings: Settings, data_plane: DataPlane, access: Authorizer | None = None
    ) -> None:
        self._settings = settings
        self._data_plane = data_plane
        self._access = access or Authorizer(settings)
        self._events = CloudEvents(settings.server_name, get_namespace())
        self._tasks: set[asyncio.Task[None]] = set()
        self._link = KafkaClientThread(settings, self._arrived, self._joined)

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        topics = f"{self._settings.kafka_topic_input} to {self._settings.kafka_topic_output}"
        return f"Kafka at {self._settings.kafka_servers}, {topics}"

    @property
    def paused(self) -> bool:
        """Whether no messages are taken at present: as many as may be are being answered."""
        return self._link.paused

    async def start(self) -> None:
        """Begin to join the group. Brokers that cannot be reached are tried again for as long as it takes.

        The log says when the server has joined, and what it waits for until then.
        """
        self._link.start()

    def cease(self) -> None:
        """Take no more messages; those taken are answered."""
        self._link.cease()

    def end_connections(self) -> None:
        """Take no more messages; those taken are answered."""
        self.cease()

    async def drain(self) -> None:
        """Nothing: messages are answered like all requests, and their offsets stored in `stop`."""

    async def stop(self, grace: float = 0.0) -> None:
        """Leave the group. Messages not answered within `grace` seconds are not committed: they are taken again later."""
        await self._link.close(grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _joined(self) -> None:
        logger.info("Ready: %s", self.address)

    def _arrived(self, works: list[ConsumedRecord]) -> None:
        for work in works:
            task = asyncio.create_task(self._serve(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, work: ConsumedRecord) -> None:
        self._link.send(work, await self._answer(work.message))

    async def _answer(self, message: Incoming) -> Reply:
        key = message.key or None
        try:
            headers = read_headers(message.headers)
            if self._access.requires_credentials:
                await self._access.check(INFER, Caller("", headers))
            name, version = read_model(headers)
            request = read_request(message, self._settings.max_body_bytes)
            key = key or (request.id or "").encode("utf-8", "replace") or None
            call = RequestContext(headers=headers)
            response = await self._data_plane.infer(request, name, version, call)
            return write_response(response, call, self._events)
        except MLServerError as error:
            return write_error(error, key)
        except Exception:
            logger.exception("A message could not be answered")
            return write_error(MLServerError("Internal server error", 500), key)

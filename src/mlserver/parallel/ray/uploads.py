"""Sends models' files to the directory, for nodes that do not have them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ...errors import MLServerError, format_exception
from ...logging import get_logger
from ...settings import ModelSettings
from .model_files import compute_digest, list_paths, measure, pack

logger = get_logger()

Call = Callable[..., Any]


class Uploader:
    """Sends each missing package once at a time.

    Args:
        call: Calls a method of the directory, and blocks.
        limit: Bytes of one package at most (setting `ray.upload_limit`).
    """

    def __init__(self, call: Call, limit: int) -> None:
        self._call = call
        self._limit = limit
        self._running: dict[str, asyncio.Task[None]] = {}

    def update(self, missing: list[str], settings: bytes) -> None:
        """Start to send what replicas of a model have requested and no server has sent.

        Args:
            missing: Digests of files.
            settings: Frame of the model's settings.
        """
        for digest in missing:
            if digest not in self._running:
                work = asyncio.to_thread(self._send, digest, settings)
                task = self._running[digest] = asyncio.ensure_future(work)
                task.add_done_callback(partial(self._end, digest))

    def _end(self, digest: str, task: asyncio.Task[None]) -> None:
        del self._running[digest]
        if not task.cancelled() and task.exception() is not None:
            logger.warning("Ray: sending files failed: %s", task.exception())

    def close(self) -> None:
        for task in self._running.values():
            task.cancel()

    def _send(self, digest: str, settings: bytes) -> None:
        try:
            parts = self._open(digest, ModelSettings.from_frame(settings))
        except MLServerError as error:
            self._call("refuse_files", digest, error.message)
            return
        except OSError as error:
            self._call("refuse_files", digest, format_exception(error))
            return
        count = 0
        for part in parts:
            self._call("store_part", digest, count, part)
            count += 1
        # Parts are missing if the directory has restarted meanwhile: the replica asks again.
        self._call("complete_files", digest, count)

    def _open(self, digest: str, model: ModelSettings) -> Iterator[bytes]:
        """Return the parts of the files with a digest.

        Raises:
            OSError: they cannot be read.
            MLServerError: they are too large, or have changed.
        """
        for path in list_paths(model):
            if compute_digest(path) != digest:
                continue
            size = measure(path)
            if size > self._limit:
                raise MLServerError(
                    f"it has {size:,} bytes, and 'ray.upload_limit' is {self._limit:,}"
                )
            return pack(path)
        raise MLServerError("it has changed since the load began: load the model again")

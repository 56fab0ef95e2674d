"""Public helpers for custom runtimes, with the names of MLServer 1.x."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import InvalidModelURI
from .locations import locate
from .types import InferenceRequest, InferenceResponse, Parameters

if TYPE_CHECKING:
    from .settings import ModelSettings

T = TypeVar("T")

logger = logging.getLogger("mlserver")


def generate_uuid() -> str:
    """Return a random id for a request."""
    return str(uuid.uuid4())


async def get_model_uri(settings: ModelSettings, wellknown_filenames: Sequence[str] = ()) -> str:
    """Return the path of the file or folder that `parameters.uri` names.

    - Relative paths start at the folder of the model's settings file.
    - In a folder, the first existing file of `wellknown_filenames` is returned, else the folder.
    - Addresses (`s3://`, `models:/`) are returned unchanged.

    Raises:
        InvalidModelURI: the uri is missing, or the file or folder does not exist.
    """
    uri = settings.parameters.uri if settings.parameters else None
    if not uri:
        raise InvalidModelURI(settings.name)
    path = locate(uri, settings.folder)
    if path is None:
        return uri
    existing = _find_existing(path, wellknown_filenames)
    if existing is None:
        raise InvalidModelURI(settings.name, uri, path)
    return existing


def _find_existing(path: str, wellknown_filenames: Sequence[str]) -> str | None:
    """Return the file, the well-known file in the folder, or the folder; None if none exists."""
    if not os.path.isdir(path):
        return path if os.path.isfile(path) else None
    candidates = (os.path.join(path, filename) for filename in wellknown_filenames)
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), path)


def to_absolute_path(model_settings: ModelSettings, uri: str) -> str:
    """Return a normalized path; relative ones start at the folder of the settings file."""
    source = getattr(model_settings, "_source", None)
    return os.path.normpath(os.path.join(Path(source).parent if source else Path(), uri))


def insert_headers(
    inference_request: InferenceRequest, headers: dict[str, str]
) -> InferenceRequest:
    """Set `parameters.headers` to the headers of the call, replacing those in the body."""
    if inference_request.parameters is None:
        inference_request.parameters = Parameters(headers=headers)
        return inference_request
    if inference_request.parameters.headers is not None:
        logger.warning("`parameters.headers` of the request is replaced by the headers of the call")
    inference_request.parameters.headers = headers
    return inference_request


def extract_headers(inference_response: InferenceResponse) -> dict[str, str] | None:
    """Remove `parameters.headers` from a response and return them."""
    if inference_response.parameters is None:
        return None
    headers = inference_response.parameters.headers
    inference_response.parameters.headers = None
    return headers


def get_wrapped_method(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function below all decorators that set `__wrapped__`."""
    while hasattr(f, "__wrapped__"):
        f = f.__wrapped__
    return f


def schedule_with_callback(
    coroutine: Coroutine[Any, Any, T], callback: Callable[[asyncio.Task[T]], None]
) -> asyncio.Task[T]:
    """Run a coroutine as a task of the running loop, with a done callback."""
    task = asyncio.get_running_loop().create_task(coroutine)
    task.add_done_callback(callback)
    return task


class EventLoopBackend(StrEnum):
    """Available event loops."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class AsyncManager:
    """Runs coroutines to completion, each on a new event loop.

    Args:
        backend: The event loop; None = uvloop if installed, else asyncio.
    """

    def __init__(self, backend: EventLoopBackend | None = None) -> None:
        default = EventLoopBackend.UVLOOP if find_spec("uvloop") else EventLoopBackend.ASYNCIO
        self.backend = backend or default

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self.backend is EventLoopBackend.ASYNCIO:
            return asyncio.run(coroutine)
        import uvloop

        return uvloop.run(coroutine)


def install_uvloop_event_loop() -> None:
    """Make `asyncio.run` use uvloop, if it is installed."""
    if find_spec("uvloop"):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

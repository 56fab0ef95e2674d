"""The helpers that custom runtimes are promised. A closed list: what the server itself needs lives with its topic."""

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
    """A new random id for a request."""
    return str(uuid.uuid4())


async def get_model_uri(settings: ModelSettings, wellknown_filenames: Sequence[str] = ()) -> str:
    """Where a model's files are: the file or folder that `parameters.uri` names, as a path.

    A relative path starts at the folder of the model's settings file. In a folder, the first of `wellknown_filenames`
    that exists is taken. The address of another place (`s3://`, `models:/`) is returned untouched.

    Raises:
        InvalidModelURI: there is no uri, or nothing where it points.
    """
    uri = settings.parameters.uri if settings.parameters else None
    if not uri:
        raise InvalidModelURI(settings.name)
    path = locate(uri, settings.folder)
    if path is None:
        return uri
    found = _existing(path, wellknown_filenames)
    if found is None:
        raise InvalidModelURI(settings.name, uri, path)
    return found


def _existing(path: str, wellknown_filenames: Sequence[str]) -> str | None:
    """The file, or the well-known file in the folder, or the folder; None if there is nothing."""
    if not os.path.isdir(path):
        return path if os.path.isfile(path) else None
    candidates = (os.path.join(path, filename) for filename in wellknown_filenames)
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), path)


def to_absolute_path(model_settings: ModelSettings, uri: str) -> str:
    """A path from a model's settings, normalised; relative ones start at the folder of the settings file."""
    source = getattr(model_settings, "_source", None)
    return os.path.normpath(os.path.join(Path(source).parent if source else Path(), uri))


def insert_headers(
    inference_request: InferenceRequest, headers: dict[str, str]
) -> InferenceRequest:
    """Set the headers that came with a request as `parameters.headers`, in place of any that the caller wrote there."""
    if inference_request.parameters is None:
        inference_request.parameters = Parameters(headers=headers)
        return inference_request
    if inference_request.parameters.headers is not None:
        logger.warning("`parameters.headers` of the request is replaced by the headers of the call")
    inference_request.parameters.headers = headers
    return inference_request


def extract_headers(inference_response: InferenceResponse) -> dict[str, str] | None:
    """Take `parameters.headers` out of a response, to be sent as headers."""
    if inference_response.parameters is None:
        return None
    headers = inference_response.parameters.headers
    inference_response.parameters.headers = None
    return headers


def get_wrapped_method(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function under all decorators that tell what they wrap."""
    while hasattr(f, "__wrapped__"):
        f = f.__wrapped__
    return f


def schedule_with_callback(
    coroutine: Coroutine[Any, Any, T], callback: Callable[[asyncio.Task[T]], None]
) -> asyncio.Task[T]:
    """Run a coroutine as a task of the running loop and call back when it is done."""
    task = asyncio.get_running_loop().create_task(coroutine)
    task.add_done_callback(callback)
    return task


class EventLoopBackend(StrEnum):
    """The event loops to choose from."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class AsyncManager:
    """Runs coroutines to their end, each on a new event loop.

    Args:
        backend: Which loop; None = uvloop's if it is installed.
    """

    def __init__(self, backend: EventLoopBackend | None = None) -> None:
        self.backend = backend or (
            EventLoopBackend.UVLOOP if find_spec("uvloop") else EventLoopBackend.ASYNCIO
        )

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self.backend is EventLoopBackend.ASYNCIO:
            return asyncio.run(coroutine)
        import uvloop

        return uvloop.run(coroutine)


def install_uvloop_event_loop() -> None:
    """Make uvloop's the event loop of `asyncio.run`; without uvloop, nothing changes."""
    if find_spec("uvloop"):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

"""Requests that ask for no version, where a model's settings share them among its versions; and the shadow of such requests.

The shadow version is asked in the background after the caller has the answer. Its own answers are compared and counted, and
never seen by anybody; when too many of them are under way, further requests go without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..logging import get_logger
from ..pipeline import RequestContext
from ..registry import ModelRegistryView, ModelVersion
from ..types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput

logger = get_logger()

# Questions to shadow versions that are under way at once, of the whole server.
MOST = 8
Serve = Callable[[ModelVersion, InferenceRequest, RequestContext], Awaitable[InferenceResponse]]


class VersionRouter:
    """Chooses versions, and keeps the shadows' questions.

    Args:
        serve: Answers a request by an entry, as it does for callers.
    """

    def __init__(self, registry: ModelRegistryView, serve: Serve) -> None:
        self._registry = registry
        self._serve = serve
        self._under_way: set[asyncio.Task[None]] = set()

    def select_version(self, default: ModelVersion, context: RequestContext) -> ModelVersion:
        """The entry that answers a request for a model whose default entry has a split; kept in `context.selected_version`."""
        split = default.split
        assert split is not None
        usable = {
            entry.version: entry for entry in self._registry.versions(default.name) if entry.ready
        }
        if context.selected_version is None:
            key = (
                context.headers.get(split.sticky_header)
                if context.headers is not None and split.sticky_header
                else None
            )
            names = [version for version in usable if version is not None]
            context.selected_version = split.choose(names, None if key is None else str(key))
        return (
            usable.get(context.selected_version, default)
            if context.selected_version is not None
            else default
        )

    def shadow_of(
        self, default: ModelVersion, answering: ModelVersion, payload: InferenceRequest
    ) -> tuple[ModelVersion, InferenceRequest] | None:
        """The shadow's entry and its own copy of a request, taken before anybody works on it; None = there is none."""
        split = default.split
        if split is None or split.shadow is None or split.shadow == answering.version:
            return None
        found = [
            entry
            for entry in self._registry.versions(default.name)
            if entry.version == split.shadow
        ]
        return (found[0], _copy(payload)) if found and found[0].ready else None

    def ask_shadow(
        self,
        shadow: tuple[ModelVersion, InferenceRequest],
        answer: InferenceResponse,
        context: RequestContext,
    ) -> None:
        """Ask in the background. Returns at once."""
        entry, payload = shadow
        if len(self._under_way) >= MOST:
            entry.metrics.shadowed("dropped")
            return
        own = RequestContext(headers=context.headers)
        task = asyncio.get_running_loop().create_task(
            self._compare(entry, payload, answer.outputs, own)
        )
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def wait_idle(self) -> None:
        """Wait until no shadow is asked."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _compare(
        self,
        entry: ModelVersion,
        payload: InferenceRequest,
        expected: list[ResponseOutput],
        context: RequestContext,
    ) -> None:
        try:
            response = await self._serve(entry, payload, context)
            outcome = "same" if _plain(response.outputs) == _plain(expected) else "different"
        except Exception as error:
            logger.debug(
                "The shadow version '%s' of model '%s' failed: %s", entry.version, entry.name, error
            )
            outcome = "failed"
        entry.metrics.shadowed(outcome)


def _copy(payload: InferenceRequest) -> InferenceRequest:
    """The same tensors under heads of their own: whoever serves a request may change its heads and parameters."""
    parameters = payload.parameters
    inputs: list[RequestInput] = [
        tensor.model_copy(
            update={"parameters": tensor.parameters and tensor.parameters.model_copy(deep=True)}
        )
        for tensor in payload.inputs
    ]
    update = {
        "inputs": inputs,
        "parameters": parameters and parameters.model_copy(deep=True),
        "id": None,
    }
    return payload.model_copy(update=update)


def _plain(outputs: list[ResponseOutput]) -> list[object]:
    """What must be equal: names, datatypes, shapes and elements bit for bit."""
    return [
        (output.name, str(output.datatype), output.shape, _elements(output)) for output in outputs
    ]


def _elements(output: ResponseOutput) -> object:
    raw = output.data.raw
    if raw is not None:
        return bytes(raw)
    return [item.encode() if isinstance(item, str) else item for item in output.data.root]

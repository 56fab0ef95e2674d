"""Version router: selects a version by the traffic split, and mirrors requests to a shadow version.

A mirrored request runs in the background after the client has its response. The shadow's response
is compared, counted and dropped. While MAX_SHADOW_REQUESTS of them are running, further requests
are not mirrored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..log_context import variable
from ..logging import get_logger
from ..pipeline import RequestContext
from ..registry import ModelRegistryView, ModelVersion
from ..types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput

logger = get_logger()

# Requests to shadow versions at the same time, in this process.
MAX_SHADOW_REQUESTS = 8
Serve = Callable[[ModelVersion, InferenceRequest, RequestContext], Awaitable[InferenceResponse]]


class VersionRouter:
    """Selects versions, and runs mirrored requests.

    Args:
        registry: The loaded models.
        serve: Runs inference on one version.
    """

    def __init__(self, registry: ModelRegistryView, serve: Serve) -> None:
        self._registry = registry
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    async def infer(
        self, default: ModelVersion, payload: InferenceRequest, context: RequestContext
    ) -> InferenceResponse:
        """Run inference on the version that the split selects, and on its shadow."""
        selected = self.select_version(default, context)
        shadow = self._copy_for_shadow(default, selected, payload)
        response = await self._serve(selected, payload, context)
        if shadow is not None:
            self._start_shadow(shadow, response, context)
        return response

    def select_version(self, default: ModelVersion, context: RequestContext) -> ModelVersion:
        """Return the version that serves a request by the default version's split.

        Stored in `context.selected_version`.
        """
        split = default.split
        assert split is not None
        usable = {
            entry.version: entry for entry in self._registry.versions(default.name) if entry.ready
        }
        if context.selected_version is None:
            key = None
            if context.headers is not None and split.sticky_header:
                key = context.headers.get(split.sticky_header)
            names = [version for version in usable if version is not None]
            context.selected_version = split.choose(names, None if key is None else str(key))
        if context.selected_version is None:
            return default
        return usable.get(context.selected_version, default)

    def _copy_for_shadow(
        self, default: ModelVersion, answering: ModelVersion, payload: InferenceRequest
    ) -> tuple[ModelVersion, InferenceRequest] | None:
        """Return the shadow version and a copy of the unprocessed request; None = no shadow."""
        split = default.split
        if split is None or split.shadow is None or split.shadow == answering.version:
            return None
        for entry in self._registry.versions(default.name):
            if entry.version == split.shadow and entry.ready:
                return entry, _copy(payload)
        return None

    def _start_shadow(
        self,
        shadow: tuple[ModelVersion, InferenceRequest],
        response: InferenceResponse,
        context: RequestContext,
    ) -> None:
        """Run the copied request in the background, and compare its response with `response`."""
        entry, payload = shadow
        if len(self._tasks) >= MAX_SHADOW_REQUESTS:
            entry.metrics.shadowed("dropped")
            return
        shadow_context = RequestContext(headers=context.headers)
        task = asyncio.get_running_loop().create_task(
            self._compare(entry, payload, response.outputs, shadow_context)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_idle(self) -> None:
        """Wait until no mirrored request is running."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _compare(
        self,
        entry: ModelVersion,
        payload: InferenceRequest,
        expected: list[ResponseOutput],
        context: RequestContext,
    ) -> None:
        variable.set(None)  # of this task: its log lines are not the client's request
        try:
            response = await self._serve(entry, payload, context)
            outcome = (
                "same"
                if _to_comparable(response.outputs) == _to_comparable(expected)
                else "different"
            )
        except Exception as error:
            logger.debug(
                "The shadow version '%s' of model '%s' failed: %s", entry.version, entry.name, error
            )
            outcome = "failed"
        entry.metrics.shadowed(outcome)


def _copy(payload: InferenceRequest) -> InferenceRequest:
    """Return a copy that shares the tensors' data.

    Stages may change parameters and the tensors' other fields.
    """
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


def _to_comparable(outputs: list[ResponseOutput]) -> list[object]:
    """Return what is compared: names, datatypes, shapes, and elements bit for bit."""
    return [
        (output.name, str(output.datatype), output.shape, _get_elements(output))
        for output in outputs
    ]


def _get_elements(output: ResponseOutput) -> object:
    raw = output.data.raw
    if raw is not None:
        return bytes(raw)
    return [item.encode() if isinstance(item, str) else item for item in output.data.root]

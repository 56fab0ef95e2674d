"""MLflowRuntime: V2 inference and MLflow's scoring protocol for a loaded model (`pyfunc_model`).

Both protocols end in `predict`: the wire format of `/invocations` (`invocations`) converts plain
bodies to ordinary V2 requests and passes others through unread. A request takes the fast path that
was verified at load (`fastpath`), or the slow path: decoding (`v2.request_decoder`), MLflow's own
predict with its enforcement, encoding (`v2.response_encoder`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from mlflow.version import VERSION

from mlserver.context import joined_rows
from mlserver.errors import CannotBatch, MLServerError
from mlserver.types import InferenceRequest, InferenceResponse

from . import codecs as codecs  # registers the content type `dict`
from . import invocations
from .agents import openai_format, routes, streams, traces
from .fastpath.predictors import run_per_request
from .invocations import json_formats, scoring
from .pyfunc_model import PyfuncModel
from .v2.joined_results import BatchLayout, is_separable
from .v2.predict_methods import add_outputs, without_outputs
from .v2.request_decoder import (
    FROM_REQUEST,
    DecodedRequest,
    explain_error,
)
from .v2.type_enforcement import AppliedContentType

if TYPE_CHECKING:
    from starlette.responses import Response


class MLflowRuntime(PyfuncModel):
    """Inference by one MLflow model: V2, MLflow's scoring protocol, and streams of both."""

    # -- V2 --

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if invocations.is_passthrough(payload):
            return await self._predict_passthrough(payload)
        if payload.outputs:
            requested = {output.name for output in payload.outputs}
            methods = self._methods.select(payload) if self._methods is not None else []
            payload = without_outputs(payload)
            if methods:
                methods_only = len(methods) == len(requested)
                return await self._predict_by_methods(methods, payload, methods_only)
        rows_per_request = joined_rows()
        if len(rows_per_request) > 1:
            return self._encoder.encode(await self._predict_joined(payload, rows_per_request))
        return self._encoder.encode(await self._predict_together(payload))

    async def _predict_together(self, payload: InferenceRequest) -> Any:
        """Return the model's result of one call for all rows."""
        path = self._path
        data = path.read(payload) if path is not None else None
        if path is None or data is None:
            return await self._predict_enforced(payload, self._predict_with)
        return await self._caller.call(path.run, data)

    async def _predict_joined(
        self, payload: InferenceRequest, rows_per_request: Sequence[int]
    ) -> Any:
        """Return the result of joined requests, in which each has its own result unchanged.

        Raises:
            CannotBatch: one result cannot give that, so the scheduler runs the requests one by one.
        """
        self._join_backoff.check()
        is_cheap = self._plan.is_estimator or self._settings.max_batch_size <= 1
        if self._plan.per_request and is_cheap:
            path = self._path
            data = path.read(payload) if path is not None else None
            if path is None or data is None:
                raise CannotBatch
            result = await self._caller.call(run_per_request, path, data, rows_per_request)
        else:
            result = await self._predict_together(payload)
        layout = BatchLayout(rows_per_request, self._plan.has_fixed_types)
        self._join_backoff.record(is_separable(result, layout, self._declared_outputs))
        return result

    async def _predict_by_methods(
        self, names: list[str], payload: InferenceRequest, methods_only: bool
    ) -> InferenceResponse:
        """Return the results of methods of the estimator, and those of predict if requested."""
        assert self._methods is not None
        data = self._methods.read(payload)
        rows_per_request = joined_rows()
        if data is not None:
            results = await self._caller.call(self._methods.run, data, names, rows_per_request)
        elif len(rows_per_request) > 1:
            raise CannotBatch
        else:
            results = await self._predict_enforced(payload, self._methods.run_enforced, names)
        response = self._encoder.encode({}) if methods_only else await self.predict(payload)
        return add_outputs(response, results)

    async def _predict_enforced(
        self, payload: InferenceRequest, predict: Any, *arguments: Any
    ) -> Any:
        """Return the result of `predict(data, params, ...)`, with enforcement errors explained."""
        decoded, params = self._decode(payload)
        try:
            return await self._caller.call(predict, decoded.data, params, *arguments)
        except MLServerError as error:
            raise explain_error(error, decoded, self._input_schema) from None

    def _predict_with(self, data: Any, params: dict[str, Any] | None) -> Any:
        return self._current_model.predict(data, params=params)

    # -- scoring protocol --

    async def _predict_passthrough(self, payload: InferenceRequest) -> InferenceResponse:
        score = partial(self._score_passthrough, *invocations.unwrap_body(payload))
        if self._returns_trace_id(payload):
            score = partial(traces.score_with_trace_id, score)
        text = await self.call_in_thread(score)
        return invocations.wrap_result(self.name, self.version, text)

    def _score_passthrough(self, body: bytes, content_type: str) -> str:
        try:
            return self._score(body, content_type)
        except MLServerError as error:
            raise scoring.explain_v2(error, body, self.name) from error

    def _score(self, body: bytes | str, content_type: str) -> str:
        """Return the JSON response for a scoring body."""
        path, config = self._path, self._plan.json_config
        if path is None or not config or content_type not in invocations.PLAIN_JSON:
            return scoring.score(self._model, body, content_type, self._base64_columns)
        request = json_formats.read_request(body, config)
        data = None if request is None else path.read(request)
        if data is None:
            return scoring.score(self._model, body, content_type)
        try:
            result = path.run(data)
        except Exception as error:
            return scoring.score(scoring.RaisingModel(self._model, error), body, content_type)
        return scoring.write_predictions(result)

    def _returns_trace_id(self, payload: InferenceRequest) -> bool:
        return routes.can_return_trace(self._model) and traces.is_requested(payload)

    # -- streams --

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        """Yield one response per chunk of the model's `predict_stream`, else that of `predict`."""
        async for payload in payloads:
            if not self._can_stream:
                yield await self.predict(payload)
            elif invocations.is_passthrough(payload):
                async with aclosing(self._stream_passthrough(payload)) as texts:
                    async for text in texts:
                        yield openai_format.wrap_chunk(self.name, self.version, text)
            else:
                decoded, params = self._decode(payload)
                async with aclosing(self._iterate(self._stream_with, decoded, params)) as chunks:
                    async for chunk in chunks:
                        yield self._encoder.encode(chunk)
            return

    async def _stream_passthrough(self, payload: InferenceRequest) -> AsyncGenerator[str, None]:
        body, content_type = invocations.unwrap_body(payload)
        captured = await self.call_in_thread(
            scoring.read_body, self._model, body, content_type, self._base64_columns
        )
        returns_trace_id = self._returns_trace_id(payload)
        stream = self._stream_with_trace_id if returns_trace_id else self._stream_with
        decoded = DecodedRequest(captured.data, AppliedContentType(None, FROM_REQUEST))
        async with aclosing(self._iterate(stream, decoded, captured.params)) as chunks:
            async for chunk in chunks:
                yield scoring.write_unwrapped(chunk)

    async def _iterate(
        self, stream: Any, decoded: DecodedRequest, params: dict[str, Any] | None
    ) -> AsyncGenerator[Any, None]:
        """Yield the chunks of a stream, with enforcement errors explained."""
        async with aclosing(streams.iterate(self._caller, stream, decoded.data, params)) as chunks:
            try:
                async for chunk in chunks:
                    yield chunk
            except MLServerError as error:
                raise explain_error(error, decoded, self._input_schema) from None

    def _stream_with(self, data: Any, params: dict[str, Any] | None) -> Any:
        return self._current_model.predict_stream(data, params=params)

    def _stream_with_trace_id(self, data: Any, params: dict[str, Any] | None) -> Any:
        return traces.append_trace_id(self._stream_with(data, params))

    # -- methods of MLServer 1.x --

    async def ping(self) -> str:
        return "\n"

    async def health(self) -> str:
        return "\n"

    async def mlflow_version(self) -> str:
        return str(VERSION)

    async def invocations(self, raw_body: str | bytes, content_type: str = "") -> Response:
        """Score a body; the HTTP path of this name does the same through the server's pipeline."""
        from starlette.responses import Response

        try:
            text = await self.call_in_thread(self._score, raw_body, content_type)
        except MLServerError as error:
            status, body, media_type = invocations.write_error(error, {})
            return Response(body, status_code=status, media_type=media_type)
        return Response(text, media_type=invocations.JSON)

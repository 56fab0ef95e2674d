"""MLflowRuntime: loads an MLflow model and serves V2 inference and MLflow's scoring protocol.

Both protocols end in `predict`: the wire format of `/invocations` (`invocations`) converts plain
bodies to ordinary V2 requests and passes others through unread. A request takes the fast path that
was verified at load (`fastpath`), or the slow path: decoding (`v2.request_decoder`), MLflow's own
predict with its enforcement, encoding (`v2.response_encoder`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.version import VERSION

from mlserver import isolation
from mlserver.context import joined_rows
from mlserver.custom_routes import Route
from mlserver.errors import CannotBatch, MLServerError
from mlserver.model import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse

from . import codecs as codecs  # registers the content type `dict`
from . import invocations
from .agents import openai_format, routes, streams, traces
from .fastpath import selection, sklearn_arrays, trial_results
from .fastpath.predictors import FastPath, run_per_request
from .invocations import base64_columns, json_formats, openapi_trials, scoring
from .loading import code_files, path_aliases, pyfunc, shipped_code, sources
from .metadata import add_model_details, apply_signature
from .model_calls import ModelCaller, choose_max_concurrency
from .v2 import categories
from .v2.declared_outputs import DeclaredOutputs
from .v2.join_backoff import JoinBackoff
from .v2.joined_results import BatchLayout, is_separable
from .v2.params import read_params
from .v2.predict_methods import PredictMethods, add_outputs, without_outputs
from .v2.request_decoder import (
    FROM_REQUEST,
    DecodedRequest,
    RequestDecoder,
    decode_by_codec,
    explain_error,
)
from .v2.response_encoder import ResponseEncoder
from .v2.type_enforcement import AppliedContentType

if TYPE_CHECKING:
    from starlette.responses import Response

WIRE = "mlserver_mlflow.invocations"


class MLflowRuntime(MLModel):
    """One MLflow model of any flavor with a pyfunc loader."""

    _source: sources.Source | None = None
    _claim: int | None = None

    # -- loading --

    async def load(self) -> bool:
        self._source = await sources.resolve(self._settings)
        folder = code_files.check_code(self.name, self._source.folder)
        self._claim = await asyncio.to_thread(
            shipped_code.claim, self.name, folder, self._source.address
        )
        fingerprint = await asyncio.to_thread(trial_results.fingerprint_files, folder)
        self._known = trial_results.KnownTrials(self.trial_results, fingerprint)
        try:
            self._load_model(folder)
            await self._choose_examples(folder)
        except BaseException:
            isolation.release(self._claim)
            raise
        plan = selection.describe_plan(self._plan)
        self.trial_results = trial_results.pack(fingerprint, plan, self._examples)
        return True

    def _load_model(self, folder: str) -> None:
        try:
            path = path_aliases.readable_path(folder, self._extra.get("cache_dir"))
            self._model = pyfunc.load_model(path, pyfunc.read_model_config(self._extra))
        except MlflowException as error:
            place = (self._source and self._source.address) or folder
            text = f"Model {self.name} cannot be loaded from '{place}': {error.message}"
            raise MLServerError(text, 500) from error
        traces.disable_by_default()
        sklearn_arrays.ignore_feature_name_warnings()
        self._loaded_model = self._model
        self._signature = self._model.metadata.signature
        apply_signature(self, self._settings, self._signature)
        self._prepare_v2()
        self._can_stream = routes.can_stream(self._model)
        self._base64_columns = base64_columns.get_base64_columns(
            self._input_schema, self._extra, pyfunc.is_from_type_hint(self._model)
        )

    def _prepare_v2(self) -> None:
        model = self._model
        self._input_schema = model.metadata.get_input_schema()
        self._params_schema = model.metadata.get_params_schema()
        self._exact_model = categories.with_categories(pyfunc.with_exact_names(model))
        self._plan = selection.make_plan(self._exact_model, self._known.plan)
        self.row_wise = self._plan.row_wise
        self._methods = PredictMethods.from_model(self._exact_model, self._plan.path)
        parameters = self._settings.parameters
        self._decoder = RequestDecoder(
            self._input_schema,
            parameters.content_type if parameters else None,
            pyfunc.is_from_type_hint(model),
        )
        self._declared_outputs = DeclaredOutputs(model.metadata.get_output_schema())
        self._encoder = ResponseEncoder(self.name, self.version, self._declared_outputs)
        self._join_backoff = JoinBackoff(self.name)
        self.max_concurrency = choose_max_concurrency(self._exact_model.loader_module)
        # A limit of the settings counts calls in threads: all calls run there then.
        in_thread = self._plan.in_thread or self._settings.max_concurrency is not None
        self._caller = ModelCaller(self, in_thread, is_estimator=not self._plan.in_thread)

    async def _choose_examples(self, folder: str) -> None:
        may_predict = routes.get_agent_kind(self._model) is None
        self._examples = self._known.examples or await openapi_trials.choose_examples(
            self, folder, self.inputs or [], may_predict
        )
        if self._extra.get("follow"):
            await asyncio.to_thread(openapi_trials.score_example, self.name, self._score, folder)

    async def unload(self) -> bool:
        unloaded = await super().unload()
        isolation.release(self._claim)
        return unloaded

    @property
    def _extra(self) -> dict[str, Any]:
        return self._settings.parameters.extra if self._settings.parameters else {}

    @property
    def version(self) -> str | None:
        """The settings' version, else the version in the registry."""
        return super().version or (self._source.version if self._source is not None else None)

    async def metadata(self) -> MetadataModelResponse:
        """Return the signature, with its params in `parameters`, and the source of the model."""
        response = await super().metadata()
        address = self._source.address if self._source is not None else None
        return add_model_details(response, self.version, self._signature, address)

    def routes(self) -> list[Route]:
        config = {**self._plan.route_config, **self._examples}
        plain = Route("/invocations", "POST", handler="invocations", wire=WIRE, config=config)
        return [
            Route("/ping", "GET", static="\n", public=True),
            Route("/health", "GET", static="\n", public=True),
            Route("/version", "GET", static=VERSION),
            *(routes.make_routes(self.name, self._model, self._examples) or [plain]),
            *super().routes(),
        ]

    async def resolve_source(self, uri: str) -> str:
        address, _ = await asyncio.to_thread(sources.resolve_version, uri)
        return address

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

    @property
    def _current_model(self) -> Any:
        """The model with exact enforcement, unless a subclass or test has replaced `_model`."""
        return self._exact_model if self._model is self._loaded_model else self._model

    @property
    def _path(self) -> FastPath | None:
        """The fast path, unless the model or its predict was replaced after the load."""
        is_replaced = self._model is not self._loaded_model or "predict" in vars(self._model)
        return None if is_replaced else self._plan.path

    def _decode(self, payload: InferenceRequest) -> tuple[DecodedRequest, dict[str, Any] | None]:
        """Return data and params for the model's own predict."""
        parameters = payload.parameters
        params = read_params(parameters, self._params_schema)
        content_type = parameters.content_type if parameters is not None else None
        if self._decoder.can_decode(content_type):
            return self._decoder.decode(payload), params
        return decode_by_codec(payload, self._settings, self._metadata_inputs), params

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

"""MLflowRuntime: loads an MLflow model and answers V2 requests and MLflow's own scoring protocol with it.

Both protocols meet in `predict`: the wire format of `/invocations` (`invocations`) makes ordinary V2 requests of plain
bodies and carries all others as they came. A request takes the short way that was proven at load (`plan`, `fastpath`)
or the general one: `decoding`, MLflow's own predict with its enforcement, `outputs`.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.version import VERSION

from mlserver import isolation
from mlserver.codecs import decode_inference_request
from mlserver.context import joined_rows
from mlserver.custom_routes import Route
from mlserver.errors import CannotBatch, MLServerError, format_exception
from mlserver.logging import get_logger
from mlserver.model import MLModel
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, Parameters

from . import codecs as codecs  # registers the content type `dict`
from . import invocations
from .agents import openai_format, routes, traces
from .fastpath import selection, sklearn_arrays
from .fastpath.predictors import FastPath, run_per_request
from .invocations import base64_columns, json_formats, openapi_examples, openapi_trials, scoring
from .loading import code_files, path_aliases, shipped_code, sources
from .loading.pyfunc import from_type_hint, load_model, with_exact_names
from .metadata import (
    DefaultOutputPrefix,
    to_metadata_tensors,
    to_model_content_type,
    to_params,
    warn_of_renamed_inputs,
)
from .v2 import categories, predict_methods
from .v2.declared_outputs import DeclaredOutputs
from .v2.join_backoff import Joining
from .v2.joined_results import Members, is_separable
from .v2.params import read_params
from .v2.request_decoder import FROM_REQUEST, Decoded, Decoder, explained
from .v2.response_encoder import Encoder
from .v2.type_enforcement import AppliedContentType

if TYPE_CHECKING:
    from starlette.responses import Response

logger = get_logger()

SERVING_ENVIRONMENT = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
SERVING_MODEL_CONFIG = "SERVING_MODEL_CONFIG"
WIRE = "mlserver_mlflow.invocations"


class MLflowRuntime(MLModel):
    """One MLflow model, of any flavor that has a pyfunc loader."""

    _source: sources.Source | None = None
    _claim: int | None = None

    async def load(self) -> bool:
        self._source = await sources.resolve(self._settings)
        uri = code_files.checked(self.name, self._source.folder)
        self._claim = await asyncio.to_thread(
            shipped_code.claim, self.name, uri, self._source.address
        )
        try:
            return await self._load(uri)
        except BaseException:
            isolation.release(self._claim)
            raise

    async def _load(self, uri: str) -> bool:
        # Without it, MLflow leaves bytes and datetimes of type-hinted models as the text that JSON carries.
        os.environ.setdefault(SERVING_ENVIRONMENT, "true")
        try:
            path = path_aliases.readable_path(uri, self._extra.get("cache_dir"))
            self._model = load_model(path, model_config=self._model_config())
        except MlflowException as error:
            place = (self._source and self._source.address) or uri
            raise MLServerError(
                f"Model {self.name} cannot be loaded from '{place}': {error.message}", 500
            ) from error
        traces.normalize()
        self._signature = self._model.metadata.signature
        self._input_schema = self._model.metadata.get_input_schema()
        self._streams = routes.streams(self._model)
        self._params_schema = self._model.metadata.get_params_schema()
        self._binaries = base64_columns.columns(
            self._input_schema, self._extra, from_type_hint(self._model)
        )
        self._describe()
        sklearn_arrays.ignore_feature_name_warnings()
        self._checking = categories.with_categories(with_exact_names(self._model))
        self._plan = selection.make(self._checking)
        self._methods = predict_methods.of(self._checking, self._plan.path)
        self.row_wise = self._plan.row_wise
        self._planned_for = self._model
        self._decoder = Decoder(
            self._input_schema,
            self._settings.parameters.content_type if self._settings.parameters else None,
            from_type_hint(self._model),
        )
        self._declared = DeclaredOutputs(self._model.metadata.get_output_schema())
        self._encoder = Encoder(self.name, self.version, self._declared)
        self._joining = Joining(self.name)
        self._shown = await openapi_trials.choose_examples(
            self,
            openapi_examples.of(uri),
            self.inputs or [],
            may_predict=routes.kind_of(self._model) is None,
        )
        if self._extra.get("follow"):
            await asyncio.to_thread(openapi_trials.answer_example, self.name, self._score, uri)
        return True

    @property
    def _extra(self) -> dict[str, Any]:
        return self._settings.parameters.extra if self._settings.parameters else {}

    @property
    def version(self) -> str | None:
        """The settings' version, else the one that the registry gave the model."""
        return super().version or (self._source.version if self._source is not None else None)

    def _model_config(self) -> dict[str, Any] | None:
        """`parameters.extra.model_config`, else MLflow's own variable."""
        config = self._extra.get("model_config")
        if config is None and os.environ.get(SERVING_MODEL_CONFIG):
            config = json.loads(os.environ[SERVING_MODEL_CONFIG])
        return config

    def _describe(self) -> None:
        """Set inputs, outputs and content type from the signature; without one, the settings' stay."""
        if self._signature is None:
            return
        if self._signature.inputs is not None:
            self.inputs = inputs = to_metadata_tensors(self._signature.inputs)
            warn_of_renamed_inputs(self.name, self._signature.inputs, inputs)
            self._set_content_type(to_model_content_type(self._signature.inputs))
        if self._signature.outputs is not None:
            self.outputs = to_metadata_tensors(self._signature.outputs, DefaultOutputPrefix)

    def _set_content_type(self, content_type: str) -> None:
        if self._settings.parameters is None:
            self._settings.parameters = ModelParameters()
        given = self._settings.parameters.content_type
        if given and given != content_type:
            logger.warning(
                "Model '%s': content type '%s' of the settings is replaced by '%s' of the model's signature",
                self.name,
                given,
                content_type,
            )
        self._settings.parameters.content_type = content_type

    async def unload(self) -> bool:
        unloaded = await super().unload()
        isolation.release(self._claim)
        return unloaded

    async def metadata(self) -> MetadataModelResponse:
        """The signature, its params in `parameters.params`; for a model of a registry or a store, where it came from."""
        found = await super().metadata()
        if not found.versions and self.version:
            found.versions = [self.version]
        more: dict[str, Any] = {}
        params = to_params(self._signature.params if self._signature is not None else None)
        if params:
            more["params"] = params
        if self._source is not None and self._source.address is not None:
            more["source"] = self._source.address
        if more:
            known = found.parameters.to_dict() if found.parameters is not None else {}
            found.parameters = Parameters(**known, **more)
        return found

    def _plain_invocations(self) -> Route:
        config = {**self._plan.config, **self._shown}
        return Route("/invocations", "POST", handler="invocations", wire=WIRE, config=config)

    def routes(self) -> list[Route]:
        return [
            Route("/ping", "GET", static="\n", public=True),
            Route("/health", "GET", static="\n", public=True),
            Route("/version", "GET", static=VERSION),
            *(routes.routes(self.name, self._model, self._shown) or [self._plain_invocations()]),
            *super().routes(),
        ]

    async def resolve_source(self, uri: str) -> str:
        address, _ = await asyncio.to_thread(sources.fixed, uri)
        return address

    # -- V2 --

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if invocations.is_passthrough(payload):
            answer = partial(self._score_carried, *invocations.unwrap_body(payload))
            if self._tells_trace(payload):
                answer = partial(traces.answered, answer)
            text = await asyncio.to_thread(answer)
            return invocations.answer(self.name, self.version, text)
        if payload.outputs:
            wanted = len({output.name for output in payload.outputs})
            asked = self._methods.asked(payload) if self._methods is not None else []
            payload = predict_methods.without_outputs(payload)
            if asked:
                return await self._predict_by(asked, payload, alone=len(asked) == wanted)
        members = joined_rows()
        if len(members) > 1:
            return self._encoder.encode(await self._predict_joined(payload, members))
        return self._encoder.encode(await self._result(payload))

    async def _result(self, payload: InferenceRequest) -> Any:
        """What the model gives for one request, or for a batch whose rows it takes together."""
        path = self._path
        data = path.read(payload) if path is not None else None
        if path is None or data is None:
            return await self._enforced(payload, self._predict_with)
        return await self._run(path.run, data)

    async def _predict_joined(self, payload: InferenceRequest, members: Sequence[int]) -> Any:
        """The result of joined requests, of which each gets what it gets alone.

        Raises:
            NotTogether: that cannot be had from one result, so the scheduler runs them one by one.
        """
        self._joining.check()
        if self._plan.per_request and (
            self._plan.is_estimator or self._settings.max_batch_size <= 1
        ):
            path = self._path
            data = path.read(payload) if path is not None else None
            if path is None or data is None:
                raise CannotBatch
            result = await self._run(run_per_request, path, data, members)
        else:
            result = await self._result(payload)
        self._joining.normalize(
            is_separable(result, Members(members, self._plan.has_fixed_types), self._declared)
        )
        return result

    async def _predict_by(
        self, names: list[str], payload: InferenceRequest, alone: bool
    ) -> InferenceResponse:
        """Answer with the results of methods of the estimator, beside those of predict unless they are wanted alone."""
        assert self._methods is not None
        data = self._methods.read(payload)
        members = joined_rows()
        if data is not None:
            results = await self._run(self._methods.run, data, names, members)
        elif len(members) > 1:
            raise CannotBatch
        else:
            results = await self._enforced(payload, self._methods.run_enforced, names)
        ordinary = self._encoder.encode({}) if alone else await self.predict(payload)
        return predict_methods.added(ordinary, results)

    @property
    def _path(self) -> FastPath | None:
        """The short way, unless somebody put another model or another predict in place since load."""
        untouched = self._model is self._planned_for and "predict" not in vars(self._model)
        return self._plan.path if untouched else None

    def _score_carried(self, body: bytes, content_type: str) -> str:
        try:
            return self._score(body, content_type)
        except MLServerError as error:
            raise scoring.explain_v2(error, body, self.name) from error

    def _score(self, body: bytes | str, content_type: str) -> str:
        """The JSON text that answers a scoring body."""
        path = self._path
        if path is None or not self._plan.forms or content_type not in invocations.PLAIN_JSON:
            return scoring.score(self._model, body, content_type, self._binaries)
        request = json_formats.read_request(body, self._plan.forms)
        data = None if request is None else path.read(request)
        if data is None:
            return scoring.score(self._model, body, content_type)
        try:
            result = path.run(data)
        except Exception as error:
            return scoring.score(scoring.RaisingModel(self._model, error), body, content_type)
        return scoring.written(result)

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        """One response per chunk of the model's `predict_stream`; a model without one answers once, by `predict`."""
        async for payload in payloads:
            if not self._streams:
                yield await self.predict(payload)
                return
            if invocations.is_passthrough(payload):
                read = await asyncio.to_thread(
                    scoring.read, self._model, *invocations.unwrap_body(payload), self._binaries
                )
                stream = (
                    self._stream_with_trace if self._tells_trace(payload) else self._stream_with
                )
                async for chunk in self._chunks(
                    Decoded(read.data, AppliedContentType(None, FROM_REQUEST)), read.params, stream
                ):
                    yield openai_format.chunk(self.name, self.version, scoring.unwrapped(chunk))
                return
            decoded, params = self._decode(payload)
            async for chunk in self._chunks(decoded, params, self._stream_with):
                yield self._encoder.encode(chunk)
            return

    async def _chunks(
        self, decoded: Decoded, params: dict[str, Any] | None, stream: Any
    ) -> AsyncIterator[Any]:
        """The chunks of a stream, made in threads, but all of them in one context, as MLflow's tracing needs it."""
        context = contextvars.copy_context()
        end = object()
        chunks: Any = None
        try:
            chunks = await self._run(context.run, stream, decoded.data, params, in_thread=True)
            while (
                chunk := await self._run(context.run, next, chunks, end, in_thread=True)
            ) is not end:
                yield chunk
        except MLServerError as error:
            raise explained(error, decoded, self._input_schema) from None
        finally:
            # The caller may have gone before the end; the model's generator then hears of it too.
            if hasattr(chunks, "close"):
                await asyncio.to_thread(context.run, chunks.close)

    def _stream_with(self, data: Any, params: dict[str, Any] | None) -> Any:
        return self._model.predict_stream(data, params=params)

    def _stream_with_trace(self, data: Any, params: dict[str, Any] | None) -> Any:
        return traces.followed(self._stream_with(data, params))

    def _tells_trace(self, payload: InferenceRequest) -> bool:
        return routes.tells_trace(self._model) and traces.is_asked(payload)

    async def _enforced(self, payload: InferenceRequest, predict: Any, *arguments: Any) -> Any:
        """The result of `predict(data, params, ...)`, with what MLflow's enforcement says explained."""
        decoded, params = self._decode(payload)
        try:
            return await self._run(predict, decoded.data, params, *arguments)
        except MLServerError as error:
            raise explained(error, decoded, self._input_schema) from None

    def _predict_with(self, data: Any, params: dict[str, Any] | None) -> Any:
        model = self._checking if self._model is self._planned_for else self._model
        return model.predict(data, params=params)

    def _decode(self, payload: InferenceRequest) -> tuple[Decoded, dict[str, Any] | None]:
        """Data and params for the model's own predict."""
        parameters = payload.parameters
        params = read_params(parameters, self._params_schema)
        content_type = parameters.content_type if parameters is not None else None
        if self._decoder.knows(content_type):
            return self._decoder.decode(payload), params
        return self._decode_by_codec(payload, content_type), params

    def _decode_by_codec(self, payload: InferenceRequest, content_type: str | None) -> Decoded:
        """A content type of somebody's own request codec; one that nobody registered is an error."""
        data = decode_inference_request(payload, self._settings, self._metadata_inputs)
        if data is None:
            known = "pd, np, dict, str"
            raise MLServerError(
                f"Unknown content type '{content_type}' of the request: expected one of {known}"
            )
        return Decoded(data, AppliedContentType(content_type, FROM_REQUEST))

    async def _run(self, predict: Any, *arguments: Any, in_thread: bool | None = None) -> Any:
        """Call the model's predict here or in a thread, with its exceptions as errors for the caller."""
        try:
            if self._plan.in_thread if in_thread is None else in_thread:
                return await asyncio.to_thread(predict, *arguments)
            return predict(*arguments)
        except MLServerError:
            raise
        except MlflowException as error:
            raise scoring.refusal(error) from None
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> MLServerError:
        """The model's own code raised. Estimators raise ValueError for data that they cannot take, such as NaN."""
        is_refusal = isinstance(error, ValueError) and not self._plan.in_thread
        scoring.log_failure(self.name, error, is_refusal or openapi_trials.is_running())
        status = 400 if is_refusal else 500
        return scoring.model_error(
            f"Model {self.name} failed to predict: {format_exception(error)}", status
        )

    # -- MLflow's own protocol, as methods --

    async def ping(self) -> str:
        return "\n"

    async def health(self) -> str:
        return "\n"

    async def mlflow_version(self) -> str:
        return str(VERSION)

    async def invocations(self, raw_body: str | bytes, content_type: str = "") -> Response:
        """Answer a scoring body; the HTTP path of the same name does the same over the model's ordinary road."""
        from starlette.responses import Response

        try:
            text = await asyncio.to_thread(self._score, raw_body, content_type)
        except MLServerError as error:
            status, body, media_type = invocations.write_error(error, {})
            return Response(body, status_code=status, media_type=media_type)
        return Response(text, media_type=invocations.JSON)

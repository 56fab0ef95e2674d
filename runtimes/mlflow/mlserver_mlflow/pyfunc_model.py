"""PyfuncModel: an MLflow model in memory, its metadata and its routes. `runtime` adds inference."""

from __future__ import annotations

import asyncio
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.version import VERSION

from mlserver import isolation
from mlserver.custom_routes import Route
from mlserver.errors import MLServerError
from mlserver.model import MLModel
from mlserver.types import InferenceRequest, MetadataModelResponse

from .agents import routes, traces
from .fastpath import selection, sklearn_arrays, trial_results
from .fastpath.predictors import FastPath
from .invocations import base64_columns, openapi_trials
from .loading import code_files, path_aliases, pyfunc, shipped_code, sources
from .metadata import add_model_details, apply_signature
from .model_calls import ModelCaller, choose_max_concurrency
from .v2 import categories
from .v2.declared_outputs import DeclaredOutputs
from .v2.join_backoff import JoinBackoff
from .v2.params import read_params
from .v2.predict_methods import PredictMethods
from .v2.request_decoder import DecodedRequest, RequestDecoder, decode_by_codec
from .v2.response_encoder import ResponseEncoder

WIRE = "mlserver_mlflow.invocations"


class PyfuncModel(MLModel):
    """One MLflow model of any flavor with a pyfunc loader, and what is derived from it at load."""

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

    def _score(self, body: bytes | str, content_type: str) -> str:
        """Return the JSON response for a scoring body."""
        raise NotImplementedError

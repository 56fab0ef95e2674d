"""What a model's class and methods must return, with errors that say what to change."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

from ...errors import InferenceError, ModelFailed, ModelLoadError
from ...model import MLModel
from ...settings import ModelSettings
from ...tensor import TensorError
from ...types import InferenceResponse
from .implementations import import_implementation

_ENCODE = "encode the result with a codec, or decorate predict with @decode_args"


def create_model(settings: ModelSettings) -> MLModel:
    """Return an instance of the implementation.

    Raises:
        MLServerError: it cannot be imported, is no runtime, or does not call `super().__init__`.
    """
    implementation: object = import_implementation(settings)
    what = f"Model {settings.name}: implementation '{settings.implementation_}'"
    if not callable(implementation):
        kind = type(implementation).__name__
        raise ModelLoadError(f"{what}: expected a subclass of mlserver.MLModel, received a {kind}")
    model: object = implementation(settings)
    if not isinstance(model, MLModel):
        kind = type(model).__name__
        raise ModelLoadError(f"{what}: expected a subclass of mlserver.MLModel, received {kind}")
    if not hasattr(model, "_settings"):
        raise ModelLoadError(f"{what}: its __init__ must call super().__init__(settings)")
    return model


async def load_model(model: MLModel) -> bool:
    """Return whether the model is ready, from its `load`.

    Raises:
        ModelLoadError: `load` is no coroutine, or has returned nothing.
    """
    loading: Any = model.load()
    if not inspect.isawaitable(loading):
        kind = type(loading).__name__
        raise ModelLoadError(
            f"Model {model.name}: load must be a coroutine (async def load), and returned {kind}"
        )
    ready: object = await loading
    if ready is None:
        raise ModelLoadError(
            f"Model {model.name}: load returned None, expected True ('return True' at its end)"
        )
    return bool(ready)


def check_stream(model: MLModel, responses: Any) -> AsyncIterator[Any]:
    """Return the iterator over the responses of `predict_stream`. Raises `ModelFailed`."""
    if hasattr(responses, "__aiter__"):
        return aiter(responses)
    if inspect.iscoroutine(responses):
        responses.close()
    kind = type(responses).__name__
    raise ModelFailed(
        f"Model {model.name}: predict_stream returned {kind}, expected an asynchronous generator:"
        " 'async def' with 'yield'"
    )


def check_response(model: MLModel, response: object) -> InferenceResponse:
    """Return the response with normalized outputs.

    Raises:
        MLServerError: its type or an output is invalid.
    """
    # pydantic's `isinstance` is slow and needed for subclasses only.
    if type(response) is not InferenceResponse and not isinstance(response, InferenceResponse):
        raise InferenceError(
            f"Model '{model.name}' returned no predictions after inference: expected"
            f" InferenceResponse, received {_describe(response)}",
            500,
        )
    if not isinstance(response.outputs, list):
        kind = type(response.outputs).__name__
        raise ModelFailed(
            f"Model {model.name} returned invalid outputs: expected a list, received {kind}"
        )
    for output in response.outputs:
        try:
            output.data.normalize(str(output.datatype), output.shape)
        except TensorError as error:
            raise ModelFailed(
                f"Model {model.name} returned invalid output '{output.name}': {error}"
            ) from None
    return response


def _describe(response: object) -> str:
    """Return the type of what `predict` returned instead of a response, and what to change."""
    if response is None:
        return "None: predict must return its response"
    if inspect.iscoroutine(response):
        response.close()
        return "a coroutine: an 'await' is missing in predict"
    if inspect.isasyncgen(response) or inspect.isgenerator(response):
        return "a generator: predict must use 'return', predict_stream uses 'yield'"
    return f"{type(response).__name__}: {_ENCODE}"

"""Sample request of a model: its author's, MLflow's input example, or synthetic data."""

from __future__ import annotations

import importlib
import math
import os
from dataclasses import dataclass
from typing import Any

import orjson

from ..errors import MLServerError
from ..locations import locate
from ..parallel.executor import ModelInfo
from ..repository.folders import SAMPLE_REQUEST_FILENAME
from ..settings import ModelSettings
from ..types import InferenceRequest, MetadataTensor, RequestInput, TensorData
from ..wire import json

MLFLOW_EXAMPLE = "serving_input_example.json"
# Content types that can be synthesized -> a BYTES element that their codecs can decode.
_TEXTS = {"": "a", "np": "a", "str": "a", "datetime": "2024-01-01T00:00:00", "base64": "AA=="}


@dataclass(frozen=True)
class SampleRequest:
    """A request, and a description of its source."""

    request: InferenceRequest
    origin: str
    is_synthetic: bool = False


def find_sample(model: ModelSettings, info: ModelInfo) -> SampleRequest | None:
    """Return the model's sample request; None if it has none, and none can be synthesized.

    Raises:
        MLServerError: sample-request.json is not a valid request.
    """
    sample = _read_author_sample(model) or _read_mlflow_example(model, info) or _synthesize(info)
    if sample is not None:
        sample.request.id = sample.request.id or "check"
        for tensor in sample.request.inputs:
            tensor.data.normalize(str(tensor.datatype), tensor.shape)
    return sample


def _read_author_sample(model: ModelSettings) -> SampleRequest | None:
    body = _read_file(model.folder, SAMPLE_REQUEST_FILENAME)
    if body is None:
        return None
    try:
        return SampleRequest(json.read_request(body), SAMPLE_REQUEST_FILENAME)
    except MLServerError as error:
        raise MLServerError(f"{SAMPLE_REQUEST_FILENAME}: {error.message}") from None


def _read_mlflow_example(model: ModelSettings, info: ModelInfo) -> SampleRequest | None:
    """Parse MLflow's input example, a body of `/invocations`, with that route's wire format."""
    routes = [route for route in info.routes if route.wire and route.path == "/invocations"]
    if not routes:
        return None
    route = routes[0]
    example = route.config.get("example")  # None for a large one, which is read from the file
    body = _read_mlflow_file(model) if example is None else orjson.dumps(example)
    if body is None:
        return None
    wire: Any = importlib.import_module(route.wire)
    request = wire.read_request(body, "application/json", route.config)
    return SampleRequest(request, "its input example")


def _read_mlflow_file(model: ModelSettings) -> bytes | None:
    """Return the example in the model's folder, if that is a local folder."""
    uri = model.parameters.uri if model.parameters else None
    return _read_file(locate(uri, model.folder), MLFLOW_EXAMPLE) if uri else None


def _read_file(folder: str | None, name: str) -> bytes | None:
    path = os.path.join(folder or "", name)
    if folder is None or not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def _synthesize(info: ModelInfo) -> SampleRequest | None:
    tensors = info.metadata.inputs
    if not tensors or not all(_get_content_type(tensor) in _TEXTS for tensor in tensors):
        return None
    request = InferenceRequest(inputs=[_synthesize_input(tensor) for tensor in tensors])
    return SampleRequest(request, "synthetic data", is_synthetic=True)


def _synthesize_input(tensor: MetadataTensor) -> RequestInput:
    shape = [1 if size < 0 else size for size in tensor.shape]
    is_bytes = str(tensor.datatype) == "BYTES"
    element: Any = _TEXTS[_get_content_type(tensor)] if is_bytes else 0
    return RequestInput(
        name=tensor.name,
        shape=shape,
        datatype=tensor.datatype,
        parameters=tensor.parameters,
        data=TensorData([element] * math.prod(shape)),
    )


def _get_content_type(tensor: MetadataTensor) -> str:
    return (tensor.parameters.content_type if tensor.parameters else None) or ""

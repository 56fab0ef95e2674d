"""A request that a model should be able to answer: given by its author, by MLflow, or made up from its metadata."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Any

import orjson

from ..errors import MLServerError
from ..locations import locate
from ..parallel.executor import ModelInfo
from ..settings import ModelSettings
from ..types import InferenceRequest, MetadataTensor, RequestInput, TensorData
from ..wire import json

FILENAME = "sample-request.json"
MLFLOW_EXAMPLE = "serving_input_example.json"
# Content types of inputs that can be made up, and what their codecs can read from a BYTES element.
_TEXTS = {"": "a", "np": "a", "str": "a", "datetime": "2024-01-01T00:00:00", "base64": "AA=="}


@dataclass(frozen=True)
class Sample:
    """A request, and where it came from."""

    request: InferenceRequest
    origin: str
    invented: bool = False


def of(model: ModelSettings, info: ModelInfo) -> Sample | None:
    """The best sample there is for a model; None if there is nothing to go by.

    Raises:
        MLServerError: The author's sample is no request.
    """
    found = _given(model) or _from_mlflow(model, info) or _invented(info)
    if found is not None:
        found.request.id = found.request.id or "check"
        for tensor in found.request.inputs:
            tensor.data.normalize(str(tensor.datatype), tensor.shape)
    return found


def _given(model: ModelSettings) -> Sample | None:
    body = _content(model.folder, FILENAME)
    if body is None:
        return None
    try:
        return Sample(json.read_request(body), FILENAME)
    except MLServerError as error:
        raise MLServerError(f"{FILENAME}: {error.message}") from None


def _from_mlflow(model: ModelSettings, info: ModelInfo) -> Sample | None:
    """MLflow's example is a body for `/invocations`; the model says which wire format reads it."""
    route = next(
        (route for route in info.routes if route.wire and route.path == "/invocations"), None
    )
    if route is None:
        return None
    shown = route.config.get("example")  # a large one is not here, but in the model's folder
    body = _beside(model) if shown is None else orjson.dumps(shown)
    if body is None:
        return None
    wire: Any = importlib.import_module(route.wire)
    return Sample(wire.read_request(body, "application/json", route.config), "its input example")


def _beside(model: ModelSettings) -> bytes | None:
    """The example in the model's folder, if that is one of this machine."""
    uri = model.parameters.uri if model.parameters else None
    return _content(locate(uri, model.folder), MLFLOW_EXAMPLE) if uri else None


def _content(folder: str | None, name: str) -> bytes | None:
    path = os.path.join(folder or "", name)
    if folder is None or not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def _invented(info: ModelInfo) -> Sample | None:
    described = info.metadata.inputs
    if not described or not all(_content_type(each) in _TEXTS for each in described):
        return None
    return Sample(
        InferenceRequest(inputs=[_input(each) for each in described]), "made-up data", invented=True
    )


def _input(described: MetadataTensor) -> RequestInput:
    shape = [1 if size < 0 else size for size in described.shape]
    count = 1
    for size in shape:
        count *= size
    element: Any = _TEXTS[_content_type(described)] if str(described.datatype) == "BYTES" else 0
    return RequestInput(
        name=described.name,
        shape=shape,
        datatype=described.datatype,
        parameters=described.parameters,
        data=TensorData([element] * count),
    )


def _content_type(described: MetadataTensor) -> str:
    return (described.parameters.content_type if described.parameters else None) or ""

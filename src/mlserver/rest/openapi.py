"""OpenAPI documents: one of the server's routes, and one per model in which the inputs are the model's own. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from math import prod
from typing import Any
from urllib.parse import quote

from pydantic.json_schema import models_json_schema

from ..custom_routes import Route
from ..types import (
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    MetadataTensor,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
)
from .messages import JSON
from .negotiation import ARROW, OCTETS

Document = dict[str, Any]

_EVENTS = "text/event-stream"
MAX_ELEMENTS = 10_000
_MESSAGES = (
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
)
_INFER = [
    (
        "post",
        "/infer",
        "Ask the model",
        {"body": "InferenceRequest", "answer": "InferenceResponse"},
    ),
    (
        "post",
        "/generate",
        "The same as `infer`",
        {"body": "InferenceRequest", "answer": "InferenceResponse"},
    ),
    (
        "post",
        "/infer_stream",
        "Ask the model; answers come as events",
        {"body": "InferenceRequest", "answer": _EVENTS},
    ),
    (
        "post",
        "/generate_stream",
        "The same as `infer_stream`",
        {"body": "InferenceRequest", "answer": _EVENTS},
    ),
]
# Method, path behind the model's, summary, what goes in and out.
_OF_MODEL: list[tuple[str, str, str, dict[str, str]]] = [
    ("get", "", "What the model takes and gives", {"answer": "MetadataModelResponse"}),
    ("get", "/ready", "Whether the model can be asked now: 200 or 400", {"answer": "object"}),
    *_INFER,
    ("get", "/config", "The model's configuration in Triton's form", {"answer": "object"}),
    ("get", "/stats", "Counts and durations of the model", {"answer": "object"}),
]
_OF_SERVER: list[tuple[str, str, str, dict[str, str]]] = [
    ("get", "/v2", "Name, version and extensions of the server", {"answer": "MetadataServerResponse"}),
    ("get", "/v2/health/live", "Whether the server answers", {"answer": "object"}),
    ("get", "/v2/health/ready", "Whether every model can be asked now: 200 or 400", {"answer": "object"}),
    ("get", "/v2/models", "The names of the models", {"answer": "object"}),
    ("get", "/v2/models/stats", "Counts and durations of all models", {"answer": "object"}),
    ("post", "/v2/repository/index", "Which models there are, and their states",
     {"body": "RepositoryIndexRequest", "answer": "RepositoryIndexResponse"}),
    ("post", "/v2/repository/models/{model_name}/load", "Load a model, or load it anew", {}),
    ("post", "/v2/repository/models/{model_name}/unload", "Unload a model", {}),
]  # fmt: skip


def server_document(root_path: str, version: str, models: list[str]) -> Document:
    """Every route of the protocol, for any model; `models` are the names to try."""
    paths: Document = {}
    for method, path, summary, shape in _OF_SERVER:
        _add(paths, method, path, summary, shape)
    for base in ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}"):
        for method, path, summary, shape in _OF_MODEL:
            _add(paths, method, base + path, summary, shape)
    for operation in (
        operation for operations in paths.values() for operation in operations.values()
    ):
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "model_name" and models:
                parameter["examples"] = {name: {"value": name} for name in models}
    return _document("Data Plane", version, root_path, paths, _schemas())


def model_document(
    root_path: str, metadata: MetadataModelResponse, version: str | None, routes: Iterable[Route]
) -> Document:
    """The routes of one model: its own tensors in the request, an example to send, and the paths it declares itself.

    Args:
        version: The version asked for; None = the default one.
    """
    routes = list(routes)
    base = f"/v2/models/{quote(metadata.name, safe='')}" + (
        f"/versions/{quote(version, safe='')}" if version else ""
    )
    paths: Document = {}
    for method, path, summary, shape in _OF_MODEL:
        _add(paths, method, base + path, summary, shape)
    for route in routes:
        _add_own(paths, base, route)
    schemas = dict(_schemas())
    given = [route.config["v2_example"] for route in routes if "v2_example" in route.config]
    schemas["InferenceRequest"] = _request_schema(schemas["InferenceRequest"], metadata, given)
    title = f"Data Plane for Model {metadata.name}" + (f" ({version})" if version else "")
    return _document(title, version or "default", root_path, paths, schemas)


def _document(
    title: str, version: str, root_path: str, paths: Document, schemas: Document
) -> Document:
    document: Document = {"openapi": "3.1.0", "info": {"title": title, "version": version}}
    if root_path:
        document["servers"] = [{"url": root_path}]
    return {**document, "paths": paths, "components": {"schemas": schemas}}


@cache
def _schemas() -> Document:
    """The messages of the protocol, by their names."""
    _, found = models_json_schema(
        [(message, "validation") for message in _MESSAGES],
        ref_template="#/components/schemas/{model}",
    )
    return dict(found["$defs"])


# -- operations --


def _add(paths: Document, method: str, path: str, summary: str, shape: dict[str, str]) -> None:
    operation: Document = {
        "summary": summary,
        "operationId": f"{method}{path.replace('/', '_')}".replace("{", "").replace("}", ""),
        "responses": {"200": _answer(shape.get("answer")), "default": _error()},
    }
    parameters = [name for name in ("model_name", "model_version") if f"{{{name}}}" in path]
    if parameters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in parameters
        ]
    if "body" in shape:
        content: Document = {JSON: {"schema": _reference(shape["body"])}}
        if shape["body"] == "InferenceRequest":
            content |= {
                kind: {"schema": {"type": "string", "format": "binary"}} for kind in (OCTETS, ARROW)
            }
        operation["requestBody"] = {
            "required": shape["body"] == "InferenceRequest",
            "content": content,
        }
    paths.setdefault(path, {})[method] = operation


def _answer(answer: str | None) -> Document:
    if answer is None:
        return {"description": "Done"}
    if answer == _EVENTS:
        return {"description": "One event per response", "content": {_EVENTS: {"schema": {}}}}
    schema = {"type": "object"} if answer == "object" else _reference(answer)
    return {"description": "OK", "content": {JSON: {"schema": schema}}}


def _error() -> Document:
    return {
        "description": "What is wrong",
        "content": {JSON: {"schema": _reference("InferenceErrorResponse")}},
    }


def _reference(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _add_own(paths: Document, base: str, route: Route) -> None:
    """A path that the model declares: it answers under the model's path too."""
    kind = JSON if route.static is None else route.content_type
    operation: Document = {
        "summary": "A path of the model's own",
        "responses": {"200": {"description": "OK", "content": {kind: {"schema": {}}}}},
    }
    if route.method not in ("GET", "HEAD", "DELETE"):
        media: Document = {"schema": {}}
        if "example" in route.config:
            media["example"] = route.config["example"]
        operation["requestBody"] = {"content": {JSON: media}}
    paths.setdefault(base + route.path, {})[route.method.lower()] = operation


# -- a model's own request --

# Elements to send where a content type says more than "any text".
_TEXTS = {"base64": "dGV4dA==", "datetime": "2000-01-01T00:00:00", "pd_json": "{}"}


def _request_schema(
    general: Document, metadata: MetadataModelResponse, given: list[Document | None]
) -> Document:
    """The request with the model's inputs in place of any; a model that names none takes any.

    Args:
        given: Examples of the model's own, None in place of one that was looked for in vain; without any, it is made up.
    """
    inputs, outputs = metadata.inputs or [], metadata.outputs or []
    properties = dict(general["properties"])
    schema = {**general, "properties": properties}
    if inputs:
        known = [_input_schema(tensor) for tensor in inputs]
        properties["inputs"] = {
            "type": "array",
            "minItems": 1,
            "items": known[0] if len(known) == 1 else {"anyOf": known},
        }
        example = given[0] if given else _made_up(inputs)
        if example is not None:  # better none than one that is refused
            schema["example"] = example
    if outputs:
        listed = {
            "name": {"enum": [tensor.name for tensor in outputs]},
            "parameters": {"type": "object"},
        }
        wanted = {"type": "object", "required": ["name"], "properties": listed}
        properties["outputs"] = {"type": "array", "items": wanted}
    return schema


def _input_schema(tensor: MetadataTensor) -> Document:
    return {
        "type": "object",
        "title": tensor.name,
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": tensor.name},
            "shape": {
                "type": "array",
                "description": f"{tensor.shape}; -1 is a dimension of any size",
                "items": {"type": "integer", "minimum": 0},
            },
            "datatype": {"const": str(tensor.datatype)},
            "parameters": _reference("Parameters"),
            "data": {"type": "array", "items": _element_schema(str(tensor.datatype))},
        },
    }


def _element_schema(datatype: str) -> Document:
    """A flat or nested element."""
    if datatype == "BYTES":
        return {"type": ["string", "array"]}
    if datatype == "BOOL":
        return {"type": ["boolean", "array"]}
    if datatype.startswith(("INT", "UINT")):
        return {"type": ["integer", "array"]}
    return {"type": ["number", "null", "array"]}


def _made_up(inputs: Iterable[MetadataTensor]) -> Document | None:
    """A request to send; None if one row of it is too large to be shown."""
    tensors = [_example(tensor) for tensor in inputs]
    return None if any(tensor is None for tensor in tensors) else {"inputs": tensors}


def _example(tensor: MetadataTensor) -> Document | None:
    """A tensor to send: the one in the metadata's parameter `example`, else one row of zeros; None if that is large."""
    datatype = str(tensor.datatype)
    given = (
        (tensor.parameters.model_extra or {}).get("example")
        if tensor.parameters is not None
        else None
    )
    shape = [1 if size < 0 else size for size in tensor.shape]
    if isinstance(given, list) and given:
        rest = prod(shape[1:]) or 1
        shape = [len(given) // rest, *shape[1:]] if shape else []
        data = given
    elif prod(shape) > MAX_ELEMENTS:
        return None
    else:
        data = [_element(tensor)] * prod(shape)
    return {"name": tensor.name, "shape": shape, "datatype": datatype, "data": data}


def _element(tensor: MetadataTensor) -> Any:
    datatype = str(tensor.datatype)
    if datatype == "BYTES":
        return _TEXTS.get((tensor.parameters and tensor.parameters.content_type) or "", "text")
    return False if datatype == "BOOL" else 0 if "INT" in datatype else 0.0

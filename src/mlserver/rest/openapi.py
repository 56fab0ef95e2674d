"""OpenAPI documents: one of the server's routes, and one per model with the model's own inputs.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from math import prod
from typing import Any, NamedTuple
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

MAX_EXAMPLE_ELEMENTS = 10_000
_EVENTS = "text/event-stream"
_MESSAGES = (
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
)


class _Operation(NamedTuple):
    """One operation of the protocol.

    Attributes:
        path: For a model's operation, relative to the model's path.
        response: Schema of the response, "object", `_EVENTS`, or "" for an empty response.
        request: Schema of the body, or "" for none.
    """

    method: str
    path: str
    summary: str
    response: str = ""
    request: str = ""


_MODEL_OPERATIONS = (
    _Operation("get", "", "Model metadata: inputs and outputs", "MetadataModelResponse"),
    _Operation("get", "/ready", "Model readiness: 200 or 400", "object"),
    _Operation("post", "/infer", "Run inference", "InferenceResponse", "InferenceRequest"),
    _Operation(
        "post",
        "/generate",
        "Run inference: alias of `infer`",
        "InferenceResponse",
        "InferenceRequest",
    ),
    _Operation(
        "post",
        "/infer_stream",
        "Run streaming inference: responses are server-sent events",
        _EVENTS,
        "InferenceRequest",
    ),
    _Operation(
        "post",
        "/generate_stream",
        "Run streaming inference: alias of `infer_stream`",
        _EVENTS,
        "InferenceRequest",
    ),
    _Operation("get", "/config", "Model configuration in Triton's format", "object"),
    _Operation("get", "/stats", "Inference statistics of the model", "object"),
)
_SERVER_OPERATIONS = (
    _Operation(
        "get", "/v2", "Server metadata: name, version, extensions", "MetadataServerResponse"
    ),
    _Operation("get", "/v2/health/live", "Server liveness", "object"),
    _Operation("get", "/v2/health/ready", "Server readiness, of all models: 200 or 400", "object"),
    _Operation("get", "/v2/models", "Names of all models", "object"),
    _Operation("get", "/v2/models/stats", "Inference statistics of all models", "object"),
    _Operation(
        "post",
        "/v2/repository/index",
        "Model repository index: models and their states",
        "RepositoryIndexResponse",
        "RepositoryIndexRequest",
    ),
    _Operation("post", "/v2/repository/models/{model_name}/load", "Load or reload a model"),
    _Operation("post", "/v2/repository/models/{model_name}/unload", "Unload a model"),
)
# Document -> what it shows.
_CONSOLE_DOCUMENTS = {
    "metrics": "Counts, latency histograms, states and processes of all model versions",
    "routing": "Traffic split, shadow version and followed alias of each model",
    "workers": "Worker pools and processes with memory, processor time and restarts",
    "errors": "The last 200 distinct error responses, without payloads",
    "settings": "Effective settings with their origins; secrets are masked",
}
_CONSOLE_OPERATIONS = [
    *(
        _Operation("get", f"/v2/console/{name}", summary, "object")
        for name, summary in _CONSOLE_DOCUMENTS.items()
    ),
    _Operation("get", "/v2/console/access", "Scopes of the caller's credential", "object"),
    _Operation(
        "post", "/v2/console/access", "The same for POST, with the origin of a browser", "object"
    ),
]


def server_document(
    root_path: str, version: str, model_names: list[str], has_console: bool = True
) -> Document:
    """Return the document of all routes.

    Args:
        model_names: Examples of the parameter `model_name`.
        has_console: Whether the routes of the console's data exist.
    """
    paths: Document = {}
    operations = [*_SERVER_OPERATIONS, *(_CONSOLE_OPERATIONS if has_console else ())]
    for operation in operations:
        _add_operation(paths, "", operation)
    for base in ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}"):
        for operation in _MODEL_OPERATIONS:
            _add_operation(paths, base, operation)
    examples = {name: {"value": name} for name in model_names}
    for parameter in _iterate_parameters(paths):
        if parameter["name"] == "model_name" and examples:
            parameter["examples"] = examples
    return _build_document("Data Plane", version, root_path, paths, _schemas())


def model_document(
    root_path: str,
    metadata: MetadataModelResponse,
    version: str | None,
    routes: Iterable[Route],
    sample: Document | None = None,
) -> Document:
    """Return the document of one model's routes, with its tensors, an example, and the routes it
    declares.

    Args:
        version: The requested version; None = the default one.
        sample: The author's V2 request, which precedes other examples; None = there is none.
    """
    routes = list(routes)
    base = f"/v2/models/{quote(metadata.name, safe='')}"
    title = f"Data Plane for Model {metadata.name}"
    if version:
        base += f"/versions/{quote(version, safe='')}"
        title += f" ({version})"
    paths: Document = {}
    for operation in _MODEL_OPERATIONS:
        _add_operation(paths, base, operation)
    for route in routes:
        _add_declared(paths, base, route)
    schemas = dict(_schemas())
    examples = [route.config["v2_example"] for route in routes if "v2_example" in route.config]
    if sample is not None:
        examples.insert(0, sample)
    schemas["InferenceRequest"] = _request_schema(schemas["InferenceRequest"], metadata, examples)
    return _build_document(title, version or "default", root_path, paths, schemas)


def _build_document(
    title: str, version: str, root_path: str, paths: Document, schemas: Document
) -> Document:
    document: Document = {"openapi": "3.1.0", "info": {"title": title, "version": version}}
    if root_path:
        document["servers"] = [{"url": root_path}]
    return {**document, "paths": paths, "components": {"schemas": schemas}}


@cache
def _schemas() -> Document:
    """Return the JSON schemas of the protocol's messages by name."""
    _, document = models_json_schema(
        [(message, "validation") for message in _MESSAGES],
        ref_template="#/components/schemas/{model}",
    )
    return dict(document["$defs"])


# -- operations --


def _iterate_parameters(paths: Document) -> Iterator[Document]:
    for operations in paths.values():
        for operation in operations.values():
            yield from operation.get("parameters", ())


def _add_operation(paths: Document, base: str, operation: _Operation) -> None:
    path = base + operation.path
    identifier = f"{operation.method}{path.replace('/', '_')}".replace("{", "").replace("}", "")
    document: Document = {
        "summary": operation.summary,
        "operationId": identifier,
        "responses": {"200": _describe_response(operation.response), "default": _error_response()},
    }
    names = [name for name in ("model_name", "model_version") if f"{{{name}}}" in path]
    if names:
        schema = {"type": "string"}
        document["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": schema} for name in names
        ]
    if operation.request:
        is_inference = operation.request == "InferenceRequest"
        content: Document = {JSON: {"schema": _reference(operation.request)}}
        if is_inference:
            binary = {"schema": {"type": "string", "format": "binary"}}
            content |= {OCTETS: binary, ARROW: binary}
        document["requestBody"] = {"required": is_inference, "content": content}
    paths.setdefault(path, {})[operation.method] = document


def _describe_response(response: str) -> Document:
    if not response:
        return {"description": "Done"}
    if response == _EVENTS:
        return {"description": "One event per response", "content": {_EVENTS: {"schema": {}}}}
    schema = {"type": "object"} if response == "object" else _reference(response)
    return {"description": "OK", "content": {JSON: {"schema": schema}}}


def _error_response() -> Document:
    return {
        "description": "Error",
        "content": {JSON: {"schema": _reference("InferenceErrorResponse")}},
    }


def _reference(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _add_declared(paths: Document, base: str, route: Route) -> None:
    """Add a route that the model declares, under the model's path."""
    media_type = JSON if route.static is None else route.content_type
    operation: Document = {
        "summary": "Custom route of the model",
        "responses": {"200": {"description": "OK", "content": {media_type: {"schema": {}}}}},
    }
    if route.method not in ("GET", "HEAD", "DELETE"):
        media: Document = {"schema": {}}
        if "example" in route.config:
            media["example"] = route.config["example"]
        operation["requestBody"] = {"content": {JSON: media}}
    paths.setdefault(base + route.path, {})[route.method.lower()] = operation


# -- a model's inference request --

# Example elements of BYTES tensors by content type.
_EXAMPLE_TEXTS = {"base64": "dGV4dA==", "datetime": "2000-01-01T00:00:00", "pd_json": "{}"}


def _request_schema(
    general: Document, metadata: MetadataModelResponse, examples: list[Document | None]
) -> Document:
    """Return the request's schema with the model's inputs; a model without declared inputs accepts
    any.

    Args:
        examples: The model's own; None = the model has none. If the list is empty, one is
            synthesized.
    """
    inputs, outputs = metadata.inputs or [], metadata.outputs or []
    properties = dict(general["properties"])
    schema = {**general, "properties": properties}
    if inputs:
        schemas = [_input_schema(tensor) for tensor in inputs]
        items = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        properties["inputs"] = {"type": "array", "minItems": 1, "items": items}
        example = examples[0] if examples else _synthesize_request(inputs)
        if example is not None:  # none is better than one that the model rejects
            schema["example"] = example
    elif examples and examples[0] is not None:
        schema["example"] = examples[0]
    if outputs:
        output_properties = {
            "name": {"enum": [tensor.name for tensor in outputs]},
            "parameters": {"type": "object"},
        }
        output = {"type": "object", "required": ["name"], "properties": output_properties}
        properties["outputs"] = {"type": "array", "items": output}
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
    """Return the schema of an element of `data`, which may be nested."""
    if datatype == "BYTES":
        return {"type": ["string", "array"]}
    if datatype == "BOOL":
        return {"type": ["boolean", "array"]}
    if datatype.startswith(("INT", "UINT")):
        return {"type": ["integer", "array"]}
    return {"type": ["number", "null", "array"]}


def _synthesize_request(inputs: Iterable[MetadataTensor]) -> Document | None:
    """Return an example; None if one row of it has more than `MAX_EXAMPLE_ELEMENTS`."""
    tensors = [_example_tensor(tensor) for tensor in inputs]
    return None if None in tensors else {"inputs": tensors}


def _example_tensor(tensor: MetadataTensor) -> Document | None:
    """Return the tensor of the metadata's parameter `example`, else one row of zeros; None if it is
    large.
    """
    declared = None
    if tensor.parameters is not None:
        declared = (tensor.parameters.model_extra or {}).get("example")
    shape = [1 if size < 0 else size for size in tensor.shape]
    if isinstance(declared, list) and declared:
        row_size = prod(shape[1:]) or 1
        shape = [len(declared) // row_size, *shape[1:]] if shape else []
        data = declared
    elif prod(shape) > MAX_EXAMPLE_ELEMENTS:
        return None
    else:
        data = [_example_element(tensor)] * prod(shape)
    return {"name": tensor.name, "shape": shape, "datatype": str(tensor.datatype), "data": data}


def _example_element(tensor: MetadataTensor) -> Any:
    datatype = str(tensor.datatype)
    if datatype == "BYTES":
        content_type = tensor.parameters.content_type if tensor.parameters is not None else None
        return _EXAMPLE_TEXTS.get(content_type or "", "text")
    if datatype == "BOOL":
        return False
    return 0 if "INT" in datatype else 0.0

"""Paths and messages over REST, from the OpenAPI document."""

from __future__ import annotations

from typing import Any

from mlserver.rest import openapi

from .markdown import code, start_page, table

Document = dict[str, Any]
VERSION = "/versions/{model_version}"
MODEL_PATHS = (
    (
        "POST",
        "/invocations",
        "MLflow's scoring protocol; a model of several is selected by a header",
    ),
    ("POST", "/v2/models/{model_name}/invocations", "the same for one model"),
    ("GET", "/ping, /health", "liveness and readiness, as MLflow's server has them"),
    ("GET", "/version", "version of MLflow"),
    ("POST", "/v1/chat/completions", "OpenAI's chat completions (ChatModel, ChatAgent)"),
    ("POST", "/responses, /v1/responses", "OpenAI's responses (ResponsesAgent)"),
    ("GET", "/v1/models", "list of agents"),
    ("GET", "/agent/info", "name and kind of an agent (ResponsesAgent)"),
)
OTHER_PATHS = (
    ("GET", "/metrics", "Prometheus metrics: [metrics](metrics.md)"),
    ("GET", "/", "the console for browsers, a list of routes for programs"),
    ("GET", "/console/", "the console: [the console](../how-to/console.md)"),
    ("GET", "/v2/docs", "leads to the console's page of the OpenAPI document"),
    ("GET", "/v2/docs/dataplane.json", "OpenAPI document of the server"),
    ("GET", "/v2/models/{model_name}/docs", "the same for a model"),
    (
        "GET",
        "/v2/models/{model_name}/docs/dataplane.json",
        "OpenAPI document with the model's example",
    ),
)


def page() -> str:
    document = openapi.server_document("", "", [])
    lines = start_page(
        "REST API",
        "the OpenAPI document",
        "The Open Inference Protocol (V2). A running server has this as an OpenAPI document at "
        "`/v2/docs/dataplane.json`; each model has its own, with an example, at "
        "`/v2/models/{model_name}/docs/dataplane.json`. [The console](../how-to/console.md) shows "
        "both as pages; it loads nothing from another host.",
        f"Each path below `/v2/models/{{model_name}}` exists with `{VERSION}` after the name, too.",
    )
    rows = []
    for path, operations in document["paths"].items():
        if VERSION in path:
            continue
        for method, operation in operations.items():
            rows.append((method.upper(), code(path), operation["summary"], *_messages(operation)))
    lines += ["## Paths of the protocol", ""]
    lines += table(("method", "path", "action", "body", "response"), rows)
    lines += ["## Paths of MLflow models", ""]
    lines += table(("method", "path", "action"), _code_paths(MODEL_PATHS))
    lines += ["See [MLflow models](../how-to/mlflow.md) and [agents](../how-to/agents.md).", ""]
    lines += ["## Other paths", ""]
    lines += table(("method", "path", "action"), _code_paths(OTHER_PATHS))
    lines += ["## Messages", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += _schema(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _code_paths(rows: tuple[tuple[str, str, str], ...]) -> list[tuple[str, str, str]]:
    converted = []
    for method, paths, action in rows:
        converted.append((method, ", ".join(code(path) for path in paths.split(", ")), action))
    return converted


def _messages(operation: Document) -> tuple[str, str]:
    body = operation.get("requestBody", {}).get("content", {})
    response = operation["responses"]["200"].get("content", {})
    return _link(body.get("application/json", {})), _link(response.get("application/json", {}))


def _link(content: Document) -> str:
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return f"[{name}](#{name.lower()})" if name else ""


def _schema(name: str, schema: Document) -> list[str]:
    lines = [f"### {name}", ""]
    if schema.get("description"):
        lines += [" ".join(schema["description"].split("\n\n")[0].split()), ""]
    if "enum" in schema:
        return [*lines, "One of " + ", ".join(code(value) for value in schema["enum"]) + ".", ""]
    required = schema.get("required", ())
    rows = []
    for field, value in schema.get("properties", {}).items():
        is_required = "yes" if field in required else ""
        rows.append((code(field), _type(value), is_required, value.get("description", "")))
    if not any(row[3] for row in rows):
        return lines + table(("field", "type", "required"), [row[:3] for row in rows])
    return lines + table(("field", "type", "required", "meaning"), rows)


def _type(value: Document) -> str:
    """Return the type of a schema in words, with links to messages."""
    if "$ref" in value:
        return _link({"schema": value})
    if "anyOf" in value:
        types = [_type(option) for option in value["anyOf"]]
        return " or ".join(text for text in types if text != "null")
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {})) or 'values'}"
    return str(value.get("type", "any value"))

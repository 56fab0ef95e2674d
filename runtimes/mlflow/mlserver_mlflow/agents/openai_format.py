"""Wire formats of chat models and agents: OpenAI's chat completions and responses, and streams.

The front end imports this module, so it imports neither MLflow nor pandas. Every body is converted
to a scoring body (`invocations.wrap_body`), which MLflow's own code in the worker validates.
`config` is that of the route:

    form      "chat", "responses" or "invocations"
    kind      kind of model
    streams   whether the model implements `predict_stream`; the result of another model becomes
              the events of a stream
    fields    body fields that the signature names, if it does
"""

from __future__ import annotations

import json
import time
from typing import Any

from mlserver.errors import MLServerError, ModelNotFound
from mlserver.types import InferenceRequest, InferenceResponse, Parameters

from .. import invocations
from ..invocations import UNREAD_CONTENT_TYPE as UNREAD_CONTENT_TYPE
from ..invocations import read_columns as read_columns

CHUNK = "mlflow_chunk"
CHAT_AGENT = "chat_agent"
# Fields that are floats in MLflow's signatures and may be integers in OpenAI's protocol.
FLOATS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
# Fields that are renamed before they are compared with the signature.
RENAMED = frozenset({"max_completion_tokens"})
DONE = b"data: [DONE]\n\n"
# Status -> error type of OpenAI's protocol.
ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def read_request(body: bytes, content_type: str, config: dict[str, Any]) -> InferenceRequest:
    """Return the request for a body. Raises `MLServerError` for an invalid one."""
    if config["form"] == "invocations":
        return invocations.read_request(body, content_type, config)
    # MLflow ignores other fields too, but logs a warning for each request.
    fields = config.get("fields")
    document = {
        name: value
        for name, value in _load_object(body).items()
        if value is not None and (fields is None or name in fields or name in RENAMED)
    }
    for name in FLOATS:
        if type(document.get(name)) is int:
            document[name] = float(document[name])
    if config["form"] == "chat":
        _normalize_chat(document)
    elif isinstance(document.get("input"), str):
        document["input"] = [{"role": "user", "content": document["input"]}]
    elif not isinstance(document.get("input"), list):
        raise MLServerError("Invalid 'input': expected a text or a list of items")
    return invocations.wrap_body(json.dumps(document).encode(), invocations.JSON)


def write_response(response: InferenceResponse, config: dict[str, Any]) -> tuple[int, bytes, str]:
    """Return status, body and content type of a response without a stream."""
    status, body, content_type = invocations.write_response(response, config)
    if config["form"] == "chat":
        body = json.dumps(_to_completion(json.loads(body), response, config)).encode()
    return status, body, content_type


def write_error(error: MLServerError, config: dict[str, Any]) -> tuple[int, bytes, str]:
    """Return an error in OpenAI's format; `/responses` adds `detail` as MLflow's agent server."""
    if config["form"] == "invocations":
        return invocations.write_error(error, config)
    document: dict[str, Any] = {"error": _to_openai_error(error)}
    if config["form"] == "responses":
        document["detail"] = error.message
    return _get_status(error), json.dumps(document).encode(), invocations.JSON


def named_model(body: bytes, config: dict[str, Any]) -> str | None:
    """Return the model named in a body, for paths that several models have."""
    if config["form"] == "invocations":
        return None
    name = _load_object(body).get("model")
    return name if isinstance(name, str) else None


def open_stream(body: bytes, config: dict[str, Any]) -> EventWriter | None:
    """Return the writer of a streamed response; None if the body does not request a stream."""
    if b'"stream"' not in body:
        return None
    if config["form"] != "invocations":
        if _load_object(body).get("stream") is not True:
            return None
        return CompletionWriter(config) if config["form"] == "chat" else EventWriter(config)
    try:
        document = json.loads(body)
    except ValueError:
        return None  # MLflow's code in the worker refuses the body
    if not isinstance(document, dict) or not config["streams"]:
        return None
    is_agent_request = "messages" in document or "input" in document
    is_stream = is_agent_request and document.get("stream") is True
    return EventWriter(config) if is_stream else None


class EventWriter:
    """Writes chunks as server-sent events in the format of MLflow's agent server."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def event(self, response: InferenceResponse) -> bytes:
        """Return the events of one response."""
        _, body, _ = invocations.write_response(response, {})
        if is_chunk(response):
            return b"data: " + body + b"\n\n"
        return b"".join(map(_format_event, _split_into_events(json.loads(body))))

    def end(self, error: MLServerError | None) -> bytes:
        """Return the last events of the stream, with an error raised in its middle."""
        return (_format_event({"error": error.message}) if error is not None else b"") + DONE


class CompletionWriter(EventWriter):
    """Writes chunks as OpenAI's `chat.completion.chunk`, all with one id."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._head: dict[str, Any] = {}
        self._finished = False

    def event(self, response: InferenceResponse) -> bytes:
        _, body, _ = invocations.write_response(response, {})
        document = json.loads(body)
        if not self._head:
            self._head = _make_head(response, "chat.completion.chunk")
        if not is_chunk(response):
            document = _completion_to_chunk(_to_completion(document, response, self._config))
        elif self._config["kind"] == CHAT_AGENT:
            document = _agent_chunk_to_chunk(document)
        if not document.get("choices") and not document.get("usage"):
            return b""
        reasons = [choice.get("finish_reason") for choice in document["choices"]]
        self._finished = self._finished or any(reasons)
        model = document.get("model") or self._head["model"]
        return _format_event({**document, **self._head, "model": model})

    def end(self, error: MLServerError | None) -> bytes:
        if error is not None:
            return _format_event({"error": _to_openai_error(error)}) + DONE
        if self._finished or not self._head:
            return DONE
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        return _format_event({**self._head, "choices": [last]}) + DONE


def wrap_chunk(model_name: str, model_version: str | None, text: str) -> InferenceResponse:
    """Return a response with one chunk of a stream, as JSON text."""
    response = invocations.wrap_result(model_name, model_version, text)
    response.parameters = Parameters.from_values(
        {"content_type": invocations.CONTENT_TYPE, CHUNK: True}
    )
    return response


def is_chunk(response: InferenceResponse) -> bool:
    """Whether a response was made by `wrap_chunk`."""
    extra = response.parameters.model_extra if response.parameters is not None else None
    return bool(extra and extra.get(CHUNK))


# -- requests --


def _load_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MLServerError(f"Invalid JSON in request body: {error}") from None
    if not isinstance(document, dict):
        raise MLServerError("Invalid request body: expected a JSON object")
    return document


def _normalize_chat(document: dict[str, Any]) -> None:
    """Convert the variants of OpenAI's fields to the form of MLflow's signature, in place."""
    messages = document.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise MLServerError(
            "Invalid 'messages': expected a list of objects with 'role' and 'content'"
        )
    document["messages"] = [_normalize_message(message) for message in messages]
    if isinstance(document.get("stop"), str):
        document["stop"] = [document["stop"]]
    if "max_completion_tokens" in document:
        document.setdefault("max_tokens", document.pop("max_completion_tokens"))


def _normalize_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message without null fields, with its text parts joined."""
    fields = {name: value for name, value in message.items() if value is not None}
    parts = fields.get("content")
    if isinstance(parts, list):
        fields["content"] = "".join(map(_get_text, parts))
    return fields


def _get_text(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise MLServerError(
            "Invalid 'content' of a message: expected a text or parts of type 'text'"
        )
    return text


# -- responses --


def _to_completion(
    document: dict[str, Any], response: InferenceResponse, config: dict[str, Any]
) -> dict[str, Any]:
    """Return a result as OpenAI's `chat.completion`."""
    head = _make_head(response, "chat.completion")
    if config["kind"] != CHAT_AGENT:
        return {
            **document,
            "id": document.get("id") or head["id"],
            "model": document.get("model") or head["model"],
        }
    messages = document["messages"]
    replies = [message for message in messages if message["role"] == "assistant"]
    message = (replies or messages or [{"role": "assistant", "content": ""}])[-1]
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": document.get("finish_reason") or "stop",
    }
    completion = {**head, "choices": [choice]}
    for name in ("usage", "custom_outputs"):
        if document.get(name) is not None:
            completion[name] = document[name]
    return completion


def _make_head(response: InferenceResponse, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{response.id}",
        "object": kind,
        "created": int(time.time()),
        "model": response.model_name,
    }


def _agent_chunk_to_chunk(document: dict[str, Any]) -> dict[str, Any]:
    """Convert a chunk of a ChatAgent; OpenAI's stream has no messages of tools."""
    delta = document["delta"]
    usage = {"usage": document["usage"]} if document.get("usage") else {}
    if delta.get("role") != "assistant":
        return {"choices": [], **usage}
    names = [name for name in ("role", "content", "tool_calls") if delta.get(name) is not None]
    fields = {name: delta[name] for name in names}
    if "tool_calls" in fields:
        calls = enumerate(fields["tool_calls"])
        fields["tool_calls"] = [{"index": index, **call} for index, call in calls]
    choice = {"index": 0, "delta": fields, "finish_reason": document.get("finish_reason")}
    return {"choices": [choice], **usage}


def _completion_to_chunk(completion: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {
            "index": choice.get("index", 0),
            "delta": choice["message"],
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in completion["choices"]
    ]
    return {"model": completion["model"], "choices": choices}


def _split_into_events(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a complete response of OpenAI's responses API."""
    events: list[dict[str, Any]] = [
        {"type": "response.output_item.done", "output_index": index, "item": item}
        for index, item in enumerate(response.get("output", []))
    ]
    events.append({"type": "response.completed", "response": response})
    trace_id = (response.get("metadata") or {}).get("trace_id")
    if trace_id is not None:
        events.append({"trace_id": trace_id})  # as at the end of a model's own stream
    return events


def _format_event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def _get_status(error: MLServerError) -> int:
    return 503 if error.code == "UNAVAILABLE" else error.status_code


def _to_openai_error(error: MLServerError) -> dict[str, Any]:
    if isinstance(error, ModelNotFound):
        return {
            "message": error.message,
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
    status = _get_status(error)
    default = "invalid_request_error" if status < 500 else "server_error"
    kind = ERROR_TYPES.get(status, default)
    return {"message": error.message, "type": kind, "param": None, "code": error.code.lower()}

"""The wire formats of chat models and agents: OpenAI's chat completions and responses, and streams on `/invocations`.

The front end imports this module, so nothing here may import MLflow or pandas. Every body becomes a scoring body that travels
as it is (`invocations.carry`); MLflow's own code in the worker reads and checks it. `config` is that of the route: `form` is
"chat", "responses" or "invocations", `kind` the kind of model, and `streams` says whether the model streams by itself; one
that does not is asked once, and its whole answer becomes the events.
"""

from __future__ import annotations

import json
import time
from typing import Any

from mlserver.errors import MLServerError, ModelNotFound
from mlserver.types import InferenceRequest, InferenceResponse, Parameters

from .. import invocations

CHUNK = "mlflow_chunk"
CHAT_AGENT = "chat_agent"
# OpenAI's clients send whole numbers where MLflow's signatures want floating point.
FLOATS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
# Fields that become others before the signature counts.
RENAMED = frozenset({"max_completion_tokens"})
DONE = b"data: [DONE]\n\n"
# Status -> what OpenAI's clients know the error as.
ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def read_request(body: bytes, content_type: str, config: dict[str, Any]) -> InferenceRequest:
    """A body -> the request that travels. Raises `MLServerError` for what is no request of OpenAI's protocols."""
    if config["form"] == "invocations":
        return invocations.read_request(body, content_type, config)
    # MLflow ignores fields beside the signature too, with a warning for each request.
    known = config.get("fields")
    asked = {
        name: value
        for name, value in _document(body).items()
        if value is not None and (known is None or name in known or name in RENAMED)
    }
    for name in FLOATS:
        if type(asked.get(name)) is int:
            asked[name] = float(asked[name])
    if config["form"] == "chat":
        _as_chat(asked)
    elif isinstance(asked.get("input"), str):
        asked["input"] = [{"role": "user", "content": asked["input"]}]
    elif not isinstance(asked.get("input"), list):
        raise MLServerError("Invalid 'input': expected a text or a list of items")
    return invocations.wrap_body(json.dumps(asked).encode(), invocations.JSON)


def write_response(response: InferenceResponse, config: dict[str, Any]) -> tuple[int, bytes, str]:
    """Status, body and content type of a whole answer."""
    status, body, content_type = invocations.write_response(response, config)
    if config["form"] != "chat":
        return status, body, content_type
    return (
        status,
        json.dumps(_completion(json.loads(body), response, config)).encode(),
        content_type,
    )


def write_error(error: MLServerError, config: dict[str, Any]) -> tuple[int, bytes, str]:
    """An error in OpenAI's form; `/responses` also has the field in which MLflow's agent server has it."""
    if config["form"] == "invocations":
        return invocations.write_error(error, config)
    document: dict[str, Any] = {"error": _error(error)}
    if config["form"] == "responses":
        document["detail"] = error.message
    return _status(error), json.dumps(document).encode(), invocations.JSON


def named_model(body: bytes, config: dict[str, Any]) -> str | None:
    """The model that a body asks for, where several models answer the path."""
    if config["form"] == "invocations":
        return None
    name = _document(body).get("model")
    return name if isinstance(name, str) else None


def open_stream(body: bytes, config: dict[str, Any]) -> Events | None:
    """The writer of a streamed answer; None = a whole answer is asked for."""
    if b'"stream"' not in body:
        return None
    if config["form"] != "invocations":
        if _document(body).get("stream") is not True:
            return None
        return Completions(config) if config["form"] == "chat" else Events(config)
    try:
        asked = json.loads(body)
    except ValueError:
        return None  # MLflow's own code says what is wrong
    unwrapped = isinstance(asked, dict) and ("messages" in asked or "input" in asked)
    return (
        Events(config) if config["streams"] and unwrapped and asked.get("stream") is True else None
    )


class Events:
    """Chunks as server-sent events in the form of MLflow's agent server."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def event(self, response: InferenceResponse) -> bytes:
        """The events of one response."""
        _, body, _ = invocations.write_response(response, {})
        if is_chunk(response):
            return b"data: " + body + b"\n\n"
        return b"".join(_event(event) for event in _events_of_whole(json.loads(body)))

    def end(self, error: MLServerError | None) -> bytes:
        """What closes the stream, after an error that came in its middle or without one."""
        return (_event({"error": error.message}) if error is not None else b"") + DONE


class Completions(Events):
    """Chunks as OpenAI's `chat.completion.chunk`, all of one id."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._head: dict[str, Any] = {}
        self._finished = False

    def event(self, response: InferenceResponse) -> bytes:
        _, body, _ = invocations.write_response(response, {})
        document = json.loads(body)
        if not self._head:
            self._head = _head(response, "chat.completion.chunk")
        if not is_chunk(response):
            document = _chunk_of_whole(_completion(document, response, self._config))
        elif self._config["kind"] == CHAT_AGENT:
            document = _chunk_of_agent(document)
        if not document.get("choices") and not document.get("usage"):
            return b""
        reasons = [choice.get("finish_reason") for choice in document["choices"]]
        self._finished = self._finished or any(reasons)
        return _event(
            {**document, **self._head, "model": document.get("model") or self._head["model"]}
        )

    def end(self, error: MLServerError | None) -> bytes:
        if error is not None:
            return _event({"error": _error(error)}) + DONE
        if self._finished or not self._head:
            return DONE
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        return _event({**self._head, "choices": [last]}) + DONE


def chunk(model_name: str, model_version: str | None, text: str) -> InferenceResponse:
    """The response that carries one chunk of a stream, as JSON text."""
    response = invocations.answer(model_name, model_version, text)
    response.parameters = Parameters.from_values(
        {"content_type": invocations.CONTENT_TYPE, CHUNK: True}
    )
    return response


def is_chunk(response: InferenceResponse) -> bool:
    """Whether the response was made by `chunk`, and is no whole answer."""
    extra = response.parameters.model_extra if response.parameters is not None else None
    return bool(extra and extra.get(CHUNK))


# -- requests --


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MLServerError(f"Invalid JSON in request body: {error}") from None
    if not isinstance(document, dict):
        raise MLServerError("Invalid request body: expected a JSON object")
    return document


def _as_chat(asked: dict[str, Any]) -> None:
    """Put what OpenAI's protocol allows in several forms into the one that MLflow's signature has."""
    messages = asked.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise MLServerError(
            "Invalid 'messages': expected a list of objects with 'role' and 'content'"
        )
    asked["messages"] = [_message(message) for message in messages]
    if isinstance(asked.get("stop"), str):
        asked["stop"] = [asked["stop"]]
    if "max_completion_tokens" in asked:
        asked.setdefault("max_tokens", asked.pop("max_completion_tokens"))


def _message(message: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in message.items() if value is not None}
    parts = kept.get("content")
    if isinstance(parts, list):
        texts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
            for part in parts
        ]
        if not all(isinstance(text, str) for text in texts):
            raise MLServerError(
                "Invalid 'content' of a message: expected a text or parts of type 'text'"
            )
        kept["content"] = "".join(str(text) for text in texts)
    return kept


# -- answers --


def _completion(
    document: dict[str, Any], response: InferenceResponse, config: dict[str, Any]
) -> dict[str, Any]:
    """A whole answer as OpenAI's `chat.completion`."""
    head = _head(response, "chat.completion")
    if config["kind"] != CHAT_AGENT:
        return {
            **document,
            "id": document.get("id") or head["id"],
            "model": document.get("model") or head["model"],
        }
    said = [message for message in document["messages"] if message["role"] == "assistant"]
    message = (said or document["messages"] or [{"role": "assistant", "content": ""}])[-1]
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": document.get("finish_reason") or "stop",
    }
    more = {
        name: document[name]
        for name in ("usage", "custom_outputs")
        if document.get(name) is not None
    }
    return {**head, "choices": [choice], **more}


def _head(response: InferenceResponse, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{response.id}",
        "object": kind,
        "created": int(time.time()),
        "model": response.model_name,
    }


def _chunk_of_agent(document: dict[str, Any]) -> dict[str, Any]:
    """A chunk of a ChatAgent; what its tools said is no part of OpenAI's stream."""
    delta = document["delta"]
    usage = {"usage": document["usage"]} if document.get("usage") else {}
    if delta.get("role") != "assistant":
        return {"choices": [], **usage}
    kept = {
        name: delta[name]
        for name in ("role", "content", "tool_calls")
        if delta.get(name) is not None
    }
    if "tool_calls" in kept:
        kept["tool_calls"] = [
            {"index": index, **call} for index, call in enumerate(kept["tool_calls"])
        ]
    return {
        "choices": [{"index": 0, "delta": kept, "finish_reason": document.get("finish_reason")}],
        **usage,
    }


def _chunk_of_whole(completion: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {
            "index": choice.get("index", 0),
            "delta": choice["message"],
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in completion["choices"]
    ]
    return {"model": completion["model"], "choices": choices}


def _events_of_whole(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of an answer of OpenAI's responses, from a model that gives it in one piece."""
    items = [
        {"type": "response.output_item.done", "output_index": index, "item": item}
        for index, item in enumerate(answer.get("output", []))
    ]
    trace_id = (answer.get("metadata") or {}).get("trace_id")
    last = (
        [{"trace_id": trace_id}] if trace_id is not None else []
    )  # as after the events of a stream
    return [*items, {"type": "response.completed", "response": answer}, *last]


def _event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def _status(error: MLServerError) -> int:
    return 503 if error.code == "UNAVAILABLE" else error.status_code


def _error(error: MLServerError) -> dict[str, Any]:
    if isinstance(error, ModelNotFound):
        return {
            "message": error.message,
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
    status = _status(error)
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": error.message, "type": kind, "param": None, "code": error.code.lower()}

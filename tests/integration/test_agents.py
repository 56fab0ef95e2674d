"""MLflow chat models and agents over OpenAI's paths and `/invocations`, with and without
streaming.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.mlflow_agents import KINDS
from support.server import Server
from support.tracking_store import create_store

SAID = [{"role": "user", "content": "one two"}]
FAILS = [{"role": "user", "content": "one fail"}]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(agent_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = tmp_path_factory.mktemp("traces") / "mlflow.db"
    env = {"MLFLOW_TRACKING_URI": create_store(store)}
    with Server(agent_models, workers=1, env=env, tracebacks=True, cwd=store.parent) as running:
        yield running


def events(response: httpx.Response) -> list[Any]:
    """The events of a stream without the end mark, which is required."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *lines, last, rest = response.text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_the_models_are_listed(server: Server) -> None:
    listed = server.get("/v1/models").json()
    assert listed["object"] == "list"
    assert sorted(entry["id"] for entry in listed["data"]) == sorted(KINDS)
    assert [entry["id"] for entry in server.get("/v2/models/chat/v1/models").json()["data"]] == [
        "chat"
    ]


@pytest.mark.parametrize("name, text", [("chat", "one two 1.0 7 ['x']"), ("agent", "one two")])
def test_a_completion(server: Server, name: str, text: str) -> None:
    body = {
        "model": name,
        "messages": SAID,
        "temperature": 1,
        "max_completion_tokens": 7,
        "stop": "x",
    }
    answer = server.post(CHAT, body).json()
    assert answer["choices"][0]["message"]["content"] == text
    assert (answer["object"], answer["model"], answer["choices"][0]["finish_reason"]) == (
        "chat.completion",
        name,
        "stop",
    )
    parts = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}],
            "name": None,
        }
    ]
    again = server.post(f"/v2/models/{name}{CHAT}", {**body, "messages": parts}).json()
    assert again["choices"] == answer["choices"]


@pytest.mark.parametrize(
    "name, texts", [("chat", ["one", "two"]), ("agent", ["one", "two"]), ("plain", None)]
)
def test_a_streamed_completion(server: Server, name: str, texts: list[str] | None) -> None:
    chunks = events(server.post(CHAT, {"model": name, "messages": SAID, "stream": True}))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["model"] for chunk in chunks} == {name}
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[-1]["finish_reason"] == "stop"
    reply = [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]
    assert reply == (texts or ["one two 1.0 None None"])


def test_an_error_in_the_middle_of_a_stream(server: Server) -> None:
    first, last = events(server.post(CHAT, {"model": "chat", "messages": FAILS, "stream": True}))
    assert first["choices"][0]["delta"]["content"] == "one"
    assert "not that word" in last["error"]["message"]
    first, last = events(
        server.post("/v2/models/chat/invocations", {"messages": FAILS, "stream": True})
    )
    assert "not that word" in last["error"]


@pytest.mark.parametrize(
    "body, text",
    [
        (b"{", "Invalid JSON"),
        (b"[]", "expected a JSON object"),
        ({}, "'messages'"),
        ({"messages": "hello"}, "'messages'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "'content'"),
        ({"messages": [{"content": "no role"}]}, "role"),
        ({"messages": [{"content": "no role"}], "stream": True}, "role"),
    ],
)
def test_bad_requests(server: Server, body: Any, text: str) -> None:
    response = server.post(f"/v2/models/chat{CHAT}", body)
    assert response.status_code == 400, response.text
    assert text in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_the_model_that_answers(server: Server) -> None:
    unknown = server.post(CHAT, {"messages": SAID})
    assert unknown.status_code == 400
    assert "'agent', 'chat', 'plain'" in unknown.json()["error"]["message"]
    chosen = server.post(
        CHAT, {"model": "chat", "messages": SAID}, headers={"x-mlserver-model": "agent"}
    )
    assert chosen.json()["model"] == "agent"


def test_responses(server: Server) -> None:
    for name in ("responds", "whole"):
        for path in ("/responses", "/v1/responses"):
            answer = server.post(path, {"model": name, "input": "one two", "temperature": 1}).json()
            assert answer["object"] == "response"
            assert answer["output"][0]["content"][0]["text"] == "one two"
    streamed = events(
        server.post("/responses", {"model": "responds", "input": SAID, "stream": True})
    )
    assert [event["delta"] for event in streamed] == ["one", "two"]
    whole = events(server.post("/responses", {"model": "whole", "input": SAID, "stream": True}))
    assert [event["type"] for event in whole] == ["response.output_item.done", "response.completed"]
    refused = server.post("/responses", {"model": "whole", "input": 3})
    assert (refused.status_code, "'input'" in refused.json()["detail"]) == (400, True)
    assert server.get("/v2/models/whole/agent/info").json()["agent_api"] == "responses"


@pytest.mark.parametrize(
    "name, key", [("chat", "messages"), ("agent", "messages"), ("responds", "input")]
)
def test_invocations_stream_if_the_model_can_stream(server: Server, name: str, key: str) -> None:
    path = f"/v2/models/{name}/invocations"
    chunks = events(server.post(path, {key: SAID, "stream": True}))
    assert len(chunks) == (3 if name == "agent" else 2)
    whole = server.post(path, {key: SAID, "stream": False})
    assert whole.headers["content-type"] == "application/json"
    wrapped = server.post(path, {"inputs": {key: SAID, "stream": True}})
    assert list(wrapped.json()) == ["predictions"]


def test_invocations_of_other_models_ignore_stream(server: Server) -> None:
    assert server.post("/v2/models/plain/invocations", {"messages": SAID, "stream": True}).json()[
        "choices"
    ]
    assert server.post("/v2/models/whole/invocations", {"input": SAID, "stream": True}).json()[
        "output"
    ]


def test_the_openai_client(server: Server) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        assert {model.id for model in client.models.list()} == set(KINDS)
        whole = client.chat.completions.create(model="chat", messages=SAID)
        assert whole.choices[0].message.content.startswith("one two")
        for name in ("chat", "agent"):
            chunks = list(client.chat.completions.create(model=name, messages=SAID, stream=True))
            assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == ["one", "two"]
            assert chunks[-1].choices[0].finish_reason == "stop"
        assert client.responses.create(model="responds", input="one two").output_text == "one two"
        streamed = client.responses.create(model="responds", input="one two", stream=True)
        assert [event.delta for event in streamed] == ["one", "two"]
        with pytest.raises(openai.BadRequestError, match="role"):
            client.chat.completions.create(model="chat", messages=[{"content": "no role"}])
        with pytest.raises(openai.APIError, match="not that word"):
            list(client.chat.completions.create(model="chat", messages=FAILS, stream=True))


def test_the_id_of_the_trace(server: Server) -> None:
    body, headers = {"model": "responds", "input": "one two"}, {"x-mlflow-return-trace-id": "true"}
    assert (
        server.post("/responses", body, headers=headers)
        .json()["metadata"]["trace_id"]
        .startswith("tr-")
    )
    assert "metadata" not in server.post("/responses", body).json()
    *_, last = events(server.post("/responses", {**body, "stream": True}, headers=headers))
    assert last["trace_id"].startswith("tr-")


@pytest.mark.slow
def test_no_trace_is_written_without_a_tracking_server(agent_models: Path, tmp_path: Path) -> None:
    headers = {"x-mlflow-return-trace-id": "true"}
    with Server(agent_models / "responds", workers=1, cwd=tmp_path) as alone:
        answer = alone.post("/responses", {"input": "one two"}, headers=headers).json()
    assert answer["metadata"]["trace_id"] == "MLFLOW_NO_OP_SPAN_TRACE_ID"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "path, reply", [(CHAT, {"messages": SAID}), ("/v1/responses", {"input": "hi"})]
)
def test_a_model_that_is_not_served_is_not_found(
    server: Server, path: str, reply: Any, stream: bool
) -> None:
    answer = server.post(path, {"model": "gpt-4o", "stream": stream, **reply})
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        None,
        "model_not_found",
    )
    assert "Model gpt-4o not found among the models that answer" in error["message"]
    assert "'" in error["message"]  # their names


@pytest.mark.slow
def test_the_only_model_answers_to_its_own_name_only(agent_models: Path, tmp_path: Path) -> None:
    """The only model is not the default for another name.

    Without a name, or by header and path, it answers.
    """
    env = {
        "MLFLOW_TRACKING_URI": create_store(tmp_path / "mlflow.db"),
        "MLSERVER_DEFAULT_MODEL": "chat",
    }
    with Server(agent_models / "chat", workers=1, env=env, cwd=tmp_path) as alone:
        assert alone.post(CHAT, {"model": "agent", "messages": SAID}).status_code == 404
        assert alone.post(CHAT, {"model": "chat", "messages": SAID}).status_code == 200
        assert alone.post(CHAT, {"messages": SAID}).status_code == 200
        other = {"model": "other", "messages": SAID}
        assert alone.post(CHAT, other, headers={"x-mlserver-model": "chat"}).status_code == 200
        assert alone.post(f"/v2/models/chat{CHAT}", other).status_code == 200
        assert alone.post("/v2/repository/models/chat/unload").status_code == 200


@pytest.mark.parametrize("name", ["chat", "agent", "plain"])
def test_fields_of_openai_clients_beside_the_signature_cause_no_warning(
    server: Server, name: str
) -> None:
    before = len(str(server.log))
    more = {"user": "u", "seed": 3, "stream_options": None, "n": 1, "logprobs": False}
    assert server.post(CHAT, {"model": name, "messages": SAID, **more}).status_code == 200
    assert (
        server.post(CHAT, {"model": "nothing", "messages": SAID}).status_code == 404
    )  # is logged after the earlier lines
    assert "WARNING" not in str(server.log)[before:]

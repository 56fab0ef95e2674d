"""Custom routes of models: FastAPI's parameters, and two models with the same path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import ENGINES, enter_engine
from support.repository import write_model
from support.server import Serve, Server

HANDLERS = """
from typing import Annotated

from fastapi import Body, Depends, Header, Request
from pydantic import BaseModel

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.handlers import custom_handler


class Review(BaseModel):
    text: str
    stars: int = 3


def twice(number: int = 1) -> int:
    return 2 * number


class Handlers(MLModel):
    @custom_handler(rest_path="/body")
    async def body(self, review: Review) -> dict:
        return {"model": self.name, "text": review.text, "stars": review.stars}

    @custom_handler(rest_path="/items/{item}", rest_method="GET")
    async def item(
        self, item: int, q: str | None = None, x_token: Annotated[str | None, Header()] = None
    ) -> dict:
        return {"item": item, "q": q, "token": x_token}

    @custom_handler(rest_path="/depends", rest_method="GET")
    async def depends(self, number: int = Depends(twice)) -> int:
        return number

    @custom_handler(rest_path="/request")
    async def request(self, request: Request) -> dict:
        body = await request.body()
        return {
            "size": len(body),
            "method": request.method,
            "path": request.url.path,
            "type": request.headers["content-type"],
        }

    @custom_handler(rest_path="/several")
    async def several(self, one: int = Body(), other: str = Body()) -> list:
        return [one, other]

    @custom_handler(rest_path="/plain", rest_method="GET")
    def plain(self) -> dict:
        return {"bytes": b"text", "nested": [b"more"]}

    @custom_handler(rest_path="/refuse", rest_method="GET")
    async def refuse(self) -> None:
        raise MLServerError("not today", 409)

    @custom_handler(rest_path="/fail", rest_method="GET")
    async def fail(self) -> None:
        raise ValueError("a bug")

    @custom_handler(rest_path="/odd", rest_method="GET")
    async def odd(self) -> object:
        return lambda: None
"""


@pytest.fixture(scope="module", params=ENGINES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("routes")
    write_model(folder / "m", "Handlers", source=HANDLERS)
    enter_engine(request)
    with Server(folder, workers=request.param, tracebacks=True) as running:
        yield running


@pytest.mark.parametrize("prefix", ["", "/v2/models/m"])
def test_parameters_as_in_fastapi(server: Server, prefix: str) -> None:
    assert server.post(f"{prefix}/body", {"text": "good"}).json() == {
        "model": "m",
        "text": "good",
        "stars": 3,
    }
    headers = {"x-token": "t"}
    assert server.get(f"{prefix}/items/7?q=x", headers=headers).json() == {
        "item": 7,
        "q": "x",
        "token": "t",
    }
    assert server.get(f"{prefix}/depends?number=4").json() == 8
    assert server.post(f"{prefix}/several", {"one": 1, "other": "x"}).json() == [1, "x"]
    sent = server.post(
        f"{prefix}/request", b"\x00\xff", headers={"content-type": "application/x-own"}
    ).json()
    assert sent == {"size": 2, "method": "POST", "path": "/request", "type": "application/x-own"}


def test_bytes_are_text(server: Server) -> None:
    assert server.get("/plain").json() == {"bytes": "text", "nested": ["more"]}


@pytest.mark.parametrize(
    "path, status, text",
    [
        ("/refuse", 409, "not today"),
        ("/fail", 500, "ValueError: a bug"),
        ("/odd", 500, ""),
        ("/items/x", 422, "item"),
    ],
)
def test_errors(server: Server, path: str, status: int, text: str) -> None:
    response = server.get(path)
    assert response.status_code == status
    assert text in response.json()["error"]


REVIEW = b'{"text": "good"}'
FORM = "application/x-www-form-urlencoded"  # curl's default content type


@pytest.mark.parametrize("path", ["/body", "/v2/models/m/body"])
def test_a_body_without_a_content_type_is_json(server: Server, path: str) -> None:
    """The default of MLServer 1.x, which differs from FastAPI's present one."""
    sent = server.client.build_request("POST", path, content=REVIEW)
    assert "content-type" not in sent.headers
    answer = server.client.send(sent)
    assert (answer.status_code, answer.json()["text"]) == (200, "good")


@pytest.mark.parametrize(
    "content_type", [FORM, "text/plain", "application/octet-stream", "application/xml", "x"]
)
@pytest.mark.parametrize(
    "body",
    [REVIEW, b"text=good", b"", b"\x00\xff\xfe", "é".encode("latin-1"), "☃".encode()],
    ids=repr,
)
def test_a_body_of_another_content_type(server: Server, content_type: str, body: bytes) -> None:
    answer = server.post("/body", body, headers={"content-type": content_type})
    assert answer.status_code == 422
    assert "body" in answer.json()["error"]
    assert answer.json()["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": NaN}',
        b'{"text": {"a": [Infinity, -Infinity, null]}}',
        b'{"stars": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"text": 1e999}',
        b'{"text": ' + 300 * b"[" + 300 * b"]" + b"}",
        b"[]",
        b"null",
        b"7",
        b"{",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_an_invalid_body_is_422(server: Server, body: bytes) -> None:
    answer = server.post("/body", body)
    assert answer.status_code == 422
    assert answer.json()["error"]


def test_another_method(server: Server) -> None:
    response = server.get("/body")
    assert response.status_code == 405
    assert "POST" in response.headers["allow"]


def test_paths_are_added_and_removed_with_their_model(server: Server) -> None:
    assert server.post("/v2/repository/models/m/unload").status_code == 200
    assert server.get("/depends").status_code == 404
    assert server.get("/v2/models/m/depends").status_code == 404
    assert server.post("/v2/repository/models/m/load").status_code == 200
    assert server.get("/depends").json() == 2


# -- two models, one path --


def two(folder: Path) -> Path:
    for name in ("one", "two"):
        write_model(folder / name, "Handlers", source=HANDLERS)
    return folder


def who(server: Server, path: str = "/body", **options: Any) -> Any:
    return server.post(path, {"text": "x"}, **options).json().get("model")


def test_two_models_declare_the_same_path(serve: Serve, tmp_path: Path) -> None:
    server = serve(two(tmp_path), workers=1)
    response = server.post("/body", {"text": "x"})
    assert response.status_code == 400
    assert "'one', 'two'" in response.json()["error"]
    for name in ("one", "two"):
        assert who(server, f"/v2/models/{name}/body") == name
        assert who(server, headers={"x-mlserver-model": name}) == name
    assert server.post("/v2/repository/models/one/unload").status_code == 200
    assert who(server) == "two"


def test_the_default_model_answers(serve: Serve, tmp_path: Path) -> None:
    server = serve(two(tmp_path), workers=0, env={"MLSERVER_DEFAULT_MODEL": "two"})
    assert who(server) == "two"
    assert who(server, headers={"x-mlserver-model": "one"}) == "one"


def test_a_model_cannot_take_a_path_of_the_protocol(serve: Serve, tmp_path: Path) -> None:
    source = HANDLERS.replace('rest_path="/plain"', 'rest_path="/v2/health/live"')
    write_model(tmp_path / "m", "Handlers", source=source)
    server = serve(tmp_path, workers=0)
    assert server.get("/v2/health/live").json() == {"live": True}

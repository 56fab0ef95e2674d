"""Routes that models declare: matching, and the three kinds of replies."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import pytest

from mlserver.errors import MLServerError, Overloaded
from mlserver.registry.traffic_split import TrafficSplit
from mlserver.rest.messages import Reply, Request
from mlserver.rest.routing import MethodNotAllowed
from mlserver.rest.runtime_routes.matching import ModelRoutes, matches
from mlserver.rest.runtime_routes.wire import retry_after
from mlserver.types import InferenceResponse
from support.pipeline import Bench, route
from support.pipeline import request as inference_request


def create_request(path: str, method: str = "POST", body: bytes = b"", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(method, path, b"q=1", raw, body=body)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def get_reply(
    bench: Bench, request: Request, default_model: str | None = None
) -> Reply | None:
    routes = ModelRoutes(bench.data_plane, default_model)
    model_route = routes.match(request)
    return None if model_route is None else await routes.respond(model_route, request)


def match(
    bench: Bench, request: Request, default_model: str | None = None
) -> tuple[str, str | None] | None:
    model_route = ModelRoutes(bench.data_plane, default_model).match(request)
    return None if model_route is None else (model_route.name, model_route.version)


# -- matching --


async def test_one_model_declares_a_path(bench: Bench) -> None:
    await bench.load("m", "1", routes=(route("/own"),))
    await bench.load("m", "2", routes=(route("/own"), route("/new")))

    assert match(bench, create_request("/own")) == ("m", None)
    assert match(bench, create_request("/new")) == ("m", None)
    assert match(bench, create_request("/v2/models/m/own")) == ("m", None)
    assert match(bench, create_request("/v2/models/m/versions/1/own")) == ("m", "1")
    assert match(bench, create_request("/v2/models/m/versions/1/new")) is None
    for path in ("/other", "/own/more", "/v2/models/n/own", "/v2/models/m", "/"):
        assert match(bench, create_request(path)) is None


async def test_methods(bench: Bench) -> None:
    await bench.load(
        routes=(route("/own"), route("/own", method="GET"), route("/get", method="GET"))
    )

    assert match(bench, create_request("/own", "GET")) == ("m", None)
    with pytest.raises(MethodNotAllowed) as error:
        match(bench, create_request("/get"))
    assert "GET" in error.value.allowed


@pytest.mark.parametrize("path", ["/fixed", "/own", "/v2/models/m/own"])
async def test_head_is_get(bench: Bench, path: str) -> None:
    await bench.load(
        routes=(
            route("/fixed", method="GET", static="x"),
            route("/own", method="GET", handler="own"),
        )
    )
    got, head = (
        await get_reply(bench, create_request(path, "GET")),
        await get_reply(bench, create_request(path, "HEAD")),
    )

    assert head is not None
    assert head == got


async def test_a_declared_head_has_precedence_over_get(bench: Bench) -> None:
    await bench.load("m", routes=(route("/own", method="GET"),))
    await bench.load("n", routes=(route("/own", method="HEAD"),))

    assert match(bench, create_request("/own", "GET")) == ("m", None)
    assert match(bench, create_request("/own", "HEAD")) == ("n", None)


async def test_several_models_declare_a_path(bench: Bench) -> None:
    for name in "mn":
        await bench.load(name, routes=(route("/own"),))
    with pytest.raises(
        MLServerError, match=r"Several models answer /own: 'm', 'n'\. Use /v2/models/NAME/own"
    ):
        match(bench, create_request("/own"))
    with pytest.raises(MLServerError, match="'missing'.*does not answer /own; these do: 'm', 'n'"):
        match(bench, create_request("/own", x_mlserver_model="missing"), default_model="m")

    assert match(bench, create_request("/own", x_mlserver_model="n")) == ("n", None)
    assert match(bench, create_request("/own"), default_model="m") == ("m", None)
    assert match(bench, create_request("/own", x_mlserver_model="n"), default_model="m") == (
        "n",
        None,
    )
    assert match(bench, create_request("/v2/models/n/own")) == ("n", None)


async def test_a_static_reply_needs_no_selection(bench: Bench) -> None:
    for name in "mn":
        await bench.load(name, routes=(route("/ping", method="GET", static="\n"),))

    assert match(bench, create_request("/ping", "GET")) == ("m", None)


@pytest.mark.parametrize(
    "template, path, fits",
    [
        ("/a", "/a", True),
        ("/a", "/a/", False),
        ("/a/{b}", "/a/x", True),
        ("/a/{b}", "/a/x/y", False),
        ("/a/{b}", "/a/", False),
        ("/a/{b:path}", "/a/x/y", True),
        ("/a/{b}/c", "/a/x/c", True),
        ("/a.b/{c}", "/aXb/c", False),
        ("/{a}.{b}", "/x.y", True),
        ("/(a+)+{b}", "/(a+)+x", True),
    ],
)
def test_templates(template: str, path: str, fits: bool) -> None:
    assert matches(template, path) is fits


# -- replies --


async def test_static_replies(bench: Bench) -> None:
    model = await bench.load(
        routes=(route("/ping", method="GET", static="pong", content_type="text/plain"),)
    )
    reply = await get_reply(bench, create_request("/ping", "GET"))
    assert reply is not None
    assert (reply.status, reply.body, reply.content_type) == (200, b"pong", "text/plain")

    model.available = False
    with pytest.raises(MLServerError, match="not ready"):
        await get_reply(bench, create_request("/ping", "GET"))


@pytest.mark.parametrize("path", ["/own", "/v2/models/m/own", "/v2/models/m/versions/1/own"])
async def test_custom_handlers_receive_the_request(bench: Bench, path: str) -> None:
    await bench.load("m", "1", routes=(route("/own", handler="own"),))
    reply = await get_reply(bench, create_request(path))

    assert reply is not None
    assert (reply.status, reply.body, reply.content_type) == (201, b"/own", "text/x")
    assert reply.headers == [(b"x-own", b"1")]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> str:
    """A wire format with JSON lists as bodies and plain text as errors."""

    def read_request(body: bytes, content_type: str, config: dict[str, Any]) -> Any:
        if body == b"no":
            raise MLServerError("expected a list", 422)
        return inference_request([config["factor"] * value for value in json.loads(body)])

    def write_response(
        response: InferenceResponse, config: dict[str, Any]
    ) -> tuple[int, bytes, str]:
        return 200, json.dumps(response.outputs[0].data.root).encode(), "text/list"

    def write_error(error: MLServerError, config: dict[str, Any]) -> tuple[int, bytes, str]:
        return error.status_code, error.message.encode(), "text/error"

    module = ModuleType("wire_format_of_a_test")
    vars(module).update(
        read_request=read_request, write_response=write_response, write_error=write_error
    )
    monkeypatch.setitem(sys.modules, "wire_format_of_a_test", module)
    return "wire_format_of_a_test"


async def test_wire_formats_of_runtimes(bench: Bench, wire: str) -> None:
    await bench.load("m", "7", routes=(route("/list", wire=wire, config={"factor": 2}),))
    reply = await get_reply(bench, create_request("/list", body=b"[1, 2.5]"))

    assert reply is not None
    assert (reply.status, reply.body, reply.content_type) == (200, b"[2.0, 5.0]", "text/list")
    headers = dict(reply.headers)
    assert headers[b"x-mlserver-model-version"] == b"7"
    assert b"model;dur=" in headers[b"server-timing"]


async def test_the_wire_format_writes_errors(bench: Bench, wire: str) -> None:
    model = await bench.load(routes=(route("/list", wire=wire, config={"factor": 2}),))
    reply = await get_reply(bench, create_request("/list", body=b"no"))
    assert reply is not None
    assert (reply.status, reply.body, reply.content_type) == (422, b"expected a list", "text/error")

    def overloaded(request: Any) -> InferenceResponse:
        raise Overloaded("later", 7.4)

    model.response = overloaded
    reply = await get_reply(bench, create_request("/list", body=b"[1]"))
    assert reply is not None
    assert (reply.status, dict(reply.headers)) == (429, {b"retry-after": b"7"})


async def test_the_selected_version_reads_and_writes(bench: Bench, wire: str) -> None:
    await bench.load("m", "1", routes=(route("/list", wire=wire, config={"factor": 2}),))
    await bench.load("m", "2", routes=(route("/list", wire=wire, config={"factor": 3}),))
    for weights, body in (((("1", 1.0),), b"[2.0]"), ((("2", 1.0),), b"[3.0]")):
        bench.registry.find("m").split = TrafficSplit(weights)
        reply = await get_reply(bench, create_request("/list", body=b"[1]"))
        assert reply is not None
        assert reply.body == body
        assert dict(reply.headers)[b"x-mlserver-model-version"] == weights[0][0].encode()


@pytest.mark.parametrize("seconds, header", [(0.2, b"1"), (1.0, b"1"), (59.6, b"60")])
def test_retry_after(seconds: float, header: bytes) -> None:
    assert retry_after(Overloaded("later", seconds)) == [(b"retry-after", header)]
    assert retry_after(MLServerError("no")) == []

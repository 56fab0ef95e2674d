"""HTTP semantics: methods, compression, CORS, the root path, response headers."""

from __future__ import annotations

import gzip
import json
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.repository import tensor, write_model, write_server_settings
from support.server import Server, fetch

INFER = "/v2/models/echo/infer"
ORIGIN = "https://notebook.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("http")
    cors = {
        "allow_origins": [ORIGIN],
        "allow_origin_regex": r"https://.*\.trusted\.example",
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["x-token"],
        "allow_credentials": True,
        "expose_headers": ["server-timing"],
        "max_age": 60,
    }
    write_server_settings(folder, root_path="/serving", cors_settings=cors)
    write_model(folder / "echo")
    with Server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without compression and CORS, and with MLServer 1.x's status for invalid requests."""
    folder = tmp_path_factory.mktemp("http-plain")
    write_server_settings(folder, gzip_enabled=False, validation_status=422)
    write_model(folder / "echo")
    with Server(folder) as running:
        yield running


# -- methods --


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/echo", "/v2/docs"]
)
def test_head_is_get_without_a_body(server: Server, path: str) -> None:
    got, head = server.get(path), server.client.head(path)

    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers.get("content-type") == got.headers.get("content-type")


@pytest.mark.parametrize(
    "path, allowed",
    [
        ("/v2/models/echo", "GET, HEAD, OPTIONS"),
        (INFER, "OPTIONS, POST"),
        ("/v2", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_lists_methods(server: Server, path: str, allowed: str) -> None:
    response = server.client.options(path)

    assert (response.status_code, response.headers["allow"], response.content) == (
        200,
        allowed,
        b"",
    )


def test_health_is_in_the_status_and_in_the_body(server: Server) -> None:
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get("/v2/models/echo/ready").json() == {"name": "echo", "ready": True}


def test_unknown_paths_have_no_methods(server: Server) -> None:
    assert server.client.options("/v3").status_code == 404
    assert server.client.head("/v3").status_code == 404


def test_models_are_listed(server: Server) -> None:
    assert server.get("/v2/models").json() == {"models": ["echo"]}


@pytest.mark.parametrize("path", ["/v2/", "/v2/models/", "/v2/models/echo/", "/v2/health/ready/"])
def test_a_trailing_slash_is_ignored(server: Server, path: str) -> None:
    response = server.client.get(path, follow_redirects=False)

    assert response.status_code == 200
    assert response.content == server.get(path.rstrip("/")).content


@pytest.mark.parametrize("path", ["/v2/models/echo", "/v2/health/ready", "/v2/docs"])
def test_a_proxy_may_strip_the_root_path_or_not(server: Server, path: str) -> None:
    assert server.get(f"/serving{path}").status_code == server.get(path).status_code == 200


# -- ids, parameters and response headers --


@pytest.mark.parametrize("request_id", ["mine", "", "snow \u2603", "x" * 1024])
def test_ids_are_returned(server: Server, request_id: str) -> None:
    response = server.infer("echo", [tensor("x", [1.0])], id=request_id)

    assert response.json()["id"] == request_id
    assert ("ce-id" in response.headers) is bool(request_id)


@pytest.mark.parametrize("more", [{}, {"id": None}])
def test_ids_are_generated(server: Server, more: dict[str, Any]) -> None:
    body = server.infer("echo", [tensor("x", [1.0])], **more).json()

    assert uuid.UUID(body["id"]).version == 4


@pytest.mark.parametrize("request_id", ["x" * 1025, "a\nb", "a\u0000b"])
def test_ids_that_are_unsafe_in_headers_and_logs(server: Server, request_id: str) -> None:
    assert server.infer("echo", [tensor("x", [1.0])], id=request_id).status_code == 400


def test_response_headers(server: Server) -> None:
    headers = server.infer("echo", [tensor("x", [1.0, 2.0])], id="1").headers

    assert headers["content-type"] == "application/json"
    assert {name: value for name, value in headers.items() if name.startswith("ce-")} == {
        "ce-specversion": "0.3",
        "ce-source": "io.seldon.serving.deployment.mlserver",
        "ce-type": "io.seldon.serving.inference.response",
        "ce-modelid": "echo",
        "ce-inferenceservicename": "mlserver",
        "ce-endpoint": "echo",
        "ce-id": "1",
        "ce-requestid": "1",
    }
    stages = [
        stage.partition(";")[0] for stage in headers["server-timing"].split(", ") if ";" in stage
    ]
    assert {"queue", "model", "codec"} <= set(stages)


def test_requested_outputs_select_and_order(server: Server) -> None:
    inputs = [tensor(name, [1], "INT8") for name in "abc"]
    chosen = server.infer("echo", inputs, outputs=[{"name": "c"}, {"name": "a"}])
    unknown = server.infer("echo", inputs, outputs=[{"name": "z"}])

    assert [output["name"] for output in chosen.json()["outputs"]] == ["c", "a"]
    assert unknown.status_code == 400
    assert "'z'" in unknown.json()["error"]


# -- response compression --

OPEN: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
CLOSE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}
BIG = json.dumps({"inputs": [tensor("x", [0.5] * 1000)]}).encode()


@pytest.mark.parametrize(
    "accepted, encoding",
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip;q=many", None),
    ],
)
def test_responses_are_compressed_as_accepted(
    server: Server, accepted: str, encoding: str | None
) -> None:
    with server.client.stream(
        "POST", INFER, content=BIG, headers={"accept-encoding": accepted}
    ) as response:
        raw = b"".join(response.iter_raw())
    opened = OPEN[encoding](raw) if encoding else raw

    assert response.headers.get("content-encoding") == encoding
    assert response.headers["vary"] == "Accept-Encoding"
    assert json.loads(opened)["outputs"][0]["data"] == [0.5] * 1000


def test_small_responses_are_not_compressed(server: Server) -> None:
    response = server.infer("echo", [tensor("x", [1.0])])

    assert not {"content-encoding", "vary"} & set(response.headers)


def test_the_setting_disables_compression(plain_server: Server) -> None:
    response = plain_server.post(INFER, BIG, headers={"accept-encoding": "gzip"})

    assert not {"content-encoding", "vary"} & set(response.headers)


@pytest.mark.parametrize(
    "encoding", ["gzip", "GZIP", "x-gzip", "deflate", "identity", "gzip, gzip"]
)
def test_bodies_in_every_encoding(server: Server, encoding: str) -> None:
    body = BIG
    for name in encoding.lower().split(", "):
        body = CLOSE[name](body) if name in CLOSE else body

    assert server.post(INFER, body, headers={"content-encoding": encoding}).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compression_bomb(server: Server, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    refused = server.post(
        "/v2/models/echo/infer", pack(b" " * 60_000_000), headers={"content-encoding": encoding}
    )
    assert refused.status_code == 413
    assert "100 times" in refused.json()["error"]


def test_a_raw_deflate_stream(server: Server) -> None:
    squeezer = zlib.compressobj(wbits=-15)
    body = squeezer.compress(BIG) + squeezer.flush()

    assert server.post(INFER, body, headers={"content-encoding": "deflate"}).status_code == 200


def test_another_encoding(server: Server) -> None:
    response = server.post(INFER, BIG, headers={"content-encoding": "br"})

    assert response.status_code == 415
    assert "supported: gzip, deflate, identity" in response.json()["error"]


# -- cross-origin requests --


@pytest.mark.parametrize("origin", [ORIGIN, "https://a.trusted.example"])
@pytest.mark.parametrize("path", ["/v2", "/v2/models/nope"])
def test_an_allowed_origin_may_read(server: Server, origin: str, path: str) -> None:
    headers = server.get(path, headers={"origin": origin}).headers

    assert headers["access-control-allow-origin"] == origin
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-expose-headers"] == "server-timing"
    assert "Origin" in headers["vary"]


@pytest.mark.parametrize(
    "origin", ["https://elsewhere.example", "null", "https://a.trusted.example.evil.example"]
)
def test_another_origin_may_not(server: Server, origin: str) -> None:
    response = server.get("/v2", headers={"origin": origin})

    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control")]


def preflight(server: Server, origin: str, method: str, headers: str = "") -> Any:
    request_headers = {"origin": origin, "access-control-request-method": method}
    return server.client.options(
        INFER,
        headers=request_headers | ({"access-control-request-headers": headers} if headers else {}),
    )


def test_a_preflight_that_passes(server: Server) -> None:
    response = preflight(server, ORIGIN, "POST", "Content-Type, X-Token")

    assert (response.status_code, response.text) == (200, "OK")
    assert response.headers["access-control-allow-methods"] == "GET, POST"
    assert response.headers["access-control-max-age"] == "60"
    assert "x-token" in response.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "origin, method, headers, faults",
    [
        ("https://elsewhere.example", "POST", "", "origin"),
        (ORIGIN, "DELETE", "", "method"),
        (ORIGIN, "POST", "x-other", "headers"),
        ("https://elsewhere.example", "PUT", "x-other", "origin, method, headers"),
    ],
)
def test_a_preflight_that_does_not(
    server: Server, origin: str, method: str, headers: str, faults: str
) -> None:
    response = preflight(server, origin, method, headers)

    assert (response.status_code, response.text) == (400, f"Disallowed CORS {faults}")


def test_without_the_setting_there_are_no_such_headers(plain_server: Server) -> None:
    assert preflight(plain_server, ORIGIN, "POST").status_code == 405
    assert (
        "access-control-allow-origin"
        not in plain_server.get("/v2", headers={"origin": ORIGIN}).headers
    )


# -- compatibility with MLServer 1.x --


@pytest.mark.parametrize("body", [b"{", b"{}", b"[]", b"", b'{"inputs": [{"name": "x"}]}'])
def test_an_invalid_request_is_422_with_the_setting(plain_server: Server, body: bytes) -> None:
    response = plain_server.post(INFER, body)

    assert response.status_code == 422
    assert {"type", "loc", "msg"} <= set(response.json()["detail"][0])


def test_other_errors_keep_their_status(plain_server: Server) -> None:
    assert plain_server.infer("echo", [tensor("x", [1.0, 2.0], shape=[3])]).status_code == 400
    assert plain_server.infer("nope", [tensor("x", [1.0])]).status_code == 404


# -- metrics --


def test_paths_of_requests_are_labelled_as_in_mlserver_1(server: Server) -> None:
    """Dashboards for MLServer 1.x query these metrics."""
    body = {"inputs": [tensor("x", [1.0])]}
    versioned = "/v2/models/{model_name}/versions/{model_version}/infer"
    paths = {
        "/v2/models/echo/infer": "/v2/models/{model_name}/infer",
        "/v2/models/versioned/versions/1/infer": versioned,
        "/v2/repository/models/echo/load": "/v2/repository/models/{model_name}/load",
    }
    for path in paths:
        assert server.post(path, body).status_code in (200, 404)
    page = fetch(f"{server.metrics_url}/metrics").text
    for path in paths.values():
        assert f'path="{path}"' in page

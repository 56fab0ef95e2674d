"""Router: from a path to an endpoint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.rest.messages import Reply, Request
from mlserver.rest.routing import MethodNotAllowed, Router

TEMPLATES = [
    ("GET", "/v2"),
    ("GET", "/v2/models/stats"),
    ("GET", "/v2/models/{name}"),
    ("GET", "/v2/models/{name}/ready"),
    ("POST", "/v2/models/{name}/infer"),
    ("POST", "/v2/models/{name}/versions/{version}/infer"),
    ("GET", "/v2/models/{name}/versions/{version}"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/{repository}/index"),
]


async def endpoint(request: Request) -> Reply:
    return Reply()


@pytest.fixture
def router() -> Router:
    router = Router()
    for method, template in TEMPLATES:
        router.add(method, template, endpoint)
    return router


@pytest.mark.parametrize(
    "method, path, template, segments",
    [
        ("GET", "/v2", "/v2", {}),
        ("GET", "/v2/", "/v2", {}),
        ("HEAD", "/v2", "/v2", {}),
        ("GET", "/v2/models/m", "/v2/models/{name}", {"name": "m"}),
        ("GET", "/v2/models/stats", "/v2/models/stats", {}),
        ("POST", "/v2/models/stats/infer", "/v2/models/{name}/infer", {"name": "stats"}),
        ("POST", "/v2/models/infer/infer", "/v2/models/{name}/infer", {"name": "infer"}),
        ("GET", "/v2/models/é ☃", "/v2/models/{name}", {"name": "é ☃"}),
        ("GET", "/v2/models/a%2Fb", "/v2/models/{name}", {"name": "a/b"}),
        ("GET", "/v2/models/a%252Fb", "/v2/models/{name}", {"name": "a%2Fb"}),
        ("GET", "/v2/models/..", "/v2/models/{name}", {"name": ".."}),
        ("GET", "/v2/models/{name}", "/v2/models/{name}", {"name": "{name}"}),
        (
            "POST",
            "/v2/models/m/versions/1/infer",
            "/v2/models/{name}/versions/{version}/infer",
            {"name": "m", "version": "1"},
        ),
        ("POST", "/v2/repository/index", "/v2/repository/index", {}),
        (
            "POST",
            "/v2/repository/r/index",
            "/v2/repository/{repository}/index",
            {"repository": "r"},
        ),
    ],
)
def test_matches(
    router: Router, method: str, path: str, template: str, segments: dict[str, str]
) -> None:
    for _ in range(2):  # the second match is cached
        match = router.match(method, path)
        assert match is not None
        assert match == (endpoint, segments, template)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1",
        "/v2/models",
        "/v2/models//infer",
        "/v2/models/m/x",
        "/v2/models/m/versions",
        "/v2/x/y/z",
    ],
)
def test_no_such_path(router: Router, path: str) -> None:
    assert router.match("GET", path) is None
    assert router.match("POST", path) is None


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("POST", "/v2", ["GET", "HEAD", "OPTIONS"]),
        ("GET", "/v2/models/m/infer", ["OPTIONS", "POST"]),
        ("DELETE", "/v2/models/m", ["GET", "HEAD", "OPTIONS"]),
        ("HEAD", "/v2/models/m/infer", ["OPTIONS", "POST"]),
    ],
)
def test_other_methods(router: Router, method: str, path: str, allowed: list[str]) -> None:
    with pytest.raises(
        MethodNotAllowed, match=f"Method {method} is not allowed on {path}"
    ) as error:
        router.match(method, path)
    assert (error.value.status_code, error.value.allowed) == (405, allowed)


def test_paths_beyond_the_cache_are_matched(router: Router) -> None:
    """More paths than the cache has entries, and longer ones than it stores."""
    for number in [*range(1100), 10**2000, 0]:
        name = f"m{number:x}"
        match = router.match("GET", f"/v2/models/{name}")
        assert match is not None
        assert match[1] == {"name": name}


@given(st.text(max_size=30), st.sampled_from(["GET", "POST", "PUT", ""]))
def test_any_path_is_matched_or_not(path: str, method: str) -> None:
    router = Router()
    for declared, template in TEMPLATES:
        router.add(declared, template, endpoint)
    try:
        match = router.match(method, f"/v2/models/{path}")
    except MethodNotAllowed:
        return
    assert match is None or match[0] is endpoint

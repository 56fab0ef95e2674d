"""Custom handlers and routes of an object, sorted by name, without running properties."""

from __future__ import annotations

import pytest

from mlserver import MLModel, ModelSettings
from mlserver.custom_routes import (
    CustomHandler,
    Route,
    custom_handler,
    get_custom_handlers,
    get_handler_routes,
    register_custom_handler,
)
from mlserver.errors import MLServerError
from mlserver.parallel.executor import HTTPRequest
from mlserver.parallel.worker.coroutine_calls import CoroutineCalls
from mlserver.parallel.worker.custom_routes_app import RouteApp


class Reading(MLModel):
    @custom_handler("/read", rest_method="GET")
    async def read(self) -> str:
        raise FileNotFoundError(2, "No such file or directory", "/srv/models/m/missing.csv")


async def test_the_error_of_a_handler_has_no_path_of_the_server() -> None:
    app = RouteApp(Reading(ModelSettings(name="m", implementation=Reading)), CoroutineCalls("m"))
    with pytest.raises(MLServerError) as error:
        await app(HTTPRequest("GET", "/read", b"", [], b""))
    assert error.value.message == (
        "The handler of /read failed: "
        "FileNotFoundError: [Errno 2] No such file or directory: 'missing.csv'"
    )


class Base:
    @custom_handler(rest_path="/z")
    async def zulu(self, payload: dict[str, int]) -> int:
        return payload["a"]

    @custom_handler("/a", rest_method="GET")
    def alpha(self) -> str:
        return type(self).__name__

    @property
    def trap(self) -> str:
        pytest.fail("a property was run")

    def plain(self) -> None: ...


class Child(Base):
    @custom_handler("/again")
    @custom_handler("/twice")
    @staticmethod
    def beta() -> int:
        return 2


def test_handlers_are_bound_and_sorted() -> None:
    handlers = get_custom_handlers(Base())
    assert [handler for handler, _ in handlers] == [
        CustomHandler(rest_path="/a", rest_method="GET"),
        CustomHandler(rest_path="/z"),
    ]
    assert handlers[0][1]() == "Base"


def test_handlers_are_inherited_and_stack() -> None:
    assert [(route.path, route.handler) for route in get_handler_routes(Child())] == [
        *(("/a", "alpha"), ("/twice", "beta"), ("/again", "beta"), ("/z", "zulu"))
    ]
    assert get_custom_handlers(Child())[1][1]() == 2


def test_a_decorated_method_is_still_a_method() -> None:
    assert Base.alpha(Child()) == "Child"


def test_registering_a_function() -> None:
    def late() -> str:
        return "late"

    holder = Base()
    handler = CustomHandler(rest_path="/late")
    holder.late = register_custom_handler(handler, late)  # type: ignore[attr-defined]
    assert [handler.rest_path for handler, _ in get_custom_handlers(holder)] == [
        "/a",
        "/late",
        "/z",
    ]


def test_an_object_without_handlers() -> None:
    assert get_custom_handlers(object()) == []


def test_routes_are_plain_data() -> None:
    assert Route("/ping", static="ok", content_type="text/plain") == Route(
        "/ping", static="ok", content_type="text/plain"
    )
    assert Route("/a").config is not Route("/b").config

"""Fixture of the codec tests: a round trip through JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import orjson
import pytest

from mlserver.types import InferenceRequest, InferenceResponse

Message = TypeVar("Message", InferenceRequest, InferenceResponse)


def _text(value: Any) -> str:
    assert isinstance(value, bytes), type(value)
    return value.decode("utf-8")


def _over_json(message: Message) -> Message:
    return type(message).model_validate(
        orjson.loads(orjson.dumps(message.model_dump(), default=_text))
    )


@pytest.fixture(scope="session")
def over_json() -> Callable[[Any], Any]:
    """Return a request or response after a round trip through JSON."""
    return _over_json

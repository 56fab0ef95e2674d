"""Which V2 request a model's OpenAPI document shows: one that the model was seen to answer.

Decoding alone does not tell: an estimator refuses a missing value, a pipeline a text that it cannot read. So each
candidate is predicted once at load. Chat models and agents are not asked, for an answer of theirs may cost money or do
something; of theirs the decoded example counts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

from . import openapi_examples

Document = dict[str, Any]
# Seconds for the predictions of all candidates of one model.
LIMIT = 5.0
_is_running: ContextVar[bool] = ContextVar("is_running", default=False)


class Tried(Protocol):
    """The parts of the runtime that a trial needs."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse: ...

    def _decode(self, payload: InferenceRequest) -> Any: ...


def is_running() -> bool:
    """Whether the current prediction is a trial, whose failure concerns no caller."""
    return _is_running.get()


async def choose_examples(
    model: Tried, body: Document | None, inputs: Iterable[MetadataTensor], may_predict: bool
) -> Document:
    """The examples of a model, by the names that the OpenAPI document looks for in a route's config.

    Args:
        body: The model's own input example, as a body for `/invocations`.
        may_predict: False for models that are not to be asked without need.

    Returns:
        `example` (the body) and `v2_example`; the latter is None if the model refuses every candidate.
    """
    inputs = list(inputs)
    chosen: Document = {} if body is None else {"example": body}
    if not inputs:
        return chosen
    own = openapi_examples.as_request(body, inputs) if body is not None else None
    candidates = [
        candidate for candidate in (own, openapi_examples.made_up(inputs)) if candidate is not None
    ]
    is_answered: bool | None = None
    try:
        async with asyncio.timeout(LIMIT):
            for candidate in candidates:
                if await _is_answered(model, candidate, may_predict):
                    return {**chosen, "v2_example": candidate}
    except TimeoutError:
        # A slow model has refused nothing: what its author logged is shown, what was made up is not.
        is_answered = own is not None
    return {**chosen, "v2_example": own if is_answered else None}


async def _is_answered(model: Tried, candidate: Document, may_predict: bool) -> bool:
    try:
        request = InferenceRequest.model_validate(candidate)
        with _trial():
            if may_predict:
                await model.predict(request)
            else:
                model._decode(request)
    except asyncio.CancelledError:
        raise
    except BaseException:  # a model may raise anything, SystemExit included
        return False
    return True


@contextmanager
def _trial() -> Iterator[None]:
    token = _is_running.set(True)
    try:
        yield
    finally:
        _is_running.reset(token)


def answer_example(name: str, score: Callable[[bytes, str], str], folder: str) -> None:
    """Answer the model's input example, if it has one. Raises `MLServerError` if that fails."""
    example = os.path.join(folder, openapi_examples.FILE)
    if not os.path.isfile(example):
        return
    with open(example, "rb") as file:
        body = file.read()
    try:
        score(body, "application/json")
    except MLServerError as error:
        text = f"Model {name} fails on its input example: {error.message.splitlines()[0]}"
        raise MLServerError(text, 500) from None

"""Choice of a model's V2 example for its OpenAPI document, by predicting each candidate at load.

Decoding alone does not show that an example works: an estimator refuses a missing value, a pipeline
a text. Chat models and agents are not called, because a call may cost money or have effects; their
example only has to be decoded.
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
# Seconds for the predictions of all candidates of a model.
MAX_TRIAL_SECONDS = 5.0
_is_running: ContextVar[bool] = ContextVar("is_running", default=False)


class TriedModel(Protocol):
    """The methods of the runtime that a trial calls."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse: ...

    def _decode(self, payload: InferenceRequest) -> Any: ...


def is_running() -> bool:
    """Whether the current prediction is a trial, whose error is not logged as a warning."""
    return _is_running.get()


async def choose_examples(
    model: TriedModel, folder: str, inputs: Iterable[MetadataTensor], may_predict: bool
) -> Document:
    """Return a model's examples by the names that the OpenAPI document expects in a route's config.

    Args:
        folder: The model's folder, which may have an input example.
        inputs: The inputs of the model's metadata.
        may_predict: False for models that must not be called without a request.

    Returns:
        `example` (the body for `/invocations`) if there is one, and `v2_example`, which is None if
        the model refuses every candidate.
    """
    body, inputs = openapi_examples.read_example(folder), list(inputs)
    examples: Document = {} if body is None else {"example": body}
    if not inputs:
        return examples
    logged = openapi_examples.to_v2_request(body, inputs) if body is not None else None
    synthetic = openapi_examples.synthesize(inputs)
    candidates = [request for request in (logged, synthetic) if request is not None]
    # A task of its own, because a prediction in a thread cannot be stopped.
    trials = asyncio.create_task(_find_accepted(model, candidates, may_predict))
    try:
        is_done, _ = await asyncio.wait({trials}, timeout=MAX_TRIAL_SECONDS)
        # After a timeout, show the author's example, which was not checked, and no synthetic one.
        selected = await trials if is_done else logged
    finally:
        trials.cancel()
    return {**examples, "v2_example": selected}


async def _find_accepted(
    model: TriedModel, candidates: Iterable[Document], may_predict: bool
) -> Document | None:
    for candidate in candidates:
        if await _is_accepted(model, candidate, may_predict):
            return candidate
    return None


async def _is_accepted(model: TriedModel, candidate: Document, may_predict: bool) -> bool:
    try:
        request = InferenceRequest.model_validate(candidate)
        with _mark_trial():
            if may_predict:
                await model.predict(request)
            else:
                model._decode(request)
    except asyncio.CancelledError:
        raise
    except BaseException:  # models may raise anything, SystemExit included
        return False
    return True


@contextmanager
def _mark_trial() -> Iterator[None]:
    token = _is_running.set(True)
    try:
        yield
    finally:
        _is_running.reset(token)


def score_example(name: str, score: Callable[[bytes, str], str], folder: str) -> None:
    """Score the model's input example, if it has one.

    Raises:
        MLServerError: the model fails on it.
    """
    path = os.path.join(folder, openapi_examples.EXAMPLE_FILE)
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        body = file.read()
    try:
        score(body, "application/json")
    except MLServerError as error:
        text = f"Model {name} fails on its input example: {error.message.splitlines()[0]}"
        raise MLServerError(text, 500) from None

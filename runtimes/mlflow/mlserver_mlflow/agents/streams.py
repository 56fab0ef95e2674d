"""Iteration over a model's `predict_stream` in threads."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, Callable
from typing import Any

from ..model_calls import ModelCaller


async def iterate(
    caller: ModelCaller, stream: Callable[..., Any], data: Any, params: dict[str, Any] | None
) -> AsyncGenerator[Any, None]:
    """Yield the chunks of `stream(data, params)`, each read in a thread.

    All calls run in one context, which MLflow's tracing requires. The model's generator is closed
    at the end, also if the client disconnects before.
    """
    context = contextvars.copy_context()
    end = object()
    chunks: Any = None
    try:
        chunks = await caller.call(context.run, stream, data, params, in_thread=True)
        while True:
            chunk = await caller.call(context.run, next, chunks, end, in_thread=True)
            if chunk is end:
                return
            yield chunk
    finally:
        if hasattr(chunks, "close"):
            await caller.call(context.run, chunks.close, in_thread=True)

"""What travels through a job: the items of one request, and what came of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...types import InferenceRequest, InferenceResponse

# How upstream's output names what went wrong before anything was sent.
NOT_SENT = "preprocessing error"
REFUSED = "inference error"


@dataclass(frozen=True)
class ItemFailure:
    """Why an item has no answer."""

    message: str
    status: str = REFUSED


@dataclass
class WorkItem:
    """One request for one or several items.

    Attributes:
        items: The numbers of the items (lines or rows of the input), in order.
        rows: Rows of the request that belong to each item.
        ids: The id that each item's own answer has.
        request: None = nothing to send: every item failed before.
        failed: Items that could not be made into a request.
        halves: Makes two smaller works of it; None = there is only one item.
    """

    items: list[int]
    rows: list[int]
    ids: list[str | None]
    request: InferenceRequest | None
    failed: dict[int, ItemFailure] = field(default_factory=dict)
    halves: Callable[[], tuple[WorkItem, WorkItem]] | None = None


@dataclass
class ItemResult:
    """What came of one item."""

    item: int
    id: str | None = None
    inference_id: str | None = None
    response: InferenceResponse | None = None
    failure: ItemFailure | None = None

    def document(self) -> dict[str, Any]:
        """The line of the output, as plain data. Raises `MLServerError`: an output is neither number nor text."""
        from ...wire import json

        if self.response is None:
            failure = self.failure or ItemFailure("no answer")
            error = {"status": failure.status, "msg": failure.message}
            return {"parameters": {"batch_index": self.item}, "error": error}
        document = json.build_document(self.response)
        document["id"] = self.id or self.inference_id
        document["parameters"] |= {"batch_index": self.item, "inference_id": self.inference_id}
        return document

"""Items of a scoring job: the request for one or several items, and the result of each item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...types import InferenceRequest, InferenceResponse

# Values of `error.status` in the output, as MLServer 1.x writes them.
NOT_SENT = "preprocessing error"
REFUSED = "inference error"


@dataclass(frozen=True)
class ItemFailure:
    """Reason why an item has no response."""

    message: str
    status: str = REFUSED


@dataclass
class WorkItem:
    """One request for one or several items.

    Attributes:
        items: Indices of the items (lines or rows of the input), in order.
        rows: Number of the request's rows that belong to each item.
        ids: Request id of each item, used in its line of the output.
        request: None = every item failed before a request could be made.
        failed: Items that could not be converted to a request.
        halves: Splits the work item into two; None = it has only one item.
    """

    items: list[int]
    rows: list[int]
    ids: list[str | None]
    request: InferenceRequest | None
    failed: dict[int, ItemFailure] = field(default_factory=dict)
    halves: Callable[[], tuple[WorkItem, WorkItem]] | None = None


@dataclass
class ItemResult:
    """Response or failure of one item."""

    item: int
    id: str | None = None
    inference_id: str | None = None
    response: InferenceResponse | None = None
    failure: ItemFailure | None = None

    def to_document(self) -> dict[str, Any]:
        """Return the line of the output as JSON values.

        Raises:
            MLServerError: JSON cannot represent an output.
        """
        from ...wire import json

        if self.response is None:
            failure = self.failure or ItemFailure("no response")
            error = {"status": failure.status, "msg": failure.message}
            return {"parameters": {"batch_index": self.item}, "error": error}
        document = json.build_document(self.response)
        document["id"] = self.id or self.inference_id
        document["parameters"] |= {"batch_index": self.item, "inference_id": self.inference_id}
        return document

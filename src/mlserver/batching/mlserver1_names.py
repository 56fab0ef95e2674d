"""Public names of MLServer 1.x for batching. The server batches with `scheduler` and `batch`."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InferenceError, MLServerError
from ..model import MLModel
from ..types import InferenceRequest, InferenceResponse
from .batch import RowsDisagree, batch_key, join, rows_of, split
from .scheduler import Scheduler as AdaptiveBatcher

__all__ = ["AdaptiveBatcher", "BatchedRequests", "load_batching"]


class BatchedRequests:
    """Joins several requests into one, and splits its response.

    Args:
        inference_requests: Requests by id, with equal inputs except for the rows. None = no
            requests.

    Attributes:
        merged_request: The rows of all requests, in the order of the ids.

    Raises:
        MLServerError: the requests cannot be joined.
    """

    def __init__(self, inference_requests: Mapping[str, InferenceRequest] | None = None) -> None:
        self.inference_requests = dict(inference_requests or {})
        requests = list(self.inference_requests.values())
        self._rows = [rows_of(request) for request in requests]
        if inference_requests is None:
            self.merged_request = InferenceRequest(inputs=[])
            return
        if not requests or not all(self._rows):
            raise MLServerError(
                "Requests can be joined if all inputs of each have the same number of rows, "
                "at least one"
            )
        first = batch_key(requests[0])
        if any(batch_key(request) != first for request in requests[1:]):
            raise MLServerError(
                "Requests can be joined if their inputs have equal names, datatypes, "
                "inner shapes and parameters"
            )
        self.merged_request = join(requests)

    def split_response(self, batched_response: InferenceResponse) -> dict[str, InferenceResponse]:
        """Return each request's rows by id.

        Raises `InferenceError` if the response has another number of rows.
        """
        try:
            parts = split(batched_response, self._rows)
        except RowsDisagree:
            raise InferenceError(
                f"The response does not have the {sum(self._rows)} rows of its requests", 500
            ) from None
        for request_id, part in zip(self.inference_requests, parts, strict=True):
            part.id = request_id
        return dict(zip(self.inference_requests, parts, strict=True))


async def load_batching(model: MLModel) -> MLModel:
    """Return the model unchanged: the scheduler batches the requests of every model."""
    return model

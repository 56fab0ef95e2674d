"""Joining requests by hand, under the names of MLServer 1.x. The server's own joining is in `scheduling`."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InferenceError, MLServerError
from ..model import MLModel
from ..types import InferenceRequest, InferenceResponse
from .batch import RowsDisagree, batch_key, join, rows_of, split
from .scheduler import Scheduler as AdaptiveBatcher

__all__ = ["AdaptiveBatcher", "BatchedRequests", "load_batching"]


class BatchedRequests:
    """Several requests as one, and its answer as several.

    Args:
        inference_requests: Requests by id. They must agree in their inputs, but for the rows. None = there are none.

    Attributes:
        merged_request: The rows of all, in the order of the ids.

    Raises:
        MLServerError: they do not agree.
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
                "Requests can be joined if each has inputs with the same number of rows, at least one"
            )
        first = batch_key(requests[0])
        if any(batch_key(request) != first for request in requests[1:]):
            raise MLServerError(
                "Requests can be joined if their inputs agree in name, datatype, inner shape and parameters"
            )
        self.merged_request = join(requests)

    def split_response(self, batched_response: InferenceResponse) -> dict[str, InferenceResponse]:
        """Each request's own rows, by id. Raises `InferenceError` if the response has another number of rows."""
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
    """The model as it is: every model's requests pass a scheduler, which joins them as the model's settings say."""
    return model

"""Reads the properties of a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...model_threads import get_max_concurrency
from ...types import MetadataModelResponse
from ..executor import ModelInfo
from ..rpc.protocol import is_encodable

if TYPE_CHECKING:
    from ...model import MLModel


async def read_info(model: MLModel, ready: bool) -> ModelInfo:
    """Return the properties of a loaded model. Raises what the model's methods raise."""
    from ...custom_routes import Route
    from ...model import MLModel

    metadata = await get_metadata(model)
    routes = tuple(model.routes())
    if not all(isinstance(route, Route) for route in routes):
        raise TypeError("routes() must return a list of Route")
    info = ModelInfo(
        metadata=metadata,
        routes=routes,
        ready=ready,
        row_wise=bool(model.row_wise),
        streams=type(model).predict_stream is not MLModel.predict_stream,
        max_concurrency=get_max_concurrency(model),
        trial_results=model.trial_results,
    )
    if not is_encodable(info.to_plain()):
        raise TypeError("metadata(), routes() or trial_results cannot be serialized")
    return info


async def get_metadata(model: MLModel) -> MetadataModelResponse:
    """Return what the model's `metadata` returns. Raises what it raises, and `TypeError`."""
    metadata: object = await model.metadata()
    if not isinstance(metadata, MetadataModelResponse):
        raise TypeError(
            f"metadata() must return MetadataModelResponse, not {type(metadata).__name__}"
        )
    return metadata

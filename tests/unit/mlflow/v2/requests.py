"""V2 requests to a served MLflow model, without a server."""

from __future__ import annotations

from typing import Any

from mlserver.types import InferenceRequest
from unit.mlflow.conftest import Served

Tensor = dict[str, Any]
ABC = ("a", "b", "c")


def tensor(
    name: str,
    datatype: str,
    data: list[Any],
    shape: list[int] | None = None,
    content_type: str = "",
) -> Tensor:
    fields = {
        "name": name,
        "datatype": datatype,
        "shape": [len(data)] if shape is None else shape,
        "data": data,
    }
    return fields | {"parameters": {"content_type": content_type}} if content_type else fields


def three(datatype: str, data: list[Any], shape: list[int] | None = None) -> list[Tensor]:
    return [tensor(name, datatype, data, shape) for name in ABC]


def request_of(inputs: list[Tensor], parameters: dict[str, Any] | None = None) -> InferenceRequest:
    request = InferenceRequest.model_validate({"inputs": inputs, "parameters": parameters})
    for item in request.inputs:
        item.data.normalize(
            str(item.datatype), item.shape
        )  # as every request is by the time it meets a model
    return request


async def ask(
    served: Served, inputs: list[Tensor], parameters: dict[str, Any] | None = None
) -> list[Any]:
    response = await served.runtime.predict(request_of(inputs, parameters))
    return list(response.outputs[0].data.root)

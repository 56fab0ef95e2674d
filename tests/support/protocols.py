"""One V2 request over every protocol and body format.

JSON, binary, gRPC with raw and with typed contents.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import grpc

from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.wire.json_client import write_binary
from mlserver.wire.proto import messages
from support.server import Server

PROTOCOLS = ("json", "binary", "grpc raw", "grpc typed")
# A response: name, datatype, shape and elements of each output; or the error's text.
Outputs = list[tuple[str, str, list[int], list[Any]]]


def infer(
    server: Server, model: str, inputs: list[dict[str, Any]], protocol: str, **fields: Any
) -> Outputs | str:
    """Run inference. `inputs` and `fields` are those of the JSON body."""
    body = {"inputs": inputs, **fields}
    if protocol == "json":
        answer = server.post(f"/v2/models/{quote(model, safe='')}/infer", body)
        return _rest(answer.status_code, answer.json())
    request = InferenceRequest.model_validate(body)
    if protocol == "binary":
        data, head = write_binary(request)
        headers = {
            "inference-header-content-length": str(head),
            "content-type": "application/octet-stream",
        }
        answer = server.post(f"/v2/models/{quote(model, safe='')}/infer", data, headers=headers)
        if answer.status_code != 200:
            return str(answer.json()["error"])
        return _from_binary(answer.content, int(answer.headers["inference-header-content-length"]))
    message = messages.write_request(request, model, raw=protocol == "grpc raw")
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        try:
            response = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=30)
        except grpc.RpcError as error:
            return str(error.details())
    return _outputs(messages.read_response(response))


def infer_by_all(
    server: Server, model: str, inputs: list[dict[str, Any]], **fields: Any
) -> Outputs | str:
    """Run inference over every protocol; the responses must be equal. Returns the response."""
    answers = {protocol: infer(server, model, inputs, protocol, **fields) for protocol in PROTOCOLS}
    first = answers["json"]
    assert all(answer == first for answer in answers.values()), answers
    return first


def _rest(status: int, document: dict[str, Any]) -> Outputs | str:
    if status != 200:
        return str(document["error"])
    return _outputs(InferenceResponse.model_validate(document))


def _from_binary(content: bytes, head: int) -> Outputs:
    document, rest = json.loads(content[:head]), content[head:]
    for output in document["outputs"]:
        size = output["parameters"].pop("binary_data_size")
        output["data"], rest = [], rest[size:]
    response = InferenceResponse.model_validate(document)
    at = head
    for output, described in zip(
        response.outputs, json.loads(content[:head])["outputs"], strict=True
    ):
        size = described["parameters"]["binary_data_size"]
        output.data = type(output.data).from_raw(
            content[at : at + size], str(output.datatype), output.shape
        )
        at += size
    return _outputs(response)


def _outputs(response: InferenceResponse) -> Outputs:
    return [
        (
            output.name,
            str(output.datatype),
            list(output.shape),
            [_plain(item) for item in output.data.root],
        )
        for output in response.outputs
    ]


def _plain(item: Any) -> Any:
    return item.decode() if isinstance(item, bytes) else item

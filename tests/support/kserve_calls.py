"""Calls of KServe's published clients.

`python kserve_calls.py REST_URL GRPC_ADDRESS` prints JSON.
A program, because the clients' protobuf messages and requirements conflict with those of the
tests' process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np

ARRAYS: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], "u1"),
    "UINT16": np.array([[0, 2**16 - 1]], "u2"),
    "UINT32": np.array([[0, 2**32 - 1]], "u4"),
    "UINT64": np.array([[2**53 + 1, 2**64 - 1]], "u8"),
    "INT8": np.array([[-128, 127]], "i1"),
    "INT16": np.array([[-(2**15), 2**15 - 1]], "i2"),
    "INT32": np.array([[-(2**31), 2**31 - 1]], "i4"),
    "INT64": np.array([[-(2**63), 2**63 - 1]], "i8"),
    "FP16": np.array([[0.5, -2.0]], "f2"),
    "FP32": np.array([[0.1, 3.5]], "f4"),
    "FP64": np.array([[0.1, -0.0]], "f8"),
    "BYTES": np.array([[b"text", b"more"]], object),
}


def request_of(datatype: str, binary: bool, model: str = "echo") -> Any:
    from kserve import InferInput, InferRequest

    tensor = InferInput("x", list(ARRAYS[datatype].shape), datatype)
    tensor.set_data_from_numpy(ARRAYS[datatype], binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="7")


def same(answer: Any, datatype: str) -> bool:
    actual = np.array(answer.outputs[0].as_numpy()).reshape(ARRAYS[datatype].shape)
    if datatype == "BYTES":
        actual = np.array(
            [
                [
                    element.encode() if isinstance(element, str) else element
                    for element in actual.ravel()
                ]
            ],
            object,
        )
    return answer.id == "7" and bool((actual == ARRAYS[datatype]).all())


async def rest(url: str) -> dict[str, Any]:
    from kserve import InferenceRESTClient, RESTConfig

    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        actual: dict[str, Any] = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, "echo"),
            "missing_model_ready": await client.is_model_ready(url, "nope"),
        }
        for datatype in ARRAYS:
            for binary in (True, False):
                if binary or datatype not in (
                    "FP16",
                    "BYTES",
                ):  # the client has its own JSON form of these
                    answer = await client.infer(
                        url, request_of(datatype, binary), model_name="echo"
                    )
                    actual[f"{datatype} {'binary' if binary else 'json'}"] = same(answer, datatype)
        try:
            await client.infer(url, request_of("FP32", False, "nope"), model_name="nope")
        except Exception as error:
            actual["error"] = str(error)
    return actual


async def grpc(address: str) -> dict[str, Any]:
    from kserve import InferenceGRPCClient

    async with InferenceGRPCClient(url=address) as client:
        actual: dict[str, Any] = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready("echo"),
        }
        for datatype in ARRAYS:
            for binary in (True, False):
                if binary or datatype != "FP16":  # which has no typed contents
                    answer = await client.infer(request_of(datatype, binary))
                    actual[f"{datatype} {'raw' if binary else 'typed'}"] = same(answer, datatype)
        try:
            await client.infer(request_of("FP32", True, "nope"))
        except Exception as error:
            actual["error"] = str(error)
    return actual


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps({"rest": asyncio.run(rest(sys.argv[1])), "grpc": asyncio.run(grpc(sys.argv[2]))})
    )

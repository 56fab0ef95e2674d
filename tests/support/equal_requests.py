"""One request over every protocol and format, and a model whose responses are known bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.server import Server

# y = 3x + 1 per row in the input's type; texts are reversed. Where 3x + 1 does not apply,
# bit patterns are unchanged: NaN stays NaN.
AFFINE = """
import numpy as np

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput, TensorData


class Affine(MLModel):
    row_wise = True

    async def predict(self, payload):
        outputs = [self.compute(tensor) for tensor in payload.inputs]
        return InferenceResponse(model_name=self.name, outputs=outputs)

    def compute(self, tensor):
        if tensor.datatype == "BYTES":
            elements = tensor.data.root
            texts = [text.encode() if isinstance(text, str) else bytes(text) for text in elements]
            data = TensorData([text[::-1] for text in texts])
        else:
            values = tensor.data.to_array(tensor.datatype, tensor.shape)
            with np.errstate(all="ignore"):
                result = (values * values.dtype.type(3) + values.dtype.type(1)).astype(values.dtype)
            data = TensorData.from_array(result)
        return ResponseOutput(
            name=tensor.name, shape=list(tensor.shape), datatype=tensor.datatype, data=data
        )
"""
MODELS: dict[str, dict[str, Any]] = {
    "alone": {"max_batch_size": 1},
    "joined": {"max_batch_size": 16, "max_batch_time": 0.02},
    "adaptive": {},
    "cached": {"cache_enabled": True},
}
TYPES = {
    "FP32": "<f4",
    "FP64": "<f8",
    "INT8": "i1",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT64": "<u8",
    "UINT16": "<u2",
}
Inputs = dict[str, tuple[str, Any]]
Outputs = dict[str, tuple[str, list[int], bytes]]


def raw_of(datatype: str, values: Any) -> bytes:
    if datatype == "BYTES":
        return b"".join(len(text).to_bytes(4, "little") + text for text in values.ravel())
    return bytes(np.ascontiguousarray(values).tobytes())


def by_json(server: Server, model: str, inputs: Inputs) -> Outputs:
    tensors = [
        {"name": name, "shape": list(values.shape), "datatype": kind, "data": plain(kind, values)}
        for name, (kind, values) in inputs.items()
    ]
    answer = server.infer(model, tensors)
    assert answer.status_code == 200, answer.text
    return {
        output["name"]: (output["datatype"], output["shape"], from_plain(output))
        for output in answer.json()["outputs"]
    }


def plain(kind: str, values: Any) -> list[Any]:
    if kind == "BYTES":
        return [text.decode() for text in values.ravel()]
    return [None if value != value else value for value in values.ravel().tolist()]


def from_plain(output: dict[str, Any]) -> bytes:
    if output["datatype"] == "BYTES":
        return raw_of(
            "BYTES",
            np.array([text.encode() for text in output["data"]] + [None], dtype=object)[:-1],
        )
    dtype = TYPES[output["datatype"]]
    return np.array(
        [float("nan") if value is None else value for value in output["data"]], dtype=dtype
    ).tobytes()


def by_binary(server: Server, model: str, inputs: Inputs) -> Outputs:
    raws = {name: raw_of(kind, values) for name, (kind, values) in inputs.items()}
    tensors = [
        {
            "name": name,
            "shape": list(values.shape),
            "datatype": kind,
            "parameters": {"binary_data_size": len(raws[name])},
        }
        for name, (kind, values) in inputs.items()
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    headers = {
        "inference-header-content-length": str(len(head)),
        "content-type": "application/octet-stream",
    }
    answer = server.post(
        f"/v2/models/{model}/infer", head + b"".join(raws.values()), headers=headers
    )
    assert answer.status_code == 200, answer.text
    at = int(answer.headers["inference-header-content-length"])
    outputs = {}
    document, rest = json.loads(answer.content[:at]), answer.content[at:]
    for output in document["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = (output["datatype"], output["shape"], rest[:size])
        rest = rest[size:]
    return outputs


_CONTENTS = {
    "FP32": "fp32",
    "FP64": "fp64",
    "UINT64": "uint64",
    "INT64": "int64",
    "UINT16": "uint",
    "BYTES": "bytes",
}


def by_grpc(server: Server, model: str, inputs: Inputs, raw: bool = True) -> Outputs:
    message = pb.ModelInferRequest(model_name=model)
    for name, (kind, values) in inputs.items():
        tensor = message.inputs.add(name=name, datatype=kind, shape=values.shape)
        if raw:
            message.raw_input_contents.append(raw_of(kind, values))
        else:
            field = getattr(tensor.contents, f"{_CONTENTS.get(kind, 'int')}_contents")
            field.extend(values.ravel().tolist())
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=30)
    if answer.raw_output_contents:
        contents = list(answer.raw_output_contents)
    else:
        contents = [typed(output) for output in answer.outputs]
    return {
        output.name: (output.datatype, list(output.shape), content)
        for output, content in zip(answer.outputs, contents, strict=True)
    }


def typed(output: Any) -> bytes:
    values = getattr(output.contents, f"{_CONTENTS.get(output.datatype, 'int')}_contents")
    if output.datatype == "BYTES":
        return raw_of("BYTES", np.array([*values, None], dtype=object)[:-1])
    return np.array(values, dtype=TYPES[output.datatype]).tobytes()


def by_typed_grpc(server: Server, model: str, inputs: Inputs) -> Outputs:
    return by_grpc(server, model, inputs, raw=False)


WAYS: dict[str, Callable[[Server, str, Inputs], Outputs]] = {
    "json": by_json,
    "binary": by_binary,
    "grpc": by_grpc,
    "typed grpc": by_typed_grpc,
}

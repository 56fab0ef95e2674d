"""Cases and wires: a case is a model and its input; a wire encodes it and reads the response."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlserver.types import Datatype, InferenceRequest, InferenceResponse, RequestInput
from mlserver.wire.pb import dataplane_pb2 as pb
from mlserver.wire.proto import messages

from . import wine

COPIES = 50
FLOAT_ROWS, FLOAT_COLUMNS = 1000, 100
TEXTS = 100
INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
JSON = {"content-type": "application/json"}
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True)
class Case:
    """A model and its input.

    Attributes:
        model: Model to load: wine, sum, text, busy or wait.
        connections: Numbers of connections of the closed loop.
        wires: Wires to measure.
        open_loop: Also measure 50 % and 90 % of the capacity in open loop.
        copies: Number of models that get the requests in turn; 0 = one model under its name.
    """

    name: str
    title: str
    model: str
    count: int
    connections: tuple[int, ...]
    wires: tuple[str, ...]
    open_loop: bool = False
    copies: int = 0


@dataclass(frozen=True)
class Exchange:
    """An encoded request; `read` returns the values of its response."""

    paths: tuple[str, ...]
    headers: dict[str, str]
    body: bytes
    read: Callable[[bytes], list[Any]]
    grpc: bool = False


CASES = (
    Case(
        "wine-1",
        "wine, 1 row",
        "wine",
        1,
        (1, 16, 64, 256),
        ("v2", "invocations", "plain", "grpc"),
        open_loop=True,
    ),
    Case("wine-100", "wine, 100 rows", "wine", 100, (1, 16), ("invocations", "plain")),
    Case(
        "wine-10000",
        "wine, 10,000 rows",
        "wine",
        10_000,
        (1, 4),
        ("invocations", "plain", "v2", "arrow"),
    ),
    Case(
        "sum",
        "1,000 x 100 FP32",
        "sum",
        FLOAT_ROWS,
        (1, 16),
        ("v2", "binary", "grpc", "grpc-typed", "plain"),
    ),
    Case("text", "100 texts (BYTES)", "text", TEXTS, (1, 16), ("v2", "grpc", "plain")),
    Case("busy", "5 ms of Python", "busy", 1, (1, 16), ("v2", "plain")),
    Case("wait", "20 ms without the GIL", "wait", 1, (1, 16, 64), ("v2", "plain")),
    Case("fifty", "50 wine models in turn", "wine", 1, (1, 16), ("v2",), copies=COPIES),
)


def expected(case: Case, linear: dict[str, Any]) -> list[Any]:
    """Return the expected values."""
    if case.model == "wine":
        return wine.expected(linear, case.count)
    values = _values(case)
    if case.model == "sum":
        sums: list[Any] = values.sum(axis=1).tolist()
        return sums
    return [text.upper() for text in values] if case.model == "text" else list(values)


def is_correct(values: list[Any], truth: list[Any]) -> bool:
    """Return whether the values are the expected ones, to the precision of FP32."""
    if len(values) != len(truth) or (truth and isinstance(truth[0], str)):
        return values == truth
    return bool(np.allclose(np.array(values, dtype=np.float64), truth, rtol=1e-5, atol=1e-5))


def exchange(case: Case, wire: str) -> Exchange:
    """Encode the case for one wire."""
    names = (
        [f"{case.model}-{number}" for number in range(case.copies)] if case.copies else [case.model]
    )
    infer = tuple(f"/v2/models/{name}/infer" for name in names)
    if wire == "v2":
        return Exchange(infer, JSON, _dump(_v2_document(case)), _read_v2)
    if wire == "invocations":
        frame = {"columns": wine.COLUMNS, "data": wine.rows(case.count)}
        return Exchange(
            ("/invocations",), JSON, _dump({"dataframe_split": frame}), _read_predictions
        )
    if wire == "plain":
        return _plain(case)
    if wire == "arrow":
        return _arrow(case, infer)
    return _binary(case, infer) if wire == "binary" else _grpc(case, wire == "grpc-typed")


def _plain(case: Case) -> Exchange:
    """JSON of servers without V2 or `/invocations`."""
    if case.model == "wine":
        body = {"columns": wine.COLUMNS, "data": wine.rows(case.count)}
        return Exchange(("/predict/frame",), JSON, _dump(body), _read_predictions)
    values = _values(case)
    data = values.tolist() if isinstance(values, np.ndarray) else values
    return Exchange(("/predict",), JSON, _dump({"data": data}), _read_predictions)


def _binary(case: Case, paths: tuple[str, ...]) -> Exchange:
    """V2 with a binary tensor; the response is JSON."""
    document = _v2_document(case)
    block = _values(case).tobytes()
    del document["inputs"][0]["data"]
    document["inputs"][0]["parameters"] = {"binary_data_size": len(block)}
    head = _dump(document)
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    return Exchange(paths, headers, head + block, _read_v2)


def _arrow(case: Case, paths: tuple[str, ...]) -> Exchange:
    """V2 with request and response as Arrow streams of doubles."""
    columns = zip(*wine.rows(case.count), strict=True)
    table = pa.table(
        {name: list(column) for name, column in zip(wine.COLUMNS, columns, strict=True)}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return Exchange(
        paths, {"content-type": ARROW, "accept": ARROW}, sink.getvalue().to_pybytes(), _read_arrow
    )


def _grpc(case: Case, typed: bool = False) -> Exchange:
    """ModelInfer: raw contents for the large tensor unless `typed`; typed contents for others."""
    document = _v2_document(case)
    if case.model == "sum" and not typed:
        document["inputs"][0]["data"] = []
        message = pb.ModelInferRequest(raw_input_contents=[_values(case).tobytes()])
        tensor = message.inputs.add(name="input-1", datatype="FP32")
        tensor.shape.extend([FLOAT_ROWS, FLOAT_COLUMNS])
        message.model_name = case.model
    else:
        inputs = [RequestInput.model_validate(tensor) for tensor in document["inputs"]]
        message = messages.write_request(InferenceRequest(inputs=inputs), case.model)
    return Exchange((INFER_METHOD,), {}, message.SerializeToString(), _read_grpc, grpc=True)


def _v2_document(case: Case) -> dict[str, Any]:
    if case.model == "wine":
        columns = zip(*wine.rows(case.count), strict=True)
        inputs = [
            {"name": name, "shape": [case.count], "datatype": "FP32", "data": list(column)}
            for name, column in zip(wine.COLUMNS, columns, strict=True)
        ]
        return {"inputs": inputs}
    values = _values(case)
    datatype = {"sum": "FP32", "text": "BYTES"}.get(case.model, "FP64")
    if isinstance(values, np.ndarray):
        return {"inputs": [_input(datatype, list(values.shape), values.ravel().tolist())]}
    return {"inputs": [_input(datatype, [len(values)], values)]}


def _input(datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": "input-1", "shape": shape, "datatype": datatype, "data": data}


def _values(case: Case) -> Any:
    """Return the input of the models other than wine."""
    if case.model == "sum":
        draw = np.random.default_rng(wine.SEED)
        return draw.random((FLOAT_ROWS, FLOAT_COLUMNS)).round(4).astype(np.float32)
    if case.model == "text":
        return [f"a line of text for the server, number {number}" for number in range(TEXTS)]
    return [1.5]


def _dump(document: Any) -> bytes:
    return json.dumps(document).encode()


def _read_v2(body: bytes) -> list[Any]:
    values: list[Any] = json.loads(body)["outputs"][0]["data"]
    return values


def _read_predictions(body: bytes) -> list[Any]:
    values: list[Any] = json.loads(body)["predictions"]
    return values


def _read_arrow(body: bytes) -> list[Any]:
    with pa.ipc.open_stream(body) as stream:
        values: list[Any] = stream.read_all().column(0).to_pylist()
    return values


def _read_grpc(body: bytes) -> list[Any]:
    response: InferenceResponse = messages.read_response(pb.ModelInferResponse.FromString(body))
    output = response.outputs[0]
    values = output.data.to_array(Datatype(output.datatype).value, output.shape).ravel().tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in values]

"""The wire table: messages, and their text in each format, which has to read and write them.

A row gives each tensor's elements once per form of data: as JSON, as raw bytes, as the protobuf
field's values. From these, `Case` composes the whole messages by hand, without the code under test.
A form that cannot carry a row is None.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    RequestInput,
    RequestOutput,
    ResponseOutput,
    TensorData,
)
from mlserver.wire.pb import dataplane_pb2 as pb

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class T:
    """One tensor.

    Attributes:
        raw: Its bytes in the binary encoding; for a protobuf message and the binary extension
            alike.
        json: The list in JSON; None = JSON cannot carry it.
        contents: The field of protobuf's typed contents; "" = there is none.
        typed: That field's values; None = as in JSON.
    """

    datatype: str
    shape: list[int]
    raw: bytes
    json: list[Any] | None
    contents: str = ""
    typed: list[Any] | None = None
    name: str = "x"
    parameters: dict[str, Any] = field(default_factory=dict)

    def data(self) -> TensorData:
        return TensorData.from_raw(self.raw, self.datatype, self.shape)


@dataclass(frozen=True)
class Case:
    """A request and a response of the same tensors."""

    tensors: list[T]
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    outputs: list[tuple[str, dict[str, Any]]] | None = None
    version: str = ""

    # -- what it means --

    def request(self) -> InferenceRequest:
        inputs = [
            RequestInput(
                name=t.name,
                shape=t.shape,
                datatype=t.datatype,
                data=t.data(),
                parameters=t.parameters or None,
            )
            for t in self.tensors
        ]
        expected = [
            RequestOutput(name=name, parameters=values or None)
            for name, values in self.outputs or []
        ]
        return InferenceRequest(
            id=self.id or None,
            inputs=inputs,
            outputs=expected or None,
            parameters=self.parameters or None,
        )

    def response(self) -> InferenceResponse:
        outputs = [
            ResponseOutput(
                name=t.name,
                shape=t.shape,
                datatype=t.datatype,
                data=t.data(),
                parameters=t.parameters or None,
            )
            for t in self.tensors
        ]
        return InferenceResponse(
            model_name="m",
            model_version=self.version or None,
            id=self.id or None,
            outputs=outputs,
            parameters=Parameters(**self.parameters) if self.parameters else None,
        )

    # -- how JSON and the binary extension write it --

    @property
    def in_json(self) -> bool:
        return all(t.json is not None for t in self.tensors)

    def _head(
        self, tensors: list[dict[str, Any]], of_request: bool, more: dict[str, Any]
    ) -> dict[str, Any]:
        head: dict[str, Any] = {} if of_request else {"model_name": "m"}
        if self.version and not of_request:
            head["model_version"] = self.version
        if self.id:
            head["id"] = self.id
        head["parameters"] = self.parameters | more
        head["inputs" if of_request else "outputs"] = tensors
        if self.outputs is not None and of_request:
            head["outputs"] = [
                {"name": name} | ({"parameters": values} if values else {})
                for name, values in self.outputs
            ]
        return head

    def json_document(self, of_request: bool) -> dict[str, Any]:
        tensors = [_head_of(t, {}) | {"data": t.json} for t in self.tensors]
        return self._head(tensors, of_request, {})

    def binary_head(self, of_request: bool) -> dict[str, Any]:
        tensors = [_head_of(t, {"binary_data_size": len(t.raw)}) for t in self.tensors]
        return self._head(tensors, of_request, {"binary_data_output": True} if of_request else {})

    def blob(self) -> bytes:
        return b"".join(t.raw for t in self.tensors)

    def binary_body(self, of_request: bool) -> tuple[bytes, int]:
        head = json.dumps(self.binary_head(of_request)).encode()
        return head + self.blob(), len(head)

    # -- how protobuf writes it --

    @property
    def in_typed_contents(self) -> bool:
        return all(t.contents for t in self.tensors)

    def _tensors(self, raw: bool) -> list[dict[str, Any]]:
        documents = []
        for t in self.tensors:
            tensor = {
                "name": t.name,
                "datatype": t.datatype,
                "shape": t.shape,
                "parameters": _proto(t.parameters),
            }
            if not raw and t.raw:
                tensor["contents"] = {t.contents: t.json if t.typed is None else t.typed}
            documents.append(tensor)
        return documents

    def proto_request(self, raw: bool) -> pb.ModelInferRequest:
        return pb.ModelInferRequest(
            model_name="m",
            model_version=self.version,
            id=self.id,
            parameters=_proto(self.parameters),
            inputs=self._tensors(raw),
            outputs=[
                {"name": name, "parameters": _proto(values)} for name, values in self.outputs or []
            ],
            raw_input_contents=[t.raw for t in self.tensors] if raw else [],
        )

    def proto_response(self, raw: bool) -> pb.ModelInferResponse:
        return pb.ModelInferResponse(
            model_name="m",
            model_version=self.version,
            id=self.id,
            parameters=_proto(self.parameters),
            outputs=self._tensors(raw),
            raw_output_contents=[t.raw for t in self.tensors] if raw else [],
        )


def _head_of(t: T, more: dict[str, Any]) -> dict[str, Any]:
    parameters = t.parameters | more
    head: dict[str, Any] = {"name": t.name, "shape": t.shape, "datatype": t.datatype}
    return head | ({"parameters": parameters} if parameters else {})


def _proto(parameters: dict[str, Any]) -> Any:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    return {
        key: pb.InferParameter(**{kinds[type(value)]: value}) for key, value in parameters.items()
    }


def numbers(datatype: str, code: str, values: list[Any], proto_field: str, **more: Any) -> Case:
    """One tensor of numbers that JSON writes as they are."""
    raw = struct.pack(f"<{len(values)}{code}", *values)
    return Case([T(datatype, more.pop("shape", [len(values)]), raw, values, proto_field, **more)])


def texts(*elements: str | bytes, shape: list[int] | None = None) -> Case:
    data = [element if isinstance(element, bytes) else element.encode() for element in elements]
    raw = b"".join(struct.pack("<I", len(element)) + element for element in data)
    as_text = None if any(isinstance(element, bytes) for element in elements) else list(elements)
    return Case([T("BYTES", shape or [len(data)], raw, as_text, "bytes_contents", data)])


TWO = T("FP32", [2, 1], struct.pack("<2f", 0.5, -2.0), [0.5, -2.0], "fp32_contents")
CASES: dict[str, Case] = {
    # every datatype, to its limits
    "BOOL": numbers("BOOL", "?", [True, False, True], "bool_contents"),
    "UINT8": numbers("UINT8", "B", [0, 255], "uint_contents"),
    "UINT16": numbers("UINT16", "H", [0, 65535], "uint_contents"),
    "UINT32": numbers("UINT32", "I", [0, 2**32 - 1], "uint_contents"),
    "UINT64": numbers("UINT64", "Q", [0, 2**53 + 1, 2**64 - 1], "uint64_contents"),
    "INT8": numbers("INT8", "b", [-128, 127], "int_contents"),
    "INT16": numbers("INT16", "h", [-(2**15), 2**15 - 1], "int_contents"),
    "INT32": numbers("INT32", "i", [-(2**31), 2**31 - 1], "int_contents"),
    "INT64": numbers("INT64", "q", [-(2**63), 2**53 + 1, 2**63 - 1], "int64_contents"),
    "FP16": numbers("FP16", "e", [0.5, -0.0, 65504.0, 2.0**-24], ""),
    "FP32": numbers("FP32", "f", [0.5, -0.0, 2.0**-149, 0.10000000149011612], "fp32_contents"),
    "FP64": numbers("FP64", "d", [0.1, -0.0, 5e-324, 1.7976931348623157e308], "fp64_contents"),
    "BF16": Case([T("BF16", [2], b"\x80\x3f\x00\xc0", [1.0, -2.0])]),
    "BYTES": texts("a", "", "nul \0 inside", "snow ☃ 𝄞"),
    "BYTES that are no text": texts(b"\xff\xfe", b"\x00"),
    # numbers that JSON writes as null, or not at all
    "NaN in FP32": Case(
        [T("FP32", [2], struct.pack("<2f", NAN, 1), [None, 1.0], "fp32_contents", [NAN, 1.0])]
    ),
    "NaN in FP16": Case([T("FP16", [2], struct.pack("<2e", NAN, 1), [None, 1.0])]),
    "infinities": Case(
        [T("FP64", [2], struct.pack("<2d", INF, -INF), None, "fp64_contents", [INF, -INF])]
    ),
    # shapes
    "empty": numbers("FP32", "f", [], "fp32_contents", shape=[0, 3]),
    "empty BYTES": texts(shape=[2, 0]),
    "scalar": numbers("INT64", "q", [7], "int64_contents", shape=[]),
    "one": numbers("FP64", "d", [5.5], "fp64_contents", shape=[1, 1]),
    "rank 4": numbers("INT32", "i", list(range(24)), "int_contents", shape=[1, 2, 3, 4]),
    "many": numbers(
        "FP32", "f", [value / 4 for value in range(1000)], "fp32_contents", shape=[10, 100]
    ),
    "many small integers": numbers(
        "INT8", "b", [value % 100 for value in range(1000)], "int_contents"
    ),
    # everything around the tensors
    "no tensors": Case([]),
    "several tensors": Case(
        [TWO, T("BYTES", [1], b"\1\0\0\0a", ["a"], "bytes_contents", [b"a"], name="y")]
    ),
    "names": Case([T("INT8", [1], b"\7", [7], "int_contents", name='é ☃ "quoted"')]),
    "id and version": Case([TWO], id="request 1", version="v2"),
    "parameters": Case(
        [
            T(
                "FP32",
                [1],
                struct.pack("<f", 1),
                [1.0],
                "fp32_contents",
                parameters={"content_type": "np", "flag": True},
            )
        ],
        parameters={
            "content_type": "pd",
            "yes": True,
            "no": False,
            "int": -(2**63),
            "float": 0.25,
            "text": "é",
            "empty": "",
        },
    ),
    "requested outputs": Case([TWO], outputs=[("y", {}), ("z", {"content_type": "str", "top": 3})]),
}

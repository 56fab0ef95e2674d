"""Messages of the data plane: inference requests and responses, and metadata.

The fields and their names are the Open Inference Protocol's. Formats (JSON, protobuf, binary) live
in `wire`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from pydantic import ConfigDict
from pydantic_core import CoreSchema, core_schema

from .base import BaseModel
from .tensor_data import TensorData as TensorData

if TYPE_CHECKING:
    from .row_block import OutputSlice, RowBlock


class Datatype(Enum):
    """The protocol's datatypes. BF16 can only be sent as raw bytes."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    BYTES = "BYTES"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        # Messages store the value. A literal schema is validated without a Python call per tensor.
        names = [member.value for member in cls]
        member = core_schema.is_instance_schema(cls)
        value = core_schema.no_info_after_validator_function(lambda item: item.value, member)
        shown = ", ".join(map(repr, names[:-1])) + f" or {names[-1]!r}"
        return core_schema.union_schema(
            [core_schema.literal_schema(names), value],
            mode="left_to_right",
            custom_error_type="literal_error",
            custom_error_context={"expected": shown},
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"title": "Datatype", "type": "string", "enum": [member.value for member in cls]}


class Parameters(BaseModel):
    """Parameters of a request, tensor or model: `content_type` names the codec.

    Other keys are free.
    """

    model_config = ConfigDict(extra="allow")

    content_type: str | None = None
    headers: dict[str, Any] | None = None

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """Return parameters without validation, for values that the server itself has made."""
        parameters = cls.build(
            {"content_type": values.get("content_type"), "headers": values.get("headers")}
        )
        free = values.keys() - FIXED_PARAMETERS
        extra = {key: values[key] for key in values if key in free} if free else {}
        object.__setattr__(parameters, "__pydantic_extra__", extra)
        if free:
            parameters.__pydantic_fields_set__.update(free)
        return parameters

    def shallow_copy(self) -> Self:
        """Return a copy with dictionaries of its own and the same values."""
        copy = self.build(self.__dict__.copy())
        object.__setattr__(copy, "__pydantic_extra__", dict(self.__pydantic_extra__ or {}))
        return copy

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters that are set as one dictionary."""
        values: dict[str, Any] = {}
        fields = self.__dict__
        if fields.get("content_type") is not None:
            values["content_type"] = fields["content_type"]
        if fields.get("headers") is not None:
            values["headers"] = fields["headers"]
        return values | self.__pydantic_extra__ if self.__pydantic_extra__ else values


FIXED_PARAMETERS = frozenset(("content_type", "headers"))


class RequestInput(BaseModel):
    """An input tensor: `data` holds the elements in row-major order, flat or nested to `shape`."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: Parameters | None = None
    data: TensorData


class ResponseOutput(BaseModel):
    """An output tensor."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: Parameters | None = None
    data: TensorData


class RequestOutput(BaseModel):
    """A requested output."""

    name: str
    parameters: Parameters | None = None


class InferenceRequest(BaseModel):
    """An inference request, from the front end to the model."""

    id: str | None = None
    parameters: Parameters | None = None
    inputs: list[RequestInput]
    outputs: list[RequestOutput] | None = None

    @property
    def rows(self) -> RowBlock | None:
        """The inputs as a block of rows; None if the request holds tensors (`RowBlockRequest`)."""
        values = self.__dict__
        return None if "inputs" in values else values.get("rows")


class InferenceResponse(BaseModel):
    """An inference response, from the model to the front end."""

    model_name: str
    model_version: str | None = None
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[ResponseOutput]

    @property
    def output_slice(self) -> OutputSlice | None:
        """The outputs as rows of a batch.

        None if the response holds tensors (`OutputSliceResponse`).
        """
        values = self.__dict__
        return None if "outputs" in values else values.get("output_slice")


class InferenceErrorResponse(BaseModel):
    error: str | None = None


class MetadataTensor(BaseModel):
    """An input or output in a model's metadata; -1 in `shape` is a variable dimension."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: Parameters | None = None


class MetadataModelResponse(BaseModel):
    name: str
    versions: list[str] | None = None
    platform: str
    inputs: list[MetadataTensor] | None = None
    outputs: list[MetadataTensor] | None = None
    parameters: Parameters | None = None


class MetadataModelErrorResponse(BaseModel):
    error: str


class MetadataServerResponse(BaseModel):
    name: str
    version: str
    extensions: list[str]


class MetadataServerErrorResponse(BaseModel):
    error: str

"""`TensorData`: a tensor as a field of a message.

It has the methods of pydantic's `RootModel`, which it was in MLServer 1.x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pydantic_core
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from ..tensor import Tensor

_SCHEMA: dict[str, Any] = {"title": "TensorData", "type": "array", "items": {}}


class TensorData(Tensor):
    """The `data` of a tensor as a field of a message; see `mlserver.tensor.Tensor`."""

    model_fields: ClassVar[Mapping[str, FieldInfo]] = {
        "root": FieldInfo(annotation=Any, title="TensorData")
    }
    model_extra: ClassVar[None] = None
    model_fields_set: ClassVar[frozenset[str]] = frozenset({"root"})

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls,
            serialization=core_schema.plain_serializer_function_ser_schema(_to_plain),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return dict(_SCHEMA)

    # -- methods of pydantic's `RootModel` --

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        return cls(obj)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **kwargs: Any) -> Self:
        return cls(pydantic_core.from_json(json_data))

    @classmethod
    def model_construct(cls, root: Any, **kwargs: Any) -> Self:
        return cls(root)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(_SCHEMA)

    @classmethod
    def parse_raw(cls, b: str | bytes, **kwargs: Any) -> Self:
        return cls.model_validate_json(b)

    @classmethod
    def schema_json(cls, **kwargs: Any) -> str:
        return pydantic_core.to_json(_SCHEMA).decode()

    @classmethod
    def parse_obj(cls, obj: Any) -> Self:
        return cls(obj)

    @classmethod
    def validate(cls, value: Any) -> Self:
        return cls(value)

    @classmethod
    def construct(cls, root: Any, **kwargs: Any) -> Self:
        return cls(root)

    @classmethod
    def schema(cls, **kwargs: Any) -> dict[str, Any]:
        return dict(_SCHEMA)

    def model_dump(self, *, mode: str = "python", **kwargs: Any) -> Any:
        return pydantic_core.to_jsonable_python(self.root) if mode == "json" else self.root

    def model_dump_json(self, *, indent: int | None = None, **kwargs: Any) -> str:
        return pydantic_core.to_json(self.root, indent=indent, inf_nan_mode="null").decode()

    def dict(self, **kwargs: Any) -> Any:
        return self.model_dump()

    def json(self, **kwargs: Any) -> str:
        return self.model_dump_json(indent=kwargs.get("indent"))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        import copy

        if update and "root" in update:
            return type(self)(update["root"])
        return copy.deepcopy(self) if deep else type(self)(self)

    def copy(self, *, deep: bool = False, **kwargs: Any) -> Self:
        return self.model_copy(deep=deep)


def _to_plain(data: TensorData) -> Any:
    return data.root

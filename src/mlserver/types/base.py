"""Base class of the protocol's messages: pydantic models whose dumps omit unset and None fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import pydantic


class BaseModel(pydantic.BaseModel):
    """Base of all messages: enum members are stored as values; dumps omit unset and None fields."""

    model_config = pydantic.ConfigDict(protected_namespaces=(), use_enum_values=True)

    def model_dump(
        self, exclude_unset: bool = True, exclude_none: bool = True, **kwargs: Any
    ) -> dict[str, Any]:
        return super().model_dump(exclude_unset=exclude_unset, exclude_none=exclude_none, **kwargs)

    def model_dump_json(
        self, exclude_unset: bool = True, exclude_none: bool = True, **kwargs: Any
    ) -> str:
        return super().model_dump_json(
            exclude_unset=exclude_unset, exclude_none=exclude_none, **kwargs
        )

    def put(self, **values: Any) -> None:
        """Assign fields without validation.

        Faster than attributes, for every request of the pipeline.
        """
        self.__dict__.update(values)
        self.__pydantic_fields_set__.update(values)

    @classmethod
    def build(cls, values: dict[str, Any], fields: Iterable[str] | None = None) -> Self:
        """Return an instance without validation, for values that the server itself has made.

        Args:
            values: Every field of the class. It becomes the instance's dictionary.
            fields: The fields that count as set; None = all keys of `values`.
        """
        instance = cls.__new__(cls)
        set_slot = object.__setattr__
        set_slot(instance, "__dict__", values)
        set_slot(instance, "__pydantic_fields_set__", set(values if fields is None else fields))
        set_slot(instance, "__pydantic_extra__", None)
        set_slot(instance, "__pydantic_private__", None)
        return instance

"""The base of the protocol's messages: pydantic models that dump without what was never set."""

from __future__ import annotations

from typing import Any, Self

import pydantic


class BaseModel(pydantic.BaseModel):
    """Base of all messages. Enum members are kept as their plain values; dumps leave out unset and None fields."""

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
        """Assign fields without pydantic's bookkeeping: for the road, which does it for every request."""
        self.__dict__.update(values)
        self.__pydantic_fields_set__.update(values)

    @classmethod
    def build(cls, values: dict[str, Any]) -> Self:
        """Make an instance from values that are known to be right, without validating them.

        `values` names every field of the class and becomes the instance's own dictionary; all fields count as set, and
        dumps leave out those that are None. For what the road itself makes, never for a caller's data.
        """
        made = cls.__new__(cls)
        put = object.__setattr__
        put(made, "__dict__", values)
        put(made, "__pydantic_fields_set__", set(values))
        put(made, "__pydantic_extra__", None)
        put(made, "__pydantic_private__", None)
        return made

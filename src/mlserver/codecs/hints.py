"""Comparison of type hints.

`list[str]` equals `List[str]`, `X | None` equals `Optional[X]`, `NDArray[float64]` fits `ndarray`.
"""

from __future__ import annotations

import functools
import operator
import types
from typing import Annotated, Any, Union, get_args, get_origin


def expand_alias(hint: Any) -> Any:
    """Return the value of a type alias; other hints unchanged.

    Aliases are `type Rows = list[int]` and NumPy's `NDArray` from 2.5 on.
    """
    while not isinstance(hint, type) and hasattr(get_origin(hint) or hint, "__value__"):
        alias = get_origin(hint) or hint
        arguments = dict(zip(alias.__type_params__, get_args(hint), strict=False))
        hint = alias.__value__
        if hint in alias.__type_params__:
            hint = arguments.get(hint, Any)
        elif parameters := getattr(hint, "__parameters__", ()):
            hint = hint[tuple(arguments.get(parameter, Any) for parameter in parameters)]
    return hint


def canonical(hint: Any) -> Any:
    """Return a hashable form that is equal for all spellings of a hint."""
    hint = expand_alias(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return canonical(args[0])
    if origin in (Union, types.UnionType):
        return ("union", frozenset(canonical(arg) for arg in args))
    if origin is None:
        return hint
    return (origin, tuple(canonical(arg) for arg in args))


def unwrap_optional(hint: Any) -> tuple[Any, bool]:
    """Return the hint without `None`, and whether it contained `None`."""
    hint = expand_alias(hint)
    if get_origin(hint) is Annotated:
        return unwrap_optional(get_args(hint)[0])
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    rest = [arg for arg in get_args(hint) if arg is not types.NoneType]
    if len(rest) == len(get_args(hint)):
        return hint, False
    return functools.reduce(operator.or_, rest), True


def fits(hint: Any, codec_hint: Any) -> bool:
    """Return whether a hint equals a codec's hint, or is a parametrised form of it."""
    form = canonical(hint)
    if form == canonical(codec_hint):
        return True
    return isinstance(form, tuple) and form[0] is codec_hint

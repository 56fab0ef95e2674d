"""Comparing type hints: `list[str]` is `List[str]`, `X | None` is `Optional[X]`, `NDArray[float64]` is an ndarray."""

from __future__ import annotations

import functools
import operator
import types
from typing import Annotated, Any, Union, get_args, get_origin


def expand_alias(hint: Any) -> Any:
    """What a type alias stands for (`type Rows = list[int]`, NumPy's `NDArray` from 2.5 on); other hints as they are."""
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
    """A hashable form in which two spellings of one hint are equal."""
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
    """The hint without `None`, and whether `None` was allowed."""
    hint = expand_alias(hint)
    if get_origin(hint) is Annotated:
        return unwrap_optional(get_args(hint)[0])
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    rest = [arg for arg in get_args(hint) if arg is not types.NoneType]
    if len(rest) == len(get_args(hint)):
        return hint, False
    return functools.reduce(operator.or_, rest), True


def fits(hint: Any, offered: Any) -> bool:
    """Whether a codec that offers one type serves a hint: the same type, or the bare class of a parametrised hint."""
    wanted = canonical(hint)
    return bool(wanted == canonical(offered)) or (
        isinstance(wanted, tuple) and wanted[0] is offered
    )

"""Descriptions of settings, read from the docstrings below the fields.

pydantic's `use_attribute_docstrings` would parse the source in every process at import: 45 ms,
measured by importing `mlserver.settings`. This module parses it only when a reference is generated.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

from pydantic import BaseModel


def read_descriptions(cls: type[BaseModel]) -> dict[str, str]:
    """Return the description of each documented field of a class: name -> text in one line."""
    source = textwrap.dedent(inspect.getsource(cls))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    descriptions: dict[str, str] = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        text = _get_string(following)
        if text is None or not isinstance(statement, ast.AnnAssign):
            continue
        if isinstance(statement.target, ast.Name):
            descriptions[statement.target.id] = " ".join(text.split())
    return descriptions


def _get_string(statement: ast.stmt) -> str | None:
    """Return the text of a statement that is a string literal."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return statement.value.value if isinstance(statement.value.value, str) else None
    return None

"""PromQL expressions of dashboards and alerts: their metrics, label matchers and groupings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser

# Labels that Prometheus adds to each series.
TARGET_LABELS = frozenset(("job", "instance"))


@dataclass(frozen=True)
class Selector:
    """One vector selector.

    Attributes:
        name: Name of the samples.
        matchers: Label, operator and value of each matcher.
        groupings: Labels that the expressions around it group by.
    """

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    groupings: frozenset[str]

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether a sample with these labels is selected."""
        for label, operator, value in self.matchers:
            if label in TARGET_LABELS:
                continue
            text = labels.get(label, "")
            is_equal = text == value if "~" not in operator else re.fullmatch(value, text)
            if bool(is_equal) is operator.startswith("!"):
                return False
        return True


def read_selectors(expression: str) -> list[Selector]:
    """Return all selectors. Raises ValueError if the expression is not PromQL."""
    return list(_walk(promql_parser.parse(expression), frozenset()))


_OPERATORS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}


def _walk(node: Any, groupings: frozenset[str]) -> Iterator[Selector]:
    kind = type(node).__name__
    if kind == "VectorSelector":
        matchers = []
        for matcher in node.matchers.matchers:
            operator = _OPERATORS[str(matcher.op).rpartition(".")[2]]
            matchers.append((matcher.name, operator, matcher.value))
        yield Selector(node.name, tuple(matchers), groupings)
    elif kind == "MatrixSelector":
        yield from _walk(node.vector_selector, groupings)
    elif kind == "AggregateExpr":
        labels = node.modifier.labels if node.modifier is not None else ()
        yield from _walk(node.expr, groupings | frozenset(labels))
    elif kind == "BinaryExpr":
        yield from _walk(node.lhs, groupings)
        yield from _walk(node.rhs, groupings)
    elif kind == "Call":
        for argument in node.args:
            yield from _walk(argument, groupings)
    elif kind in ("ParenExpr", "UnaryExpr", "SubqueryExpr"):
        yield from _walk(node.expr, groupings)
    elif kind not in ("NumberLiteral", "StringLiteral"):
        raise ValueError(f"unknown part of an expression: {kind}")

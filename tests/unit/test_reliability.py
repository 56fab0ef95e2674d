"""The page that says which test shows what.

Every row is there, and so is every test that it names.
"""

from __future__ import annotations

import ast

import pytest

from support.reliability_index import TESTS, p0_tests, rows

LAST = 75


def test_rows_are_numbered_without_gaps() -> None:
    assert list(rows()) == list(range(1, LAST + 1))


@pytest.mark.parametrize("number", range(1, LAST + 1))
def test_every_test_of_the_page_exists(number: int) -> None:
    _, tests = rows()[number]
    assert tests or number == 63  # the soak is not a pytest test
    for file, name in tests:
        tree = ast.parse((TESTS / file).read_text())
        assert name in {
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }


@pytest.mark.p0
def test_p0_tests_are_marked(request: pytest.FixtureRequest) -> None:
    """`conftest.py` marks the tests of the page's P0 rows."""
    for item in request.session.items:
        test = (
            str(item.path.relative_to(TESTS)),
            getattr(item, "originalname", item.name),
        )
        assert test not in p0_tests() or item.get_closest_marker("p0")

"""The page that says which test shows what: every row is there, and so is every test that it names."""

from __future__ import annotations

import ast

import pytest

from support.reliability_index import TESTS, p0_tests, rows

LAST = 66


def test_no_row_is_missing() -> None:
    assert list(rows()) == list(range(1, LAST + 1))


@pytest.mark.parametrize("number", range(1, LAST + 1))
def test_every_test_of_the_page_exists(number: int) -> None:
    _, named = rows()[number]
    assert named or number == 63  # the soak is no test
    for file, name in named:
        tree = ast.parse((TESTS / file).read_text())
        assert name in {
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }


@pytest.mark.p0
def test_p0_tests_are_marked(request: pytest.FixtureRequest) -> None:
    """`-m p0` finds what the page says, by `conftest.py`."""
    for item in request.session.items:
        named = (
            str(item.path.relative_to(TESTS)),
            getattr(item, "originalname", item.name),
        ) in p0_tests()
        assert not named or item.get_closest_marker("p0")

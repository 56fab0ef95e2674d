"""Predictions are compared bit for bit, as whole results and row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlserver_mlflow.fastpath.result_equality import has_row, is_same_array, is_same_result

ARRAY = np.array([1.5, 2.5])
NAN = np.array([np.nan])
OTHER_NAN = np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf8\x7f", np.float64)
FRAME = pd.DataFrame({"a": [1.5, 2.5], "b": ["x", "yz"]})
TEXTS = np.array(["x", "yz"])
OBJECTS = np.array(["x", 1, None], dtype=object)

EQUAL: dict[str, tuple[Any, Any]] = {
    "arrays": (ARRAY, ARRAY.copy()),
    "NaN of the same bits": (NAN, NAN.copy()),
    "texts of other widths": (TEXTS, TEXTS.astype("U9")),
    "objects": (OBJECTS, OBJECTS.copy()),
    "frames": (FRAME, FRAME.copy()),
    "series": (FRAME["a"], FRAME["a"].copy()),
    "dictionaries": ({"a": ARRAY, "b": "x"}, {"a": ARRAY.copy(), "b": "x"}),
    "lists": ([1.5, "x"], [1.5, "x"]),
}
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "a value": (ARRAY, ARRAY + 1),
    "the last bit": (ARRAY, np.nextafter(ARRAY, 9)),
    "the sign of zero": (np.array([0.0]), np.array([-0.0])),
    "the bits of NaN": (NAN, OTHER_NAN),
    "a dtype of the same bits": (np.array([1]), np.array([1]).view("u8")),
    "a dtype of the same values": (ARRAY, ARRAY.astype("f4")),
    "a shape": (ARRAY, ARRAY.reshape(2, 1)),
    "a text": (TEXTS, np.array(["x", "yx"])),
    "texts and bytes": (TEXTS, TEXTS.astype("S2")),
    "an object": (OBJECTS, np.array(["x", 2, None], dtype=object)),
    "the shape of objects": (OBJECTS, OBJECTS.reshape(3, 1)),
    "keys": ({"a": ARRAY}, {"b": ARRAY}),
    "more keys": ({"a": ARRAY}, {"a": ARRAY, "b": ARRAY}),
    "a value of a dictionary": ({"a": ARRAY, "b": ARRAY}, {"a": ARRAY, "b": ARRAY + 1}),
    "a frame": (FRAME, FRAME.assign(a=1.5)),
    "a list": ([1.5, "x"], [1.5, "y"]),
    "types": (ARRAY, ARRAY.tolist()),
    "frame and series": (FRAME[["a"]], FRAME["a"]),
}


@pytest.mark.parametrize("case", EQUAL)
def test_equal_results(case: str) -> None:
    left, right = EQUAL[case]
    assert is_same_result(left, right)
    assert is_same_result(right, left)


@pytest.mark.parametrize("case", DIFFERENT)
def test_results_that_differ_in(case: str) -> None:
    left, right = DIFFERENT[case]
    assert not is_same_result(left, right)
    assert not is_same_result(right, left)


# Joint result of two rows, and the second row alone.
ROWS: dict[str, tuple[Any, Any]] = {
    "array": (ARRAY, ARRAY[1:]),
    "matrix": (np.array([[1.5, 1], [2.5, 2]]), np.array([[2.5, 2]])),
    "texts": (TEXTS, TEXTS[1:].astype("U9")),
    "series": (FRAME["a"], pd.Series([2.5])),
    "frame": (FRAME, FRAME[1:].reset_index(drop=True)),
    "dictionary": ({"a": ARRAY, "b": TEXTS}, {"a": ARRAY[1:], "b": TEXTS[1:]}),
}
OTHER_ROWS: dict[str, tuple[Any, Any]] = {
    "another value": (ARRAY, ARRAY[:1]),
    "another dtype": (ARRAY, ARRAY[1:].astype("f4")),
    "two rows alone": (ARRAY, ARRAY),
    "one row of two": (ARRAY[1:], ARRAY[1:]),
    "three rows of two": (np.array([1.5, 2.5, 3.5]), ARRAY[1:]),
    "a number": (np.array(2.5), np.array(2.5)),
    "a number of several rows": (ARRAY, np.array(2.5)),
    "another key": ({"a": ARRAY}, {"b": ARRAY[1:]}),
    "one of two keys": ({"a": ARRAY, "b": ARRAY}, {"a": ARRAY[1:], "b": ARRAY[:1]}),
    "another column": (FRAME, FRAME[1:].rename(columns={"a": "c"})),
    "another order of columns": (FRAME, FRAME[1:][["b", "a"]]),
    "one of two columns": (FRAME, FRAME[1:].assign(b="x")),
    "two columns of one name": (
        pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]),
        pd.DataFrame([[3, 4]], columns=["a", "a"]),
    ),
    "a list": ([1.5, 2.5], [2.5]),
    "types": (ARRAY, [2.5]),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_joint_result_has_the_row_of(case: str) -> None:
    joint, single = ROWS[case]
    assert has_row(joint, single, 1, 2)
    assert not has_row(joint, single, 0, 2)


@pytest.mark.parametrize("case", OTHER_ROWS)
def test_a_joint_result_does_not_have(case: str) -> None:
    joint, single = OTHER_ROWS[case]
    assert has_row(joint, single, 1, 2) is False


def test_objects_are_compared_with_their_shape() -> None:
    empty = np.empty((0, 2), dtype=object)
    assert not is_same_array(empty, np.empty((0, 3), dtype=object))


@pytest.mark.parametrize("joint", [ARRAY, TEXTS, FRAME["a"], FRAME])
def test_the_first_row_is_compared_without_the_next_one(joint: Any) -> None:
    assert has_row(joint, joint[:1], 0, 2)

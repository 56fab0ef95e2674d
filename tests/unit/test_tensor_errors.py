"""Tensors that are refused, and BYTES tensors."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.tensor import (
    MAX_ELEMENTS,
    MAX_RANK,
    Tensor,
    TensorError,
    element_count,
    flat_elements,
    join_bytes_block,
    split_bytes_block,
)


def refusal(root: Any, datatype: str, shape: list[int]) -> str:
    with pytest.raises(TensorError) as error:
        Tensor(root).normalize(datatype, shape)
    assert len(str(error.value)) < 500
    return str(error.value)


# -- what is refused --


@pytest.mark.parametrize(
    "root, datatype, shape, words",
    [
        ([1, 2, 3], "FP32", [2], ["2 elements for shape [2]", "3"]),
        ([1], "FP32", [2], ["2 elements", "1"]),
        ([[1, 2], [3]], "FP32", [2, 2], ["equal length", "[[1, 2], [3]]"]),
        ([[1, 2], [3]], "FP32", [3], ["equal length"]),
        ([1, [2]], "INT32", [2], ["equal length"]),
        ([["a", "b", "c"], ["d"]], "BYTES", [2, 2], ["equal length"]),
        ([["a", "b"], "cd"], "BYTES", [2, 2], ["4 elements"]),
        ([["a"]], "BYTES", [2], ["2 elements"]),
        (["a"], "BYTES", [2, 1], ["2 elements"]),
        ({"a": 1}, "BYTES", [1], ["list of BYTES elements", "'a'"]),
        (5, "BYTES", [1], ["list of BYTES elements", "5"]),
        (None, "BYTES", [1], ["list of BYTES elements"]),
        ({"a": 1}, "FP32", [1], ["FP32 numbers"]),
        (["abc"], "FP32", [1], ["FP32 numbers", "abc"]),
        (["abc"], "INT32", [1], ["INT32 numbers", "abc"]),
        ([None], "INT32", [1], ["INT32 numbers", "None"]),
        ([None], "BOOL", [1], ["booleans"]),
        ([2], "BOOL", [1], ["booleans", "2"]),
        (["true"], "BOOL", [1], ["booleans"]),
        ([0.5], "BOOL", [1], ["booleans"]),
        ([math.nan], "INT32", [1], ["INT32 numbers"]),
        ([1], "FP99", [1], ["a datatype of BOOL, ", "'FP99'"]),
        ([], "", [0], ["a datatype of "]),
        (["x" * 1_000_000], "FP32", [1], ["FP32 numbers"]),
        ([[1] * 100_000, [1]], "FP32", [2], ["equal length"]),
    ],
)
def test_refused(root: Any, datatype: str, shape: list[int], words: list[str]) -> None:
    text = refusal(root, datatype, shape)

    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    "shape, words",
    [
        ([-1], "non-negative"),
        ([-1, -1], "non-negative"),
        ([0, -1], "non-negative"),
        ([2**62], "held in memory"),
        ([2**32, 2**32], "held in memory"),
        ([0, 2**62, 4], "held in memory"),
        ([0, 2**70], "held in memory"),
        ([MAX_ELEMENTS + 1], "held in memory"),
        ([1] * (MAX_RANK + 1), "at most 32 dimensions"),
        ([2**400] * 32, "held in memory"),
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "BF16"])
def test_hostile_shapes(shape: list[int], words: str, datatype: str) -> None:
    assert words in refusal([], datatype, shape)
    for make in (
        lambda: Tensor([]).to_array(datatype, shape),
        lambda: Tensor.from_raw(b"", datatype, shape),
    ):
        with pytest.raises(TensorError, match=words):
            make()


def test_a_shape_at_the_limit() -> None:
    assert element_count([2] * 32) == 2**32
    assert element_count([MAX_ELEMENTS]) == MAX_ELEMENTS
    assert element_count([]) == 1


def test_deep_nesting_is_refused_in_words() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]

    assert "FP32 numbers" in refusal(deep, "FP32", [1])
    assert "BOOL numbers" in refusal(deep, "BOOL", [1])


def test_raw_of_another_size() -> None:
    with pytest.raises(TensorError, match=r"expected 8 bytes for FP32 \[2\], received 7 bytes"):
        Tensor.from_raw(b"1234567", "FP32", [2])
    with pytest.raises(TensorError, match="a datatype of"):
        Tensor.from_raw(b"", "FP99", [0])


@pytest.mark.parametrize("raw", [b"\2", b"\0\1\xff"])
def test_booleans_are_zero_or_one(raw: bytes) -> None:
    with pytest.raises(TensorError, match="a byte of 0 or 1"):
        Tensor.from_raw(raw, "BOOL", [len(raw)])


# -- BYTES --


ELEMENTS = [b"", b"a", b"\x00\xff", b"x" * 300]


ELEMENTS = [b"", b"a", b"\x00\xff", b"x" * 300]


def test_other_elements_become_json() -> None:
    block = join_bytes_block(["é", 1, 1.5, True, [1, "é", None], {"k": 2}])
    assert split_bytes_block(block) == [
        "é".encode(),
        b"1",
        b"1.5",
        b"true",
        '[1, "é", null]'.encode(),
        b'{"k": 2}',
    ]


@pytest.mark.parametrize(
    "tensor", [Tensor(["a", None]), Tensor.from_array(np.array(["a", None], dtype=object))]
)
def test_null_has_no_bytes(tensor: Tensor) -> None:
    with pytest.raises(TensorError, match="null"):
        tensor.to_raw("BYTES", [2])


def test_blocks_truncated_at_every_byte() -> None:
    block = join_bytes_block(ELEMENTS)
    assert split_bytes_block(block) == ELEMENTS
    for size in range(len(block)):
        with pytest.raises(TensorError):
            Tensor.from_raw(block[:size], "BYTES", [len(ELEMENTS)])


@pytest.mark.parametrize("length", [2, 2**31 - 1, 2**31, 2**32 - 1])
def test_lengths_past_the_end(length: int) -> None:
    with pytest.raises(TensorError, match="inside the data"):
        Tensor.from_raw(struct.pack("<I", length) + b"a", "BYTES", [1])


@given(st.binary(max_size=40), st.integers(0, 6))
def test_random_blocks_are_whole_or_refused(block: bytes, count: int) -> None:
    try:
        tensor = Tensor.from_raw(block, "BYTES", [count])
    except TensorError:
        return
    assert join_bytes_block(tensor.root) == block
    assert len(tensor.root) == count


def test_text_becomes_utf8() -> None:
    assert (
        Tensor(["snow ☃", b"\xff"]).to_raw("BYTES", [2])
        == b"\x08\0\0\0snow \xe2\x98\x83\x01\0\0\0\xff"
    )


def test_one_text_is_one_element() -> None:
    assert flat_elements("abc", [1]) == ["abc"]
    assert flat_elements(b"abc", []) == [b"abc"]


def test_lists_below_the_shape_are_elements() -> None:
    assert flat_elements([["a", "b"], ["c"]], [2]) == [["a", "b"], ["c"]]

"""The elements of BYTES tensors: flat lists of any nesting, and the blocks of the binary encoding. Free of NumPy."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from .datatypes import TensorError, brief, element_count, reshape_array


def is_nested(root: Any) -> bool:
    return len(root) > 0 and isinstance(root[0], (list, tuple))


def flat_elements(root: Any, shape: Sequence[int]) -> list[Any]:
    """Elements of a BYTES tensor in row-major order; nesting down to the shape's rank is opened, no deeper.

    Raises:
        TensorError: the count or the nesting does not agree with the shape.
    """
    count = element_count(shape)
    if isinstance(root, (str, bytes)):
        root = [root]
    elements = list(root.ravel() if hasattr(root, "ravel") else root)
    if len(elements) == count and (len(shape) <= 1 or not is_nested(elements) or count == 0):
        return elements
    level = elements
    for _ in shape[1:]:
        if not all(isinstance(item, (list, tuple)) for item in level):
            raise TensorError(f"{count} elements for shape {list(shape)}", f"{len(elements)}")
        if len({len(part) for part in level}) > 1:
            raise TensorError("nested lists of equal length", brief(root))
        level = [item for part in level for item in part]
    if len(level) != count:
        raise TensorError(f"{count} elements for shape {list(shape)}", f"{len(level)}")
    return level


def check_bytes_elements(root: Any, shape: Sequence[int]) -> None:
    if not isinstance(root, (list, tuple, str, bytes)) and not hasattr(root, "ravel"):
        raise TensorError("a list of BYTES elements", brief(root))
    if hasattr(root, "ravel"):
        reshape_array(root, shape)
    else:
        flat_elements(root, shape)


def encode_element(element: Any) -> bytes:
    """An element as bytes: text is UTF-8, lists, objects and booleans are JSON.

    Raises:
        TensorError: it is null, which is neither an empty text nor the word.
    """
    if isinstance(element, str):
        return element.encode("utf-8")
    if isinstance(element, (bytes, bytearray, memoryview)):
        return bytes(element)
    if element is None:
        raise TensorError("bytes or text", "null, which only JSON can carry")
    if isinstance(element, (bool, list, dict)):
        return json.dumps(element, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return str(element).encode("utf-8")


def join_bytes_block(elements: Sequence[Any]) -> bytes:
    """Elements -> the binary encoding of a BYTES tensor. Raises `TensorError` for null."""
    parts: list[bytes] = []
    for element in elements:
        data = encode_element(element)
        parts.append(struct.pack("<I", len(data)))
        parts.append(data)
    return b"".join(parts)


def split_bytes_block(block: memoryview | bytes) -> list[bytes]:
    """The binary encoding of a BYTES tensor -> its elements. The block must have passed `Tensor.from_raw`."""
    elements, at, end = [], 0, len(block)
    while at < end:
        size = int.from_bytes(block[at : at + 4], "little")
        elements.append(bytes(block[at + 4 : at + 4 + size]))
        at += 4 + size
    return elements


def check_bytes_block(block: memoryview, count: int) -> None:
    """Walk the lengths without copying: exactly `count` elements that end where the block ends."""
    at = found = 0
    while at < block.nbytes:
        if at + 4 > block.nbytes:
            raise TensorError(
                "a 4-byte length before each BYTES element", f"{block.nbytes - at} trailing bytes"
            )
        size = int.from_bytes(block[at : at + 4], "little")
        at += 4 + size
        found += 1
        if at > block.nbytes:
            raise TensorError(
                "BYTES elements inside the data",
                f"a length of {size} that ends {at - block.nbytes} bytes past it",
            )
    if found != count:
        raise TensorError(f"{count} BYTES elements", str(found))

"""Elements of BYTES tensors: flattening, and the binary encoding. Does not import NumPy."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from .datatypes import TensorError, brief, element_count, reshape_array


def is_nested(root: Any) -> bool:
    """Return whether the first element is a list."""
    return len(root) > 0 and isinstance(root[0], (list, tuple))


def flat_elements(root: Any, shape: Sequence[int]) -> list[Any]:
    """Return the elements of a BYTES tensor in row-major order, flattened down to the shape's rank.

    Raises:
        TensorError: the count or the nesting does not fit the shape.
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
    """Check the elements of a BYTES tensor against its shape.

    Raises:
        TensorError: they are not a list, or do not fit.
    """
    if not isinstance(root, (list, tuple, str, bytes)) and not hasattr(root, "ravel"):
        raise TensorError("a list of BYTES elements", brief(root))
    if hasattr(root, "ravel"):
        reshape_array(root, shape)
    else:
        flat_elements(root, shape)


def encode_element(element: Any) -> bytes:
    """Return an element as bytes: text as UTF-8; lists, objects and booleans as JSON.

    Raises:
        TensorError: the element is None; an empty text would be another value.
    """
    if isinstance(element, str):
        return element.encode("utf-8")
    if isinstance(element, (bytes, bytearray, memoryview)):
        return bytes(element)
    if element is None:
        raise TensorError("bytes or text", "null, which only JSON has")
    if isinstance(element, (bool, list, dict)):
        return json.dumps(element, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return str(element).encode("utf-8")


def join_bytes_block(elements: Sequence[Any]) -> bytes:
    """Return the binary encoding of a BYTES tensor.

    Raises:
        TensorError: an element is None.
    """
    parts: list[bytes] = []
    for element in elements:
        data = encode_element(element)
        parts.append(struct.pack("<I", len(data)))
        parts.append(data)
    return b"".join(parts)


def split_bytes_block(block: memoryview | bytes) -> list[bytes]:
    """Return the elements of a block that `check_bytes_block` has accepted."""
    elements, offset, end = [], 0, len(block)
    while offset < end:
        size = int.from_bytes(block[offset : offset + 4], "little")
        elements.append(bytes(block[offset + 4 : offset + 4 + size]))
        offset += 4 + size
    return elements


def check_bytes_block(block: memoryview, count: int) -> None:
    """Check, without a copy, that a block holds exactly `count` elements and ends after the last.

    Raises:
        TensorError: it does not.
    """
    offset = received = 0
    while offset < block.nbytes:
        if offset + 4 > block.nbytes:
            raise TensorError(
                "a 4-byte length before each BYTES element",
                f"{block.nbytes - offset} trailing bytes",
            )
        size = int.from_bytes(block[offset : offset + 4], "little")
        offset += 4 + size
        received += 1
        if offset > block.nbytes:
            raise TensorError(
                "BYTES elements inside the data",
                f"a length of {size} that ends {offset - block.nbytes} bytes past it",
            )
    if received != count:
        raise TensorError(f"{count} BYTES elements", str(received))

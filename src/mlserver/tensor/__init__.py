"""Blocks of data, free of any protocol message.

A tensor's faces are the elements as Python objects (`root`), the bytes of the binary encoding (`raw`) and a NumPy array
(`array`). It keeps the face that arrived and makes another when somebody asks: `tensor` holds the class, `convert` the ways
between faces, `elements` what is special about BYTES, and `datatypes` what the protocol says of types and shapes.
"""

from .bytes_elements import encode_element, flat_elements, join_bytes_block, split_bytes_block
from .datatypes import (
    DATATYPES,
    DTYPES,
    FORMATS,
    ITEM_SIZES,
    MAX_ELEMENTS,
    MAX_RANK,
    TensorError,
    brief,
    element_count,
    item_size,
)
from .tensor import Tensor

__all__ = [
    "DATATYPES",
    "DTYPES",
    "FORMATS",
    "ITEM_SIZES",
    "MAX_ELEMENTS",
    "MAX_RANK",
    "Tensor",
    "TensorError",
    "brief",
    "encode_element",
    "element_count",
    "flat_elements",
    "item_size",
    "join_bytes_block",
    "split_bytes_block",
]

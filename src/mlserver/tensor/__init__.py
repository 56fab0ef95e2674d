"""Tensor data, independent of protocol messages.

A tensor has up to three representations: the elements as Python objects (`root`), the bytes of the
binary encoding (`raw`) and a NumPy array (`array`). It keeps the one that it was made from and
converts it on first use. Modules: `tensor` (the class), `conversion` (between representations),
`bytes_elements` (BYTES), `datatypes` (types and shapes).
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

"""Representations of a tensor: their values, when they are made, and what is refused."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver.tensor import (
    DATATYPES,
    DTYPES,
    FORMATS,
    ITEM_SIZES,
    Tensor,
    TensorError,
    brief,
    item_size,
)

INTEGERS = [name for name in DTYPES if "INT" in name]
FLOATS = ["FP16", "FP32", "FP64"]
WIDTHS = {"FP16": 16, "FP32": 32, "FP64": 64}


def elements_of(datatype: str) -> st.SearchStrategy[Any]:
    """JSON values that a datatype holds exactly; no NaN, which equals nothing."""
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.binary(max_size=8)
    if datatype in FLOATS:
        return st.floats(width=WIDTHS[datatype], allow_nan=False)  # type: ignore[arg-type]
    limits = np.iinfo(DTYPES[datatype])
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, list[int], list[Any]]:
    """Datatype, shape and flat elements."""
    datatype = draw(st.sampled_from([*DTYPES, "BYTES"]))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = math.prod(shape)
    return datatype, shape, draw(st.lists(elements_of(datatype), min_size=count, max_size=count))


def nested(elements: list[Any], shape: list[int]) -> Any:
    """Flat elements as lists in lists."""
    if len(shape) <= 1:
        return elements
    step = len(elements) // shape[0] if shape[0] else 0
    return [nested(elements[step * at : step * at + step], shape[1:]) for at in range(shape[0])]


def refusal(root: Any, datatype: str, shape: list[int]) -> str:
    with pytest.raises(TensorError) as error:
        Tensor(root).normalize(datatype, shape)
    assert len(str(error.value)) < 500
    return str(error.value)


# -- there and back --


@given(tensors())
def test_list_to_raw_to_list(case: tuple[str, list[int], list[Any]]) -> None:
    datatype, shape, elements = case
    raw = Tensor(elements).to_raw(datatype, shape)

    assert Tensor.from_raw(raw, datatype, shape).root == elements


@given(tensors())
def test_list_to_array_to_raw_to_list(case: tuple[str, list[int], list[Any]]) -> None:
    datatype, shape, elements = case
    array = Tensor(elements).to_array(datatype, shape)
    assert array.shape == tuple(shape)
    assert datatype == "BYTES" or array.dtype == DTYPES[datatype]

    raw = Tensor.from_array(array).to_raw(datatype, shape)
    assert bytes(raw) == bytes(Tensor(elements).to_raw(datatype, shape))
    assert (
        Tensor.from_raw(raw, datatype, shape).to_array(datatype, shape).ravel().tolist() == elements
    )


@given(tensors())
def test_nested_is_flat(case: tuple[str, list[int], list[Any]]) -> None:
    datatype, shape, elements = case
    raw = bytes(Tensor(elements).to_raw(datatype, shape))

    assert bytes(Tensor(nested(elements, shape)).to_raw(datatype, shape)) == raw


@given(tensors())
def test_normalize_keeps_every_element(case: tuple[str, list[int], list[Any]]) -> None:
    datatype, shape, elements = case
    tensor = Tensor(list(elements))
    tensor.normalize(datatype, shape)

    assert tensor.representations == (("root",) if datatype == "BYTES" else ("raw",))
    assert tensor.root == elements
    assert tensor.to_array(datatype, shape).ravel().tolist() == elements


@pytest.mark.parametrize("datatype", [*DTYPES, "BF16"])
def test_item_sizes(datatype: str) -> None:
    raw = Tensor([1]).to_raw(datatype, [1])

    assert len(raw) == item_size(datatype) == ITEM_SIZES[datatype]
    if datatype in FORMATS:
        assert struct.unpack(f"<{FORMATS[datatype]}", raw) == (1,)


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_to_their_limits(datatype: str) -> None:
    limits = np.iinfo(DTYPES[datatype])
    low, high = int(limits.min), int(limits.max)
    roots: list[Any] = [[low, high], [[low], [high]], (low, high)]
    for root in roots:
        assert Tensor.from_raw(Tensor(root).to_raw(datatype, [2]), datatype, [2]).root == [
            low,
            high,
        ]
    for outside in (low - 1, high + 1, float(high) * 2 + 2, 1e300, math.inf):
        for out in ([outside], [[outside]], [outside, 0]):
            assert datatype in refusal(out, datatype, [len(out)])


@pytest.mark.parametrize("datatype, large", [("INT64", 2**53 + 1), ("UINT64", 2**64 - 1)])
def test_large_integers_beside_fractions_stay_exact(datatype: str, large: int) -> None:
    tensor = Tensor([large, 1.0])

    assert tensor.to_array(datatype, [2]).tolist() == [large, 1]


def test_fractions_are_truncated_as_in_numpy() -> None:
    assert Tensor([1.9, -1.9]).to_array("INT8", [2]).tolist() == [1, -1]


@pytest.mark.parametrize("datatype", FLOATS)
def test_special_floats(datatype: str) -> None:
    tensor = Tensor([None, math.inf, -math.inf, -0.0])
    tensor.normalize(datatype, [4])
    array = tensor.to_array(datatype, [4])

    np.testing.assert_array_equal(array, np.array([math.nan, math.inf, -math.inf, -0.0]))
    assert math.copysign(1, array[3]) == -1
    assert tensor.root == [None, math.inf, -math.inf, 0.0]
    assert Tensor.from_array(array).root == tensor.root


@pytest.mark.parametrize("datatype, value", [("FP16", 65536.0), ("FP32", 1e39), ("BF16", 1e39)])
def test_floats_out_of_range(datatype: str, value: float) -> None:
    for root in ([value], [value, None], [[value]]):
        assert f"in the range of {datatype}" in refusal(root, datatype, [len(root)])


def test_bfloat16_widens_and_narrows() -> None:
    raw = struct.pack("<3H", 0x3F80, 0xC000, 0x7F80)
    tensor = Tensor.from_raw(raw, "BF16", [3])

    assert tensor.root == [1.0, -2.0, math.inf]
    assert tensor.array is not None
    assert tensor.array.dtype == np.float32
    assert Tensor([1.0, -2.0, math.inf]).to_raw("BF16", [3]) == raw
    assert Tensor.from_array(np.array(1.5)).to_raw("BF16", []) == struct.pack("<H", 0x3FC0)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_empty_tensors(datatype: str) -> None:
    for shape in ([0], [0, 3], [2, 0]):
        tensor = Tensor([])
        tensor.normalize(datatype, shape)
        assert bytes(tensor.to_raw(datatype, shape)) == b""
        assert tensor.to_array(datatype, shape).shape == tuple(shape)
        assert Tensor.from_raw(b"", datatype, shape).root == []


@pytest.mark.parametrize("root", [5, [5], [[5]]])
def test_scalars(root: Any) -> None:
    tensor = Tensor(root)
    tensor.normalize("INT8", [])

    assert tensor.to_array("INT8", []).shape == ()
    assert tensor.root == [5]


# -- representations --


def test_representations_are_made_on_first_use_and_once() -> None:
    raw = struct.pack("<2f", 1.0, 2.0)
    tensor = Tensor.from_raw(raw, "FP32", [2])
    seen = [tensor.representations]
    array = tensor.array
    assert tensor.array is array
    seen.append(tensor.representations)
    assert tensor.root is tensor.root
    seen.append(tensor.representations)

    assert seen == [("raw",), ("array", "raw"), ("root", "array", "raw")]


def test_an_array_is_a_view_of_the_bytes() -> None:
    body = bytearray(struct.pack("<4f", 1, 2, 3, 4))
    array = Tensor.from_raw(memoryview(body)[4:12], "FP32", [2]).to_array("FP32", [2])
    body[4:8] = struct.pack("<f", 9)

    assert array.tolist() == [9.0, 3.0]


def test_raw_of_an_array_is_a_view_of_it() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    raw = Tensor.from_array(array).to_raw("FP32", [2, 3])
    array[0, 0] = 7

    assert struct.unpack_from("<f", raw) == (7.0,)


@pytest.mark.parametrize(
    "make", [np.asfortranarray, lambda array: array[::-1][::-1], lambda array: array.astype(">f8")]
)
def test_arrays_of_any_layout(make: Any) -> None:
    array = make(np.arange(6.0).reshape(2, 3))

    assert struct.unpack("<6d", Tensor.from_array(array).to_raw("FP64", [2, 3])) == (
        0,
        1,
        2,
        3,
        4,
        5,
    )


def test_all_representations_of_a_converted_array_agree() -> None:
    tensor = Tensor.from_array(np.array([1.1, 1e300]))
    tensor.normalize("FP32", [2])

    assert tensor.array is not None
    assert tensor.array.dtype == np.float32
    assert tensor.root == tensor.array.tolist() == [np.float32(1.1), math.inf]


def test_text_in_an_array_of_numbers_is_refused() -> None:
    with pytest.raises(TensorError, match="FP32 numbers"):
        Tensor.from_array(np.array(["a"])).normalize("FP32", [1])
    with pytest.raises(TensorError, match="INT8 numbers"):
        Tensor.from_array(np.array([None], dtype=object)).normalize("INT8", [1])


@pytest.mark.parametrize(
    "data", [np.zeros(2), np.array(["a", "b"]), np.array([b"a", None], dtype=object)]
)
def test_arrays_of_another_size_are_refused(data: Any) -> None:
    with pytest.raises(TensorError, match=r"3 elements for shape \[3\], received 2"):
        Tensor.from_array(data).normalize("FP64" if data.dtype.kind == "f" else "BYTES", [3])


def test_normalized_data_with_another_datatype_or_shape() -> None:
    def tensor() -> Tensor:
        return Tensor.from_raw(struct.pack("<2f", 1.5, 2.5), "FP32", [2])

    again = tensor()
    again.normalize("FP32", [1, 2])
    assert again.root == [1.5, 2.5]
    wider = tensor()
    wider.normalize("FP64", [2])
    assert wider.raw == struct.pack("<2d", 1.5, 2.5)
    with pytest.raises(TensorError, match="3 elements"):
        tensor().normalize("FP32", [3])
    with pytest.raises(TensorError, match="3 elements"):
        tensor().normalize("FP64", [3])
    with pytest.raises(TensorError, match="BYTES data, received FP32 data"):
        tensor().normalize("BYTES", [2])


def test_an_array_from_a_list_of_another_shape() -> None:
    tensor = Tensor.from_array(np.arange(4))

    assert tensor.to_array("INT64", [2, 2]).shape == (2, 2)
    assert tensor.block_shape == (4,)
    with pytest.raises(TensorError, match="5 elements"):
        tensor.to_array("INT64", [5])


def test_no_data_is_refused() -> None:
    with pytest.raises(TensorError, match="expected data, received none"):
        Tensor().normalize("FP32", [0])


# -- as a sequence --


def test_behaves_as_its_elements() -> None:
    tensor = Tensor.from_raw(struct.pack("<3h", 1, 2, 3), "INT16", [3])

    assert list(tensor) == [1, 2, 3]
    assert (tensor[0], tensor[1:], len(tensor), bool(tensor)) == (1, [2, 3], 3, True)
    assert tensor == [1, 2, 3]
    assert tensor == Tensor([1, 2, 3])
    assert tensor != [1, 2]
    assert not Tensor([])
    assert repr(tensor) == "Tensor([1, 2, 3])"
    np.testing.assert_array_equal(np.asarray(tensor, dtype="f8"), [1.0, 2.0, 3.0])
    assert np.asarray(Tensor(["a"])).tolist() == ["a"]


def test_a_tensor_of_a_tensor_has_its_representations() -> None:
    tensor = Tensor(Tensor.from_raw(b"\1", "INT8", [1]))

    assert (tensor.representations, tensor.root) == (("raw",), [1])


# -- texts --


@pytest.mark.parametrize(
    "value, text",
    [
        ([1, "a", None], "[1, 'a', None]"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, 6, 7, ...] (9 elements)"),
        ({"a": [1]}, "{'a': [1]}"),
        ("x" * 81, repr("x" * 80) + "..."),
        ([[[[[1]]]]], "[[[[[...]]]]]"),
    ],
)
def test_brief(value: Any, text: str) -> None:
    assert brief(value) == text


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_brief_is_brief(value: Any) -> None:
    assert len(brief(value)) <= 163

"""Type aliases as hints: `type Rows = ...` (Python 3.12), and `NDArray` from NumPy 2.5 on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any, Optional

import numpy as np
import pytest
from numpy.typing import NDArray

from mlserver import MLModel, ModelSettings
from mlserver.codecs import NumpyCodec, decode_args
from mlserver.codecs.hints import canonical, expand_alias, fits, unwrap_optional
from mlserver.types import InferenceRequest

HINTS = [
    NDArray[np.float64],
    NDArray[Any],
    NDArray,
    np.ndarray,
    Annotated[NDArray[np.float64], "rows"],
    Optional[NDArray[np.float64]],  # noqa: UP045
    NDArray[np.float64] | None,
]


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_every_spelling_of_an_array_is_served(hint: Any) -> None:
    def predict(self, rows, other=None):  # type: ignore[no-untyped-def]
        return rows * 2

    predict.__annotations__ = {"rows": hint, "other": hint, "return": hint}
    model = MLModel(ModelSettings(name="m", implementation=MLModel))
    decorated: Callable[..., Any] = decode_args(predict)
    request = InferenceRequest(inputs=[NumpyCodec.encode_input("rows", np.array([[1.0, 2.0]]))])
    (output,) = decorated(model, request).outputs
    assert (output.datatype, output.shape, output.data.root) == ("FP64", [1, 2], [2.0, 4.0])


def test_an_array_of_numbers_is_an_array() -> None:
    assert fits(NDArray[np.float64], np.ndarray)
    assert not fits(NDArray[np.float64], list)
    assert unwrap_optional(NDArray[np.float64] | None)[1]
    assert canonical(NDArray[np.float64]) != canonical(NDArray[np.int64])


def test_other_hints_are_unchanged() -> None:
    for hint in (int, list[str], str | None, Any, np.ndarray):
        assert expand_alias(hint) is hint


ALIASES = """
from typing import Optional
type Words = list[str]
type Again = Words
type Maybe = Optional[Words]
type Row[T] = list[T]
type Swapped[X, Y] = dict[Y, X]
type Same[X] = X
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brought the statement `type`")
@pytest.mark.parametrize(
    "alias, meant",
    [
        ("Words", list[str]),
        ("Again", list[str]),
        ("Row[int]", list[int]),
        ("Row", list[Any]),
        ("Swapped[int, str]", dict[str, int]),
        ("Same[int]", int),
        ("tuple[Words, Same[int]]", tuple[list[str], int]),
        ("Maybe", list[str] | None),
        ("Words | None", list[str] | None),
    ],
)
def test_aliases(alias: str, meant: Any) -> None:
    names: dict[str, Any] = {}
    exec(ALIASES, names)
    hint = eval(alias, names)
    assert canonical(hint) == canonical(meant)
    assert unwrap_optional(hint)[1] == unwrap_optional(meant)[1]

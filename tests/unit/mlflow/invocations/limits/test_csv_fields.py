"""Fields of CSV rows are counted as pandas counts them."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver_mlflow.invocations.limits.csv_fields import count_fields

BODIES: dict[bytes, list[int]] = {
    b"": [],
    b"\n \n\t\n": [],
    b"a": [1],
    b"a,b\n1,2\n": [2, 2],
    b"a,b\r\n\r\n1,2\r\n": [2, 2],
    b"a,b\r1,2": [2, 2],
    b'a,"b,\nc"\n1,2': [2, 2],
    b'"a ""x"", b",c\n,': [2, 2],
    b'a,b"c,d\n"e,f': [3, 1],
    b'"a"b,c\n"d" "e,f"': [2, 2],
    b'\xef\xbb\xbf"a,b",c': [2],
    b'a\n"never,\nends': [1, 1],
}


@pytest.mark.parametrize("body", BODIES)
def test_known_bodies(body: bytes) -> None:
    assert count_fields(body) == BODIES[body]


@given(st.text('ab," \n', max_size=30))
def test_counts_equal_those_of_pandas(text: str) -> None:
    try:
        rows = pd.read_csv(
            io.StringIO(text), header=None, names=range(40), index_col=False, dtype=str
        )
        table = pd.read_csv(io.StringIO(text))
    except (pd.errors.EmptyDataError, pd.errors.ParserError):
        return
    widths = count_fields(text.encode())
    assert len(widths) == len(rows)
    assert widths[0] == table.shape[1]

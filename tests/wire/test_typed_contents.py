"""Typed contents of every datatype and length, read with every implementation of protobuf.

The containers of protobuf differ: from 7.34 on the C implementation supports the buffer protocol;
older ones and the pure Python implementation are plain sequences. The same table is read with the
installed implementation and, in a separate process, with the pure Python one.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlserver.tensor import FORMATS
from mlserver.wire.pb import dataplane_pb2 as pb
from mlserver.wire.proto import messages
from mlserver.wire.proto.contents import FIELDS

# Datatype -> values at its limits, small ones among large ones, so that no smaller type holds all.
VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, False],
    "UINT8": [0, 255, 1],
    "UINT16": [0, 65535, 1],
    "UINT32": [0, 2**32 - 1, 2**31],
    "UINT64": [0, 2**64 - 1, 2**53 + 1, 2**63, 2**63 - 1],
    "INT8": [-128, 127, 0],
    "INT16": [-(2**15), 2**15 - 1, 0],
    "INT32": [-(2**31), 2**31 - 1, 0],
    "INT64": [-(2**63), 2**63 - 1, 2**53 + 1, -(2**53) - 1, 0],
    "FP32": [1.5, -0.0, 2.0**-149, math.inf, 0.1, 3.4028234663852886e38, math.nan],
    "FP64": [0.1, -0.0, 5e-324, -math.inf, 1.7976931348623157e308, math.nan],
    "BYTES": [b"", b"\x00\xff", b"text", "\u2603".encode()],
}
# Datatype -> numbers that its field can hold, but not the datatype.
OUT_OF_RANGE: dict[str, list[int]] = {
    "UINT8": [256, 2**32 - 1],
    "UINT16": [65536, 2**32 - 1],
    "INT8": [-129, 128, -(2**31)],
    "INT16": [-(2**15) - 1, 2**15, 2**31 - 1],
}
LENGTHS = [*range(101), 1000]


def typed_message(datatype: str, values: list[Any]) -> pb.ModelInferRequest:
    tensor = {
        "name": "x",
        "datatype": datatype,
        "shape": [len(values)],
        "contents": {FIELDS[datatype]: values},
    }
    sent = pb.ModelInferRequest(model_name="m", inputs=[tensor])
    return pb.ModelInferRequest.FromString(sent.SerializeToString())


def check_values(datatype: str, count: int) -> None:
    values = list(itertools.islice(itertools.cycle(VALUES[datatype]), count))
    (received,) = messages.read_request(typed_message(datatype, values)).inputs
    if datatype == "BYTES":
        assert list(received.data) == values
    else:
        expected = struct.pack(f"<{count}{FORMATS[datatype]}", *values)
        assert bytes(received.data.to_raw(datatype, [count])) == expected, (datatype, count)


def check_refusal(datatype: str, value: int, count: int) -> None:
    message = typed_message(datatype, [0] * (count - 1) + [value])
    with pytest.raises(Exception, match=f"in the range of {datatype}"):
        messages.read_request(message)


@pytest.mark.parametrize("datatype", VALUES)
def test_every_length_gives_the_same_bytes(datatype: str) -> None:
    for count in LENGTHS:
        check_values(datatype, count)


@pytest.mark.parametrize("datatype", OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused_at_every_length(datatype: str) -> None:
    for value in OUT_OF_RANGE[datatype]:
        for count in (1, 32, 33, 100):
            check_refusal(datatype, value, count)


def test_a_container_that_is_a_plain_sequence() -> None:
    script = (
        "from google.protobuf.internal import api_implementation\n"
        "from tests.wire import test_typed_contents as table\n"
        "assert api_implementation.Type() == 'python'\n"
        "for datatype in table.VALUES:\n"
        "    for count in table.LENGTHS:\n"
        "        table.check_values(datatype, count)\n"
        "for datatype, numbers in table.OUT_OF_RANGE.items():\n"
        "    for number in numbers:\n"
        "        for count in (1, 32, 33, 100):\n"
        "            table.check_refusal(datatype, number, count)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

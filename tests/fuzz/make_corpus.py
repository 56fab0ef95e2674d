"""Writes the initial corpus.

Valid bodies of every kind, and known attacks. Run: python -m fuzz.make_corpus
Bodies that a fuzzer found are added to the folders by hand, named after their effect.
"""

from __future__ import annotations

import io
import json
import struct
from typing import Any

from fuzz.mutation import CORPUS
from mlserver.types import InferenceRequest
from mlserver.wire import json as wire_json
from mlserver.wire.proto import messages

ONE = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1.5, -2, 3e10, 0]}
DATATYPES = "UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 BOOL"
LONG = {"name": "x", "shape": [2000], "datatype": "FP32", "data": [1.5] * 2000}
TEXT = {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["é\u0000", "𝄞"]}


def entry(**changes: Any) -> dict[str, Any]:
    return {**ONE, **changes}


REQUESTS: dict[str, Any] = {
    "numbers": {"id": "a", "inputs": [ONE]},
    "nested": {"inputs": [entry(data=[[1, 2], [3, 4]])]},
    "text": {"inputs": [TEXT]},
    "all datatypes": {
        "inputs": [
            {"name": kind, "shape": [1], "datatype": kind, "data": [1]}
            for kind in DATATYPES.split()
        ]
    },
    "parameters": {
        "inputs": [entry(parameters={"content_type": "np", "extra": {"a": [1, None]}})],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        "parameters": {"timeout": 1000, "priority": 1, "sequence_id": 7, "headers": {"a": "b"}},
    },
    "base64": {
        "inputs": [{**TEXT, "data": ["aGk=", "AA=="], "parameters": {"content_type": "base64"}}]
    },
    "missing floats": {"inputs": [entry(data=[None, 1, None, 2])]},
    "scalar": {"inputs": [entry(shape=[], data=[1])]},
    "empty": {"inputs": [entry(shape=[0], data=[])]},
    "largest": {"inputs": [entry(shape=[2], datatype="UINT64", data=[2**64 - 1, 0])]},
    "ragged": {"inputs": [entry(data=[[1, 2], [3]])]},
    "enormous": {"inputs": [entry(shape=[2**40, 2**40])]},
    "negative": {"inputs": [entry(shape=[-1])]},
    "rank 40": {"inputs": [entry(shape=[1] * 40, data=[1])]},
    "twice": {"inputs": [ONE, ONE]},
    "none": {"inputs": []},
    "one output again and again": {"inputs": [LONG], "outputs": [{"name": "x"}] * 2000},
}
MANY = 15_000
TABLES: dict[str, Any] = {
    "split": {
        "dataframe_split": {"columns": ["a", "b", "c"], "data": [[1.5, 2, "x"], [None, 3, "y"]]}
    },
    "records": {"dataframe_records": [{"a": 1.5, "b": 2, "c": "x"}]},
    "instances": {"instances": [{"a": 1.5, "b": 2, "c": "x"}]},
    "inputs": {"inputs": {"a": [1.5], "b": [2], "c": ["x"]}},
    "params": {"dataframe_records": [{"a": 1.5, "b": 2, "c": "x"}], "params": {"k": 1}},
    "index": {"dataframe_split": {"index": [7], "columns": ["a", "b", "c"], "data": [[1, 2, "x"]]}},
    "dates": {"dataframe_records": [{"a": 1.5, "b": 2, "c": "99999-99-99T99:99:99"}]},
    "both": {"instances": [1], "inputs": [1]},
    "many records": {"dataframe_records": [{"a": 1, "b": 2, "c": "x"}] * 2000},
    "a key in each record": {"dataframe_records": [{f"c{number}": 1} for number in range(2000)]},
    "one column again and again": {
        "dataframe_split": {"columns": ["a"] * MANY, "data": [[1] * MANY]}
    },
    "one long row": {"dataframe_split": {"columns": ["a"], "data": [[1] * 900, *([[]] * MANY)]}},
    "columns without rows": {"dataframe_split": {"columns": ["a"] * MANY, "data": []}},
    "labels of thousands of levels": {"dataframe_split": {"columns": [[]] * 9000, "data": []}},
    "labels and no data": {
        "dataframe_split": {"index": [1] * 9000, "columns": [0] * 9000, "data": {}}
    },
    "a key in each row of data": {
        "dataframe_split": {"data": [{f"c{number}": 1} for number in range(5000)]}
    },
    "objects of empty columns": {
        "dataframe_split": {"columns": [f"c{at}" for at in range(5000)], "data": [{}] * 5000}
    },
    "a long record and short ones": {"dataframe_records": [[1] * 9000, *([[]] * 9000)]},
}
CSV = {
    "plain": "a,b,c\n1.5,2,x\n-3,4,y\n",
    "quoted": 'a,b,c\n1.5,2,"x ""y"",\nz"\n',
    "missing": "a,b,c\n,2,\n1,,x\n",
    "ragged": "a,b,c\n1\n1,2,3,4,5\n",
    "open quote": 'a,b,c\n1,2,"' + "x" * 100,
    "many columns": ",".join(f"c{number}" for number in range(500))
    + "\n"
    + ",".join("1" * 500)
    + "\n",
    "one column twice": "a,a,a\n1,2,3\n",
    "nothing": "",
    "blank": "\n\n\n",
    "many rows": "a,b,c\n" + "1,2,x\n" * 3000,
    "nothing but commas": "," * 30_000,
    "a wide header over short rows": "," * MANY + "\n" + "1\n" * MANY,
    "columns without rows": "," * 9900,
    "columns without rows and a line of blanks": "," * 9900 + "\n \n",
    "columns without rows and an odd end of line": "," * 9900 + "\n\r,",
    "an index of thousands of levels": "a\n" + "," * 9900,
    "quotes that break every line": "c" + ',"\n"' * 5000 + "\n" + "1\n" * 5000,
    "empty columns of one row": "," * 9900 + "\n,",
    "a wide row over short rows": "a\n" + "," * 900 + "\n" + "1\n" * MANY,
    "numbers": "a,b,c\n1e400,99999999999999999999,nan\ninf,-0,1_000\n",
}


def put(target: str, name: str, body: bytes) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name.replace(" ", "-")).write_bytes(body)


def with_binary(document: dict[str, Any], *blobs: bytes) -> bytes:
    head = json.dumps(document).encode()
    return b"%d\n" % len(head) + head + b"".join(blobs)


def binary_bodies() -> None:
    raw = struct.pack("<4f", 1, 2, 3, 4)
    first = {name: value for name, value in ONE.items() if name != "data"}
    second = {"name": "t", "shape": [2], "datatype": "BYTES"}
    words = b"".join(struct.pack("<I", len(word)) + word for word in (b"hi", b"\xff\0"))
    sized = {"parameters": {"binary_data_size": 16}}
    put("binary", "numbers", with_binary({"inputs": [first | sized]}, raw))
    both = {"inputs": [first | sized, second | {"parameters": {"binary_data_size": len(words)}}]}
    put("binary", "numbers and text", with_binary(both, raw, words))
    expected = {"inputs": [first | sized], "parameters": {"binary_data_output": True}}
    put("binary", "binary answer", with_binary(expected, raw))
    again = {"inputs": [first | sized], "outputs": [{"name": "x"}] * 9000}
    put("binary", "one output again and again", with_binary(again, raw))
    for name, size in (
        ("too much", 17),
        ("too little", 15),
        ("negative", -16),
        ("enormous", 2**63),
    ):
        put(
            "binary",
            name,
            with_binary({"inputs": [first | {"parameters": {"binary_data_size": size}}]}, raw),
        )
    bad = struct.pack("<I", 0xFFFFFFFF) + b"hi"
    put(
        "binary",
        "length past the end",
        with_binary({"inputs": [second | {"parameters": {"binary_data_size": 6}}]}, bad),
    )
    put("binary", "header past the end", b"999999\n{}")
    put("binary", "negative header", b"-1\n{}")
    put("binary", "raw", b"0\n" + raw)


def grpc_bodies() -> None:
    for name, document in REQUESTS.items():
        try:
            request = wire_json.read_request(json.dumps(document).encode())
        except Exception:
            request = InferenceRequest(inputs=[])
        for raw in (False, True):
            try:
                message = messages.write_request(request, "echo", None, raw)
            except Exception:  # bodies that no client writes are left to mutations
                continue
            put("grpc", f"{name}{' raw' if raw else ''}", message.SerializeToString())


def arrow_bodies() -> None:
    import pyarrow as pa

    tables = {
        "numbers": pa.table({"a": [1.5, 2.5], "b": [1, 2]}),
        "text": pa.table({"t": ["é", None], "raw": [b"\0", b"\xff"]}),
        "lists": pa.table({"v": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))}),
        "dictionary": pa.table({"d": pa.array(["x", "y", "x"]).dictionary_encode()}),
        "no rows": pa.table({"a": pa.array([], pa.int32())}),
        "no columns": pa.table({}),
        "dates": pa.table({"d": pa.array([0, 1], pa.timestamp("us", "UTC"))}),
    }
    for name, table in tables.items():
        for codec in (None, "zstd"):
            sink = io.BytesIO()
            with pa.ipc.new_stream(
                sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)
            ) as writer:
                writer.write_table(table)
            put("arrow", f"{name}{' zstd' if codec else ''}", sink.getvalue())
    zeros = pa.table({"z": [0.0] * 500_000})
    sink = io.BytesIO()
    with pa.ipc.new_stream(
        sink, zeros.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(zeros)
    put("arrow", "bomb", sink.getvalue())


def parquet_bodies() -> None:
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    def keep(name: str, table: Any, **options: Any) -> None:
        sink = io.BytesIO()
        parquet.write_table(table, sink, compression="zstd", **options)
        put("parquet", name, sink.getvalue())

    same, long = ["x" * 20_000] * 5000, np.zeros(5_000_000)
    plain = {"store_schema": False}
    keep("plain", pa.table({"a": [1.5, -3], "b": [2, 4], "c": ["x", None]}))
    keep("no rows", pa.table({"a": pa.array([], pa.float64())}))
    keep("nested", pa.table({"a": [{"k": [1, 2]}, {"k": []}], "b": [["x"], None]}))
    keep("columns", pa.table({f"c{number}": [1] for number in range(500)}))
    keep("rows of one number", pa.table({"a": long}))
    keep("one row of one number", pa.table({"a": [long]}))
    keep(
        "deltas of nothing",
        pa.table({"a": [long.astype("i8")]}),
        use_dictionary=False,
        column_encoding="DELTA_BINARY_PACKED",
    )
    keep("one long text", pa.table({"c": ["x" * 50_000_000]}), use_dictionary=False)
    keep("one text again and again", pa.table({"c": same}), **plain)
    keep("one text again and again in a list", pa.table({"c": [same]}), **plain)
    keep(
        "one prefix again and again",
        pa.table({"c": same}),
        use_dictionary=False,
        column_encoding="DELTA_BYTE_ARRAY",
    )
    keep(
        "bytes of one length",
        pa.table({"c": pa.array([b"x" * 20_000] * 5000, pa.binary(20_000))}),
        **plain,
    )
    body = (CORPUS / "parquet" / "plain").read_bytes()
    put("parquet", "cut", body[:-20] + body[-8:])


def main() -> None:
    for name, document in REQUESTS.items():
        put("json", name, json.dumps(document).encode())
    put("json", "deep", b'{"inputs":' + b"[" * 2000)
    put("invocations", "deep", b'{"instances":' + b"[" * 30_000)
    put("json", "surrogate", b'{"id":"\\ud800","inputs":[]}')
    for name, table in TABLES.items():
        put("invocations", name, json.dumps(table).encode())
    for name, text in CSV.items():
        put("csv", name, text.encode())
    binary_bodies()
    grpc_bodies()
    arrow_bodies()
    parquet_bodies()


if __name__ == "__main__":
    main()

"""Bodies for `/invocations`.

Every format x several signatures x valid, borderline and invalid values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from support.payload_forms import (
    ABC,
    COLUMN,
    CONTENT_TYPES,
    CSV,
    PARQUET,
    ROW,
    VALUES,
    Case,
    case,
    envelopes,
    rows_of_three,
    split,
)


def cells() -> Iterator[Case]:
    """Every scalar type x every value x every format."""
    for kind, values in VALUES.items():
        name, model = COLUMN[kind], f"echo_{kind}"
        for value in values:
            yield case(model, split([[value]], [name]))
            yield case(model, {"dataframe_records": [{name: value}]})
            yield case(model, {"inputs": {name: [value]}})
            yield case(model, {"inputs": [value]})
            yield case(model, {"inputs": [{name: value}]})
            yield case(model, {"instances": [{name: value}]})
        yield case(model, split([[values[0]], [values[1]], [values[2]]], [name]))
        yield case(model, {"inputs": {name: values[:3]}})
        yield case(model, {"instances": values[:3]})


def mixed() -> Iterator[Any]:
    """Bodies for columns d double, f float, l long, i integer, b boolean."""
    names = ["d", "f", "l", "i", "b"]
    rows: list[list[Any]] = [[0.5, 1.5, 3, 4, True], [-1, 2, 5, 6, False], [3.25, 0.1, 0, 1, True]]
    yield split(rows, names)
    yield split(rows[:1], names)
    yield split([[0.5, 1.5, 3.0, 4, True]], names)
    yield split([[0.5, 1.5, 3, 4, 1]], names)
    yield split([[0.5, 1e39, 3, 4, True]], names)
    yield split([[0.5, 2**60, 3, 4, True]], names)
    yield split([[0.5, 1, 2**70, 4, True]], names)
    yield split([[0.5, 1, 1, 2**33, True]], names)
    records = [dict(zip(names, row, strict=True)) for row in rows]
    yield {"dataframe_records": records}
    yield {"inputs": records}
    yield {"instances": records}
    yield {"inputs": {name: [row[at] for row in rows] for at, name in enumerate(names)}}
    yield {"instances": {name: [row[at] for row in rows] for at, name in enumerate(names)}}


def tensors() -> Iterator[Any]:
    """Bodies for x float32 [-1, 2] and y int64 [-1, 3]."""
    x, y = [[1, 2.5], [0.1, 4]], [[1, 2, 3], [4, 5, 6]]
    yield {"inputs": {"x": x, "y": y}}
    yield {"inputs": {"y": y, "x": x}}
    yield {"instances": [{"x": x[0], "y": y[0]}, {"x": x[1], "y": y[1]}]}
    yield {"instances": {"x": x, "y": y}}
    yield {"inputs": {"x": x, "y": y, "z": [1]}}
    yield {"inputs": {"x": x}}
    yield {"inputs": {"x": x, "y": y[:1]}}
    yield {"inputs": {"x": [1, 2], "y": y}}
    yield {"inputs": {"x": [[1, 2], [3]], "y": y}}
    yield {"inputs": {"x": x, "y": [[1.7, 2, 3], [4, 5, 6]]}}
    yield {"inputs": {"x": [["1", None], [1, True]], "y": y}}
    yield {"inputs": {"x": [[2**60 + 1, 1e40]], "y": [[2**63 - 1, -1, 0]]}}
    yield {"inputs": {"x": x, "y": [[2**63, 1, 2], [3, 4, 5]]}}
    yield {"inputs": {"x": x, "y": [[2**70, 1, 2], [3, 4, 5]]}}
    yield {"inputs": {"x": x, "y": [[True, False, True], [True, True, True]]}}
    yield {"inputs": {"x": [], "y": []}}
    yield {"inputs": [{"x": x[0], "y": y[0]}]}
    yield {"inputs": x}
    yield {"instances": [{"x": x[0], "y": y[0]}, {"x": x[1]}]}
    yield {"dataframe_split": {"columns": ["x", "y"], "data": [[x[0], y[0]], [x[1], y[1]]]}}


def unnamed() -> Iterator[Any]:
    """Bodies for one unnamed double tensor [-1, 3]."""
    yield {"inputs": [[1, 2, 3.5]]}
    yield {"inputs": [[1, 2, 3], [4, 5, 6]]}
    yield {"instances": [[1, 2, 3], [4, 5, 6.25]]}
    yield {"inputs": [1, 2, 3]}
    yield {"inputs": [[1, 2]]}
    yield {"inputs": {"a": [1]}}
    yield {"instances": [{"a": 1}]}
    yield {"inputs": [["1", 2, None]]}
    yield {"inputs": []}
    yield split([[1, 2, 3]], ABC)
    yield split([[1, 2, 3]])
    yield {"inputs": [[2**53 + 1, 10**20, 0.1]]}


NESTED = {
    "echo_array": ("arr", [[1.0, 2.5], [], [1, 2], [1], [1, 2.5], ["1"], None, 3]),
    "echo_object": (
        "obj",
        [{"x": 1}, {"x": 1, "y": "t"}, {"y": "t"}, {"x": 1, "z": 2}, {"x": 1.5}, None, 5],
    ),
    "echo_map": ("mp", [{"k": 1.5}, {}, {"k": 1}, {"k": 2}, {"k": "x"}, None]),
    "echo_any": ("any", [1, "x", [1, 2], {"k": 1}, None]),
}


def nested() -> Iterator[Case]:
    for model, (name, values) in NESTED.items():
        for value in values:
            yield case(model, split([[value]], [name]))
            yield case(model, {"inputs": {name: value}})
            yield case(model, {"inputs": [{name: value}]})
            yield case(model, {"instances": [{name: value}]})


def texts() -> Iterator[Case]:
    """CSV."""
    for body in (
        "a,b,c\n1,2.5,-0.5\n",
        "a,b,c\n1,2,3\n4,5,6\n",
        "c,b,a\n3,2,1\n",
        "a,b,c,z\n1,2,3,4\n",
        "a,b\n1,2\n",
        "a,b,c\n1,x,3\n",
        "a,b,c\n1,,3\n",
        "a,b,c\n",
        "",
        "a,b,c\n1,2,3,4,5\n1\n",
    ):
        yield case("linear", body, CSV)
        yield case("linear", body, f"{CSV}; charset=utf-8")
    yield case("linear", b"a,b,c\n1,2,\xff\n", CSV)
    yield case("echo_none", "p,q\n1,x\n2,NA\n", CSV)
    yield case("echo_string", "s\n1\n", CSV)
    yield case("echo_integer", "i\n1.5\n", CSV)
    yield case("echo_datetime", "dt\n2020-01-02\n", CSV)
    yield case("echo_tensor", "a\n1\n", CSV)
    yield case("linear", b"no parquet", PARQUET)


def agents() -> Iterator[Case]:
    """Bodies of chat models and agents, which have no envelope."""
    message = {"role": "user", "content": "Hello!"}
    for messages in (
        [message],
        [message, message],
        [],
        "x",
        [{"content": "x"}],
        [message | {"extra": 1}],
        None,
    ):
        yield case("chats", {"messages": messages})
        yield case("responds", {"input": messages})
    for more in (
        {"temperature": 0.5},
        {"temperature": 1},
        {"temperature": 2},
        {"stream": True},
        {"unknown": 1},
        {"n": 1},
    ):
        yield case("chats", {"messages": [message], **more})
        yield case("responds", {"input": [message], **more})
    for body in ({"messages": [message]}, [{"messages": [message]}]):
        yield case("chats", {"inputs": body})
        yield case("chats", {"instances": body})
    yield case("chats", split([[[message]]], ["messages"]))


def others() -> Iterator[Case]:
    yield case("words", split([["x", 1.5], ["q", 2]], ["word", "d"]))
    yield case("words", {"inputs": [{"word": "y", "d": 1.0}]})
    yield case("labels", split([ROW, [5, -5, 5]], ABC))
    yield case("proba", {"instances": [{"a": 1, "b": 2, "c": 3}, {"a": 0.5, "b": -2, "c": 3}]})
    yield case("wide", split([ROW, [5, -5, 5]], ABC))
    yield case("no_signature", split([ROW], ABC))
    yield case("no_signature", {"inputs": [ROW]})
    yield case("no_signature", {"inputs": {"a": [1]}})
    for body in (5, None, [1, None], ["a", 1], [], {"a": [1], "b": [2]}, [{"a": 1}], [[1, 2], [3]]):
        yield case("echo_none", {"inputs": body})
        yield case("echo_none", {"instances": body})
    for params in (
        None,
        {},
        {"temp": 1},
        {"temp": 0.9, "n": 2, "stop": ["a", "b"], "flag": True},
        {"n": 1.5},
        {"n": "1"},
        {"zz": 1},
        [1],
        {"stop": "x"},
        {"flag": 1},
    ):
        yield case("echo_params", {"inputs": [1.5], "params": params})
        yield case("echo_params_only", {"inputs": [1.5], "params": params})
    yield case("echo_params", {"inputs": [1.5]})
    yield case("echo_unnamed", split([[1.5, 2]]))
    yield case("echo_unnamed", split([[1.5, 2, 3]], ["p", "q", "r"]))
    yield case("echo_unnamed", {"inputs": [[1, 2]]})
    yield case("echo_unnamed", {"inputs": [1]})
    yield case("echo_unnamed", {"inputs": {"a": [1]}})
    yield case("people", {"inputs": [{"name": "Ann", "age": 4}, {"name": "Bo"}]})
    yield case("people", {"inputs": [{"age": 4}]})
    yield case("people", {"instances": [{"name": "Ann"}]})
    yield case("people", split([["Ann"]], ["name"]))
    yield case("shouts", {"inputs": ["a", "b"]})
    yield case("shouts", {"inputs": [1]})
    yield case("shouts", {"inputs": "a"})
    yield case("sums", {"inputs": [{"a": 1, "b": 2}]})
    yield case("sums", {"inputs": [{"a": "x"}]})
    for columns in ([0, 2], ["0", "2"], ["0", 1], None):
        for model in ("echo_integers", "echo_mixed_names"):
            yield case(model, split([[1.5, 2.0]], columns))
    for model in ("echo_integers", "echo_mixed_names"):
        yield case(model, {"dataframe_records": [{"0": 1.5, "2": 2.0, "1": 3.0}]})
        yield case(model, {"inputs": {"0": [1.5], "2": [2.0]}})
        yield case(model, {"instances": [{"0": 1.5, "1": 2.0}]})
    yield case("echo_list", {"inputs": ["a", "b"]})
    yield case("echo_list", {"instances": ["a", "b"]})
    yield case("echo_list", {"inputs": "a"})
    yield case("echo_list", {"inputs": []})
    yield case("echo_list", split([["a"], ["b"]]))
    yield case("echo_list", split([["a"], ["b"]], ["text"]))
    yield case("echo_list", {"inputs": {"text": ["a"]}})
    for value in range(6):
        yield case("fails", {"inputs": {"x": [value]}})
        yield case("fails", split([[value + 0.0]], ["x"]))
    for result in RESULT_NAMES:
        yield case("returns", {"inputs": [result]})


RESULT_NAMES = """
    series frame nullable full_nullable category dates labels bytes_frame numbers floats mixed texts
    no_texts dicts arrays tuple int float bool str bytes datetime dict_arrays dict_lists pydantic
    bytes_array text_array object_array date_array zero_d no_rows half int_keys none set complex
    generator unknown
""".split()


def all_cases() -> Iterator[Case]:
    for body in rows_of_three():
        yield case("linear", body)
        yield case("scaled", body)
    for body in envelopes():
        yield case("linear", body)
        yield case("echo_numbers", body)
    for content_type in CONTENT_TYPES:
        yield case("linear", split([ROW], ABC), content_type)
    yield from cells()
    for body in mixed():
        yield case("mixed", body)
    for body in tensors():
        yield case("tensors", body)
        yield case("echo_tensors", body)
    for body in unnamed():
        yield case("unnamed_tensor", body)
        yield case("echo_tensor", body)
    yield from nested()
    yield from texts()
    yield from agents()
    yield from others()


CASES = list(all_cases())

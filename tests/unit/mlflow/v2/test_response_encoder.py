"""Results of every type as V2 outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.types import ColSpec, Schema

from mlserver.codecs import PandasCodec
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest
from mlserver_mlflow.v2.declared_outputs import DeclaredOutputs
from mlserver_mlflow.v2.response_encoder import ResponseEncoder
from support.python_models import RESULTS
from unit.mlflow.conftest import MLflowModels

pytestmark = pytest.mark.filterwarnings("ignore")

Output = tuple[str, str, list[int], str | None, list[Any]]


def build_response(
    datatype: str,
    shape: list[int],
    content_type: str | None,
    data: list[Any],
    name: str = "output-1",
) -> list[Output]:
    return [(name, datatype, shape, content_type, data)]


# result -> content type of the response, outputs (name, datatype, shape, content type, data)
ENCODED: dict[str, tuple[str | None, list[Output]]] = {
    "series": ("pd", [("s", "FP64", [2, 1], None, [1.5, 2.5])]),
    "frame": (
        "pd",
        [
            ("n", "INT64", [2, 1], None, [1, 2]),
            ("t", "BYTES", [2, 1], "str", [b"a", b"b"]),
            ("o", "BYTES", [2, 1], "pd_json", [b"[1]", b'{"k":2}']),
        ],
    ),
    "nullable": (
        "pd",
        [
            ("i", "BYTES", [2, 1], "pd_json", [b"1", b"null"]),
            ("s", "BYTES", [2, 1], "pd_json", [b'"a"', b"null"]),
        ],
    ),
    "full_nullable": (
        "pd",
        [("i", "INT64", [2, 1], None, [1, 2]), ("b", "BOOL", [2, 1], None, [True, False])],
    ),
    "category": (
        "pd",
        [("c", "BYTES", [2, 1], "str", [b"u", b"v"]), ("n", "INT64", [2, 1], None, [1, 2])],
    ),
    "dates": (
        "pd",
        [
            ("t", "BYTES", [2, 1], "datetime", [b"2020-01-02T00:00:00", b"NaT"]),
            ("d", "BYTES", [2, 1], "datetime", [b"2020-01-02", b"2021-01-02"]),
        ],
    ),
    "labels": (
        "pd",
        [("0", "INT64", [2, 1], None, [1, 3]), ("1", "FP64", [2, 1], None, [2.5, 4.5])],
    ),
    "bytes_frame": ("pd", [("b", "BYTES", [2, 1], "base64", [b"aGk=", b"/w=="])]),
    "numbers": ("np", build_response("INT64", [3, 1], "np", [1, 2, 3])),
    "floats": ("np", build_response("FP64", [2, 1], "np", [1.5, None])),
    "mixed": (None, build_response("BYTES", [4, 1], "pd_json", [b"1", b'"a"', b"null", b"[2]"])),
    "texts": ("str", build_response("BYTES", [1, 1], "str", [b"foo"])),
    "no_texts": ("str", build_response("BYTES", [0, 1], "str", [])),
    "dicts": (None, build_response("BYTES", [2, 1], "pd_json", [b'{"a":1}', b'{"a":2}'])),
    "arrays": ("np", build_response("FP64", [2, 2], "np", [1.0, 2.0, 3.0, 4.0])),
    "tuple": ("np", build_response("FP64", [2, 1], "np", [1.5, 2.5])),
    "int": ("np", build_response("INT64", [1], "np", [7])),
    "float": ("np", build_response("FP64", [1], "np", [1.25])),
    "bool": ("np", build_response("BOOL", [1], "np", [True])),
    "str": ("str", build_response("BYTES", [1], "str", [b"hello"])),
    "bytes": (None, build_response("BYTES", [1], "base64", [b"AP8="])),
    "datetime": (None, build_response("BYTES", [1], "datetime", [b"2020-01-02T03:04:05"])),
    "dict_arrays": (
        "dict",
        [("p", "FP64", [2, 1], "np", [1.0, 2.0]), ("q", "INT64", [1, 2], "np", [1, 2])],
    ),
    "dict_lists": (
        None,
        [
            ("p", "INT64", [2, 1], "np", [1, 2]),
            ("q", "BYTES", [2, 1], "str", [b"a", b"b"]),
            ("r", "FP64", [1], "np", [1.5]),
            ("s", "BYTES", [1], "pd_json", [b"null"]),
            ("t", "BYTES", [1], "pd_json", [b'{"k":[1]}']),
        ],
    ),
    "pydantic": (None, [("name", "BYTES", [1], "str", [b"Ann"]), ("age", "INT64", [1], "np", [3])]),
    "bytes_array": ("np", build_response("BYTES", [2, 1], "np", [b"a", b"bc"])),
    "text_array": ("np", build_response("BYTES", [2, 1], "np", [b"a", b"bc"])),
    "object_array": (None, build_response("BYTES", [3, 1], "pd_json", [b'"a"', b"1", b"null"])),
    "date_array": (
        None,
        build_response(
            "BYTES",
            [2, 1],
            "datetime",
            [b"2020-01-02T00:00:00.000000000", b"2021-01-02T00:00:00.000000000"],
        ),
    ),
    "zero_d": ("np", build_response("FP64", [1], "np", [2.5])),
    "no_rows": ("np", build_response("FP64", [0, 2], "np", [])),
    "half": ("np", build_response("FP16", [1, 1], "np", [1.5])),
    "none": (None, build_response("BYTES", [1], "pd_json", [b"null"])),
    "big": (None, build_response("BYTES", [1, 1], "pd_json", [b"1180591620717411303424"])),
    "rounded": (None, build_response("BYTES", [2, 1], "pd_json", [b"9007199254740993", b"0.5"])),
    "signs": (None, build_response("BYTES", [2, 1], "pd_json", [b"9223372036854775808", b"-1"])),
    "unsigned": ("np", build_response("UINT64", [2, 1], "np", [2**63, 1])),
    "bool_int": (None, build_response("BYTES", [2, 1], "pd_json", [b"true", b"2"])),
    "bool_float": (None, build_response("BYTES", [2, 1], "pd_json", [b"true", b"0.5"])),
    "int_float": ("np", build_response("FP64", [2, 1], "np", [1.0, 0.5])),
    "objects_rounded": (
        None,
        build_response("BYTES", [2, 1], "pd_json", [b"9007199254740993", b"0.5"]),
    ),
    "object_frame": (
        "pd",
        build_response("BYTES", [2, 1], "pd_json", [b"9007199254740993", b"0.5"], "x"),
    ),
    "arrays_mixed": (
        None,
        build_response("BYTES", [2, 1], "pd_json", [b"[9007199254740993]", b"[0.5]"]),
    ),
    "masked_ints": (None, build_response("BYTES", [2, 1], "pd_json", [b"1", b"null"])),
    "masked_floats": ("np", build_response("FP64", [2, 1], "np", [1.5, None])),
    "masked_list": (None, build_response("BYTES", [1, 1], "pd_json", [b"[1,null]"])),
    "unmasked": ("np", build_response("INT64", [2, 1], "np", [1, 2])),
    "infinite_object": (
        None,
        build_response("BYTES", [2, 1], "pd_json", [b'{"a":"Infinity"}', b'["-Infinity",null]']),
    ),
    "arrow_narrow": ("pd", build_response("INT32", [2, 1], None, [1, 2], "x")),
    "scalar_big": (None, build_response("BYTES", [1], "pd_json", [b"1180591620717411303424"])),
    "int_keys": (None, [("1", "INT64", [1, 1], "np", [1]), ("2", "INT64", [1, 1], "np", [2])]),
}
NOT_ENCODABLE = {
    "set": "set",
    "complex": "complex128",
    "generator": "generator",
    "wide": "longdouble",
}


def asking_for(result: str) -> InferenceRequest:
    what = {"name": "what", "datatype": "BYTES", "shape": [1], "data": [result]}
    return InferenceRequest.model_validate({"inputs": [what]})


@pytest.mark.parametrize("result", ENCODED)
async def test_a_result_becomes_outputs(mlflow_models: MLflowModels, result: str) -> None:
    response = await (await mlflow_models("returns")).runtime.predict(asking_for(result))
    content_type, outputs = ENCODED[result]
    values = [
        (
            output.name,
            str(output.datatype),
            output.shape,
            output.parameters.content_type if output.parameters else None,
            output.data.root,
        )
        for output in response.outputs
    ]
    assert values == outputs
    assert (response.parameters.content_type if response.parameters else None) == content_type


@pytest.mark.parametrize("result", NOT_ENCODABLE)
async def test_what_has_no_form_in_v2_is_named(mlflow_models: MLflowModels, result: str) -> None:
    with pytest.raises(MLServerError, match=f"value of type .*{NOT_ENCODABLE[result]}") as caught:
        await (await mlflow_models("returns")).runtime.predict(asking_for(result))
    assert caught.value.status_code == 500


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1.5, None], dtype=object),
        pd.Series([1, None], dtype=object),
        pd.Series([None, None], dtype=object),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1.5, None], dtype="Float64"),
        pd.Series([1, 2], dtype="int32"),
    ],
    ids=str,
)
def test_a_declared_double_is_one_whatever_is_missing(values: Any) -> None:
    encoder = ResponseEncoder("m", "1", DeclaredOutputs(Schema([ColSpec("double", "x")])))
    (output,) = encoder.encode(pd.DataFrame({"x": values})).outputs
    assert (str(output.datatype), output.parameters) == ("FP64", None)
    assert output.data.root == [None if pd.isna(value) else float(value) for value in values]


@pytest.mark.parametrize(
    "result",
    [
        np.longdouble(0.5),
        [np.longdouble(0.5)],
        np.array([np.longdouble(0.5)]),
        pd.Series([np.longdouble(0.5)]),
        pd.DataFrame({"x": [np.longdouble(0.5)]}),
        {"x": np.longdouble(0.5)},
    ],
    ids=lambda result: type(result).__name__,
)
def test_a_long_double_that_fp64_holds_is_sent_as_fp64(result: Any) -> None:
    (output,) = ResponseEncoder("m", "1").encode(result).outputs
    assert (str(output.datatype), output.data.root) == ("FP64", [0.5])


@pytest.mark.parametrize("name", [0, "", "0"])
def test_a_falsy_name_of_the_signature_is_the_name_of_the_output(name: Any) -> None:
    declared = DeclaredOutputs(Schema([ColSpec("double", name), ColSpec("double", "y")]))
    assert declared.names == [str(name), "y"]
    single = DeclaredOutputs(Schema([ColSpec("double", name)]))
    (output,) = ResponseEncoder("m", "1", single).encode(np.array([0.5])).outputs
    assert output.name == str(name)


@pytest.mark.parametrize("result", ["cycle", "deep"])
async def test_a_value_without_an_end_is_named(mlflow_models: MLflowModels, result: str) -> None:
    with pytest.raises(
        MLServerError, match="a value that contains itself or is nested too deeply"
    ) as caught:
        await (await mlflow_models("returns")).runtime.predict(asking_for(result))
    assert caught.value.status_code == 500


def test_every_result_of_the_test_models_is_in_the_table() -> None:
    assert ENCODED.keys() | NOT_ENCODABLE.keys() | {"cycle", "deep"} == RESULTS.keys()


@pytest.mark.parametrize("result", ["frame", "nullable", "full_nullable", "labels", "bytes_frame"])
async def test_a_frame_is_read_back_by_the_pandas_codec(
    mlflow_models: MLflowModels, result: str
) -> None:
    response = await (await mlflow_models("returns")).runtime.predict(asking_for(result))
    frame = RESULTS[result]()
    actual = PandasCodec.decode_response(response)
    assert list(actual.columns) == [str(name) for name in frame.columns]
    assert actual.astype(object).where(actual.notna(), None).to_numpy().tolist() == (
        frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    )


async def test_a_single_output_carries_the_signatures_name(mlflow_models: MLflowModels) -> None:
    inputs = [
        {"name": name, "datatype": "FP64", "shape": [1], "data": [1]} for name in ("a", "b", "c")
    ]
    for model, expected in (("net", "quality"), ("linear", "output-1")):
        response = await (await mlflow_models(model)).runtime.predict(
            InferenceRequest.model_validate({"inputs": inputs})
        )
        assert [output.name for output in response.outputs] == [expected]

"""`decode_args`: type hints, inputs to arguments, results to outputs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, List, Optional, Tuple  # noqa: UP035

import numpy as np
import pandas as pd
import pytest

from mlserver import MLModel, ModelSettings
from mlserver.codecs import DatetimeCodec, NumpyCodec, PandasCodec, StringCodec, decode_args
from mlserver.codecs.errors import CodecError, CodecNotFound, InputsNotFound, OutputNotFound
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
)


async def answer(
    predict: Callable[..., Any], *inputs: RequestInput, **settings: Any
) -> InferenceResponse:
    """The response of a model with this `predict`."""
    model = MLModel(
        ModelSettings(name="m", implementation=MLModel, parameters={"version": "v1"}, **settings)
    )
    response: InferenceResponse = await decode_args(predict)(
        model, InferenceRequest(inputs=list(inputs))
    )
    return response


DEFAULT = ["default"]
ROWS = NumpyCodec.encode_input("rows", np.array([[1.0, 2.0]]))
WORDS = StringCodec.encode_input("words", ["a", "b"])
TIMES = DatetimeCodec.encode_input("times", [dt.datetime(2020, 1, 1)])


async def test_arguments_by_name() -> None:
    async def predict(
        self: MLModel,
        words: List[str],  # noqa: UP006
        rows: np.ndarray,
        times: list[dt.datetime],
    ) -> np.ndarray:
        assert words == ["a", "b"]
        assert times == [dt.datetime(2020, 1, 1)]
        return rows * 2

    response = await answer(predict, ROWS, TIMES, WORDS)
    assert (response.model_name, response.model_version, response.parameters) == ("m", "v1", None)
    assert [output.name for output in response.outputs] == ["output-0"]
    assert response.outputs[0].data.root == [2.0, 4.0]


async def test_a_function_that_is_not_async() -> None:
    def predict(self: MLModel, words: list[str]) -> list[str]:
        return words[::-1]

    model = MLModel(ModelSettings(name="m", implementation=MLModel))
    assert decode_args(predict)(model, InferenceRequest(inputs=[WORDS])).outputs[0].data.root == [
        b"b",
        b"a",
    ]


async def test_inputs_that_may_be_absent() -> None:
    async def predict(
        self: MLModel,
        rows: np.ndarray,
        words: list[str] | None = None,
        more: Optional[list[str]] = None,  # noqa: UP045
        other: list[str] | None = DEFAULT,
    ) -> list[str]:
        assert more is None
        assert other is DEFAULT
        return words or ["none"]

    assert (await answer(predict, ROWS)).outputs[0].data.root == [b"none"]
    assert (await answer(predict, ROWS, WORDS)).outputs[0].data.root == [b"a", b"b"]


async def test_absent_without_a_default_is_none() -> None:
    async def predict(self: MLModel, words: list[str] | None) -> None:
        assert words is None

    assert (await answer(predict)).outputs == []


async def test_all_other_inputs_become_the_frame() -> None:
    async def predict(self: MLModel, frame: pd.DataFrame, words: list[str]) -> pd.DataFrame:
        assert words == ["a", "b"]
        assert list(frame.columns) == ["frame", "y", "j"]
        assert frame["j"].tolist() == [[1], [2]]
        return frame[["y"]] + 1

    response = await answer(
        predict,
        NumpyCodec.encode_input("frame", np.array([1, 2])),
        WORDS,
        NumpyCodec.encode_input("y", np.array([3, 4])),
        RequestInput(name="j", shape=[2, 1], datatype="BYTES", data=["[1]", "[2]"]),
        inputs=[
            MetadataTensor(
                name="j",
                shape=[-1, 1],
                datatype="BYTES",
                parameters=Parameters(content_type="pd_json"),
            )
        ],
    )
    assert [(output.name, output.data.root) for output in response.outputs] == [("y", [4, 5])]


@pytest.mark.parametrize(
    "hint",
    [Tuple[np.ndarray, list[str]], tuple[np.ndarray, list[str] | None]],  # noqa: UP006
)
async def test_several_outputs(hint: Any) -> None:
    async def predict(self: MLModel, rows: np.ndarray) -> Any:
        return rows, ["x"]

    predict.__annotations__["return"] = hint
    outputs = (await answer(predict, ROWS)).outputs
    assert [(output.name, str(output.datatype)) for output in outputs] == [
        ("output-0", "FP64"),
        ("output-1", "BYTES"),
    ]


async def test_as_many_outputs_as_there_are_values() -> None:
    async def predict(self: MLModel, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return rows, rows, rows

    assert [output.name for output in (await answer(predict, ROWS)).outputs] == [
        "output-0",
        "output-1",
        "output-2",
    ]


async def test_an_output_that_is_none_is_left_out() -> None:
    async def predict(self: MLModel, rows: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
        return None, ["x"]

    assert [output.name for output in (await answer(predict, ROWS)).outputs] == ["output-1"]


async def test_a_result_of_another_type_than_the_hint() -> None:
    async def predict(self: MLModel, rows: np.ndarray) -> Any:
        return [1]

    for hint in (list[str], tuple[np.ndarray, np.ndarray], Any, None):
        predict.__annotations__["return"] = hint
        with pytest.raises(OutputNotFound, match="list"):
            await answer(predict, ROWS)


async def test_a_result_without_a_hint() -> None:
    async def predict(self, rows: np.ndarray):  # type: ignore[no-untyped-def]
        return rows

    with pytest.raises(OutputNotFound, match=r"output 0 of type numpy\.ndarray.*nothing") as caught:
        await answer(predict, ROWS)
    assert caught.value.status_code == 500  # the model's fault, not the client's


async def test_inputs_and_arguments_that_do_not_agree() -> None:
    async def predict(self: MLModel, words: list[str], rows: np.ndarray) -> None: ...

    with pytest.raises(
        InputsNotFound,
        match=r"unexpected 'times'; missing 'rows'\. Expected.*'words' \(list\[str\]\)",
    ) as raised:
        await answer(predict, WORDS, TIMES)
    assert raised.value.status_code == 400


async def test_an_input_that_cannot_be_decoded() -> None:
    async def predict(self: MLModel, words: list[str]) -> None: ...

    with pytest.raises(CodecError, match="tensor 'words'"):
        await answer(predict, NumpyCodec.encode_input("words", np.array([1])))


def test_a_hint_without_a_codec_is_refused_at_once() -> None:
    async def hinted(self: MLModel, number: int) -> None: ...

    async def bare(self, number) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(
        CodecNotFound, match="Codec not found for input field with name 'number' and type int"
    ):
        decode_args(hinted)
    with pytest.raises(CodecNotFound, match=r"'number'.*no type hint"):
        decode_args(bare)


async def test_the_request_of_a_whole_frame() -> None:
    async def predict(self: MLModel, frame: pd.DataFrame) -> list[str]:
        pd.testing.assert_frame_equal(frame, sent)
        return ["equal"]

    sent = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": pd.Categorical(["x", "y"])})
    assert (await answer(predict, *PandasCodec.encode_request(sent).inputs)).outputs[
        0
    ].data.root == [b"equal"]

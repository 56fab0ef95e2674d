"""Responses of models that cannot be encoded: an error with the reason over every protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from support.model_cache import build_by_script
from support.repository import tensor, write_model, write_settings
from support.server import Server
from support.slow import slow

ODD = """
import numpy as np

from mlserver import MLModel
from mlserver.custom_routes import custom_handler
from mlserver.types import InferenceResponse, Parameters, ResponseOutput
from starlette.responses import Response


def deep(levels=5000):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


VALUES = {
    "deep": deep(),
    "surrogate": "\\ud800",
    "long double": np.longdouble(1) / 3,
    "beyond 64 bits": 2**70,
}
HEADERS = {
    "line break": {"a\\nb": "x", "x-good": "y\\r\\nz: 1"},
    "no name": {"": "x"},
    "not ASCII": {"\\u2603": "x"},
    "length": {"content-length": "7"},
    "coding": {"Transfer-Encoding": "chunked"},
    "number": {"x-number": 7},
}


class Odd(MLModel):
    async def predict(self, payload):
        place, _, kind = payload.id.partition(": ")
        output = {"name": "y", "shape": [1], "datatype": "FP64", "data": [1.0]}
        answer = {}
        if place == "data":
            output |= {"datatype": "BYTES", "data": [VALUES[kind]]}
        elif place == "numbers":
            output |= {"data": [VALUES[kind]]}
        elif place == "parameter of an output":
            output |= {"parameters": Parameters(own=VALUES[kind])}
        elif place == "parameter":
            answer = {"parameters": Parameters(own=VALUES[kind])}
        elif place == "headers":
            answer = {"parameters": Parameters(headers=HEADERS[kind])}
        elif place == "name":
            output |= {"name": VALUES[kind]}
        elif place == "outputs":
            return InferenceResponse.model_construct(model_name=self.name, outputs=None)
        elif place == "nothing":
            return None
        return InferenceResponse(model_name=self.name, outputs=[ResponseOutput(**output)], **answer)

    async def predict_stream(self, payloads):
        async for payload in payloads:
            yield await self.predict(payload)

    @custom_handler("/deep")
    async def deep(self) -> list:
        return deep()

    @custom_handler("/headers/{kind}", "GET")
    async def headers(self, kind: str) -> Response:
        answer = Response(b"fine")
        names = {name: str(value) for name, value in HEADERS[kind].items() if name.isascii()}
        for name, value in names.items():
            answer.raw_headers.append((name.lower().encode(), value.encode()))
        return answer
"""

UNSENDABLE = [
    "data: deep",
    "data: surrogate",
    "numbers: deep",
    "parameter of an output: deep",
    "parameter of an output: surrogate",
    "parameter of an output: long double",
    "parameter: deep",
    "parameter: surrogate",
    "name: surrogate",
    "outputs: none",
    "nothing: at all",
]
HEADERS = ["line break", "no name", "not ASCII", "length", "coding", "number"]


@pytest.fixture(scope="module", params=[slow(0), 2])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("odd")
    write_model(folder / "odd", "Odd", source=ODD)
    with Server(folder, workers=request.param, tracebacks=True) as running:
        yield running
        assert running.infer("odd", [], id="fine: as ever").status_code == 200


def assert_models_fault(response: httpx.Response) -> None:
    assert response.status_code == 500
    text = response.json()["error"]
    assert "model" in text.lower()
    assert "Internal error" not in text


@pytest.mark.parametrize("case", UNSENDABLE)
@pytest.mark.parametrize(
    "more", [{}, {"parameters": {"binary_data_output": True}}], ids=["JSON", "binary"]
)
def test_over_rest(server: Server, case: str, more: dict[str, Any]) -> None:
    assert_models_fault(server.infer("odd", [], id=case, **more))


@pytest.mark.parametrize("case", UNSENDABLE)
def test_as_events(server: Server, case: str) -> None:
    answer = server.post("/v2/models/odd/infer_stream", {"id": case, "inputs": []})
    assert '"error"' in answer.text
    assert "model" in answer.text.lower()
    assert "Internal" not in answer.text


@pytest.mark.parametrize("case", UNSENDABLE)
def test_over_grpc(server: Server, case: str) -> None:
    message = b"\x0a\x03odd\x1a%c%s" % (len(case), case.encode())
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            infer(message, timeout=20)
    assert error.value.code() is grpc.StatusCode.INTERNAL
    assert "odel" in error.value.details()


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("path", ["infer", "handler"])
def test_headers_that_cannot_be_sent_are_left_out(server: Server, path: str, kind: str) -> None:
    answer = (
        server.infer("odd", [], id=f"headers: {kind}")
        if path == "infer"
        else server.get(f"/headers/{kind}")
    )
    assert answer.status_code == 200
    assert answer.content
    assert "a\nb" not in answer.headers
    assert "z" not in answer.headers


def test_return_values_of_custom_handlers(server: Server) -> None:
    assert server.post("/deep").status_code == 500


# -- MLflow models: like MLflow's server --

SAVE = """
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import pandas as pd
from support.models import save_function

HEAD = "\\n    def predict(self, context, model_input, params=None):\\n        "
ANSWERS = {
    "deep": "value = 1\\n        for _ in range(5000): value = [value]\\n        return value",
    "double": "import numpy as np\\n        return {'y': np.longdouble(1) / 3}",
    "thing": "return object()",
}
for name, body in ANSWERS.items():
    save_function(Path(sys.argv[1]) / name, HEAD + body + "\\n", pd.DataFrame({"x": [1.0]}), [1.0])
"""


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("odd-mlflow")
    saved = build_by_script("odd", SAVE)
    for name in ("deep", "double", "thing"):
        where = {
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": str(saved / name)},
        }
        write_settings(folder / name, name=name, **where)
    with Server(folder, tracebacks=True) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deep", "double", "thing"])
def test_mlflow_models(mlflow_server: Server, name: str) -> None:
    scored = mlflow_server.post(
        f"/v2/models/{name}/invocations", {"dataframe_records": [{"x": 1.0}]}
    )
    assert (scored.status_code, scored.json()["error_code"]) == (500, "INTERNAL_ERROR")
    assert "prediction" in scored.json()["message"]
    wrong = mlflow_server.post(f"/v2/models/{name}/invocations", b"[" * 100_000)
    assert wrong.status_code == 400
    answer = mlflow_server.infer(name, [tensor("x", [1.0], "FP64")])
    if name != "double":  # which V2 can represent
        assert answer.status_code == 500
        assert "Internal error" not in answer.text

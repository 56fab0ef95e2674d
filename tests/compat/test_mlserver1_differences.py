"""Deliberate differences to MLServer 1.7.1.

The rows of docs/how-to/migrating-from-mlserver-1.md, through a real server.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from support.models import WINE, Models
from support.repository import tensor, write_model, write_settings
from support.server import Serve

DECODES = """
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Decodes(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        decoded = [self.decode(one) for one in payload.inputs]
        output = StringCodec.encode_output("x", [repr(decoded)], False)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def test_base64_and_bytes(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "m", "Decodes", source=DECODES)
    server = serve(tmp_path, workers=1)

    def sent(data: Any, shape: list[int], kind: str) -> tuple[int, str]:
        response = server.infer(
            "m", [tensor("x", data, "BYTES", shape, parameters={"content_type": kind})]
        )
        body = response.json()
        return response.status_code, body["error"] if "error" in body else body["outputs"][0][
            "data"
        ][0]

    good = base64.b64encode(b"\xffhi").decode()
    assert sent([good], [1], "base64") == (200, repr([[b"\xffhi"]]))
    for text in ("hello!", "aGk", "a b c d"):
        status, error = sent([text], [1], "base64")
        assert (
            status,
            "tensor 'x' of content type base64: expected Base64 text" in error,
        ) == (400, True)
    assert sent(["hello"], [1], "str") == (200, repr([["hello"]]))
    for data in (["hello"], "hello"):
        status, error = sent(data, [5], "str")
        assert (status, "'x'" in error) == (400, True)


@pytest.fixture
def wine(models: Models, tmp_path: Path) -> Path:
    uri = {"uri": str(models["wine"])}
    write_settings(
        tmp_path / "wine", implementation="mlserver_mlflow.MLflowRuntime", parameters=uri
    )
    return tmp_path


@pytest.mark.slow
def test_paths_of_mlflow(serve: Serve, wine: Path) -> None:
    server = serve(wine, workers=1)
    assert [server.get(path).text for path in ("/ping", "/health")] == ["\n", "\n"]
    version = server.get("/version").text
    assert version.count(".") == 2
    assert '"' not in version
    body = '{"dataframe_records": []}'
    for kind in ("application/pdf", "text/plain"):
        assert server.post("/invocations", body, headers={"content-type": kind}).status_code == 415
    inputs = [tensor(name, [value], "FP64", [1, 1]) for name, value in WINE.items()]
    plain = server.infer("wine", inputs).json()["outputs"]
    (chosen,) = server.infer("wine", inputs, outputs=[{"name": "predict"}]).json()["outputs"]
    assert chosen["name"] == "predict"
    assert chosen["data"] == plain[0]["data"]
    refused = server.infer("wine", inputs, outputs=[{"name": "predict_proba"}])
    assert (refused.status_code, "predict" in refused.json()["error"]) == (400, True)

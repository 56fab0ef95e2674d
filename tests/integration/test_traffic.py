"""Versions of one model with a traffic split and a shadow version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from support.engines import ENGINES, enter_engine
from support.repository import tensor, write_model
from support.server import Server, fetch

SOURCE = """
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse


class Versioned(MLModel):
    async def predict(self, payload):
        answer = [StringCodec.encode_output("answer", ["new" if self.version == "3" else "old"])]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=answer)
"""
SPLIT = {"weights": {"1": 50, "2": 50}, "sticky_header": "x-user", "shadow": "3"}


@pytest.fixture(scope="module", params=ENGINES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("traffic")
    for version in ("1", "2", "3"):
        parameters: dict[str, Any] = {"version": version}
        if version == "1":
            parameters["extra"] = {"traffic": SPLIT}
        write_model(
            folder / f"m{version}", "Versioned", source=SOURCE, name="m", parameters=parameters
        )
    enter_engine(request)
    with Server(folder, workers=request.param) as running:
        yield running


def ask(server: Server, path: str = "/v2/models/m/infer", **headers: str) -> Any:
    body = {"inputs": [tensor("x", [1.0])]}
    return server.post(
        path, body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    ).json()


def test_versions_share_and_the_shadow_is_counted(server: Server) -> None:
    answers = [ask(server, x_user=str(number)) for number in range(60)]
    counts = Counter(answer["model_version"] for answer in answers)
    assert set(counts) == {"1", "2"}
    assert {answer["outputs"][0]["data"][0] for answer in answers} == {"old"}
    assert len({ask(server, x_user="ann")["model_version"] for _ in range(10)}) == 1
    assert ask(server, "/v2/models/m/versions/3/infer")["model_version"] == "3"
    counted = 'model_shadow_requests_total{model="m",outcome="different",version="3"}'
    while counted not in (page := fetch(f"{server.metrics_url}/metrics").text):
        ask(server)  # the shadow request runs after the response
    assert 'outcome="same"' not in page

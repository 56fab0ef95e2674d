"""Routes of agents: models of MLflow's agent classes, pickled or logged from code."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from mlserver.settings import ModelParameters, ModelSettings
from mlserver_mlflow import MLflowRuntime
from mlserver_mlflow.agents.routes import can_stream, get_agent_kind
from mlserver_mlflow.loading.pyfunc import load_model
from unit.mlflow.conftest import MLflowModels

pytestmark = pytest.mark.filterwarnings("ignore")

FROM_CODE = """
from mlflow.models import set_model
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentResponse, ResponsesAgentStreamEvent


class Repeats(ResponsesAgent):
    def predict(self, request):
        item = self.create_text_output_item(text=request.input[-1].content, id="1")
        return ResponsesAgentResponse(output=[item])

    def predict_stream(self, request):
        for word in request.input[-1].content.split():
            yield ResponsesAgentStreamEvent(**self.create_text_delta(delta=word, item_id="1"))


set_model(Repeats())
"""


async def test_an_agent_that_was_logged_from_code(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(FROM_CODE)
    mlflow.pyfunc.save_model(
        tmp_path / "m", python_model=str(tmp_path / "agent.py"), pip_requirements=["mlflow"]
    )
    parameters = ModelParameters(uri=str(tmp_path / "m"))
    runtime = MLflowRuntime(
        ModelSettings(name="m", implementation=MLflowRuntime, parameters=parameters)
    )
    await runtime.load()
    assert {"/responses", "/v1/models", "/agent/info"} <= {route.path for route in runtime.routes()}


@pytest.mark.parametrize(
    "name, kind, streaming",
    [
        ("chats", "chat_model", False),
        ("responds", "responses_agent", False),
        ("repeats", "responses_agent", True),
        ("spells", None, True),
        ("linear", None, False),
    ],
)
def test_kinds(mlflow_models: MLflowModels, name: str, kind: str | None, streaming: bool) -> None:
    model = load_model(str(mlflow_models.path(name)))
    assert (get_agent_kind(model), can_stream(model)) == (kind, streaming)

"""Which MLflow models are chat models or agents, whether they stream, and the HTTP paths that they answer."""

from __future__ import annotations

import json
from typing import Any

from mlflow.version import VERSION

from mlserver.custom_routes import Route

from ..loading.pyfunc import PyFuncModel, raw_model, wrapper_module

WIRE = "mlserver_mlflow.agents.openai_format"
# Module of the class that MLflow wraps a model with -> kind of model. The flavor's loader does not tell the kind of a model
# that was logged from code.
KINDS = {
    f"mlflow.pyfunc.loaders.{kind}": kind
    for kind in ("chat_model", "chat_agent", "responses_agent")
}


def kind_of(model: PyFuncModel) -> str | None:
    """What kind of chat model or agent a model is; None = it is neither."""
    return KINDS.get(wrapper_module(model))


def tells_trace(model: PyFuncModel) -> bool:
    """Whether callers may ask for the id of a request's trace: agents that MLflow's agent server serves."""
    return kind_of(model) == "responses_agent"


def streams(model: PyFuncModel) -> bool:
    """Whether a model has a `predict_stream` of its own. MLflow says so of every agent, for their base classes have one."""
    if not model.metadata.flavors["python_function"].get("streamable"):
        return False
    if kind_of(model) is None:
        return True
    method = getattr(type(raw_model(model)), "predict_stream", None)
    return not str(getattr(method, "__module__", "mlflow.")).startswith("mlflow.pyfunc.")


def routes(name: str, model: PyFuncModel, shown: dict[str, Any]) -> list[Route]:
    """The paths beside those of every MLflow model, `/invocations` with streams in place of the plain one; [] for others.

    Args:
        shown: What the config of `/invocations` holds for documents.
    """
    kind = kind_of(model)
    if kind is None:
        return []
    config: dict[str, Any] = {"kind": kind, "streams": streams(model)}
    fields = _fields(model)
    listed = {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "mlserver"}],
    }
    found = [
        Route(
            "/invocations",
            "POST",
            handler="invocations",
            wire=WIRE,
            config={**config, "form": "invocations", **shown},
        ),
        Route("/v1/models", "GET", static=json.dumps(listed), config={"joined": "data"}),
    ]
    if kind != "responses_agent":
        return [
            *found,
            Route(
                "/v1/chat/completions",
                "POST",
                wire=WIRE,
                config={**config, **fields, "form": "chat"},
            ),
        ]
    info = {"name": name, "use_case": "agent", "mlflow_version": VERSION, "agent_api": "responses"}
    paths = ("/responses", "/v1/responses")
    own = [
        Route(path, "POST", wire=WIRE, config={**config, **fields, "form": "responses"})
        for path in paths
    ]
    return [*found, *own, Route("/agent/info", "GET", static=json.dumps(info))]


def _fields(model: PyFuncModel) -> dict[str, list[str]]:
    """The fields of a body that the model's signature names, for the config of its routes; {} without a signature."""
    inputs, params = model.metadata.get_input_schema(), model.metadata.get_params_schema()
    if inputs is None or not inputs.has_input_names():
        return {}
    names = [str(name) for name in inputs.input_names()]
    return {"fields": names + ([spec.name for spec in params.params] if params is not None else [])}

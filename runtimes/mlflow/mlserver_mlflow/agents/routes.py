"""HTTP routes of chat models and agents, and detection of their kind."""

from __future__ import annotations

import json
from typing import Any

from mlflow.version import VERSION

from mlserver.custom_routes import Route

from ..loading.pyfunc import PyFuncModel, raw_model, wrapper_module
from ..v2.signature_inputs import input_labels

WIRE = "mlserver_mlflow.agents.openai_format"
# Module of MLflow's wrapper class -> kind of model. The loader module of a model that was logged
# from code does not show its kind.
KINDS = {
    f"mlflow.pyfunc.loaders.{kind}": kind
    for kind in ("chat_model", "chat_agent", "responses_agent")
}


def get_agent_kind(model: PyFuncModel) -> str | None:
    """Return the kind of a chat model or agent; None for other models."""
    return KINDS.get(wrapper_module(model))


def can_return_trace(model: PyFuncModel) -> bool:
    """Whether clients may request trace ids: agents that MLflow's agent server can serve."""
    return get_agent_kind(model) == "responses_agent"


def can_stream(model: PyFuncModel) -> bool:
    """Whether a model implements `predict_stream`; MLflow's base classes of agents do not count."""
    if not model.metadata.flavors["python_function"].get("streamable"):
        return False
    if get_agent_kind(model) is None:
        return True
    method = getattr(type(raw_model(model)), "predict_stream", None)
    return not str(getattr(method, "__module__", "mlflow.")).startswith("mlflow.pyfunc.")


def make_routes(name: str, model: PyFuncModel, examples: dict[str, Any]) -> list[Route]:
    """Return the routes of a chat model or agent, `/invocations` with streams included; else [].

    Args:
        examples: The examples for the OpenAPI document, part of the config of `/invocations`.
    """
    kind = get_agent_kind(model)
    if kind is None:
        return []
    config: dict[str, Any] = {"kind": kind, "streams": can_stream(model)}
    openai_config = {**config, **_get_fields(model)}
    invocations_config = {**config, "form": "invocations", **examples}
    entry = {"id": name, "object": "model", "created": 0, "owned_by": "mlserver"}
    models = json.dumps({"object": "list", "data": [entry]})
    routes = [
        Route("/invocations", "POST", handler="invocations", wire=WIRE, config=invocations_config),
        Route("/v1/models", "GET", static=models, config={"joined": "data"}),
    ]
    if kind != "responses_agent":
        chat_config = {**openai_config, "form": "chat"}
        return [*routes, Route("/v1/chat/completions", "POST", wire=WIRE, config=chat_config)]
    for path in ("/responses", "/v1/responses"):
        responses_config = {**openai_config, "form": "responses"}
        routes.append(Route(path, "POST", wire=WIRE, config=responses_config))
    info = {"name": name, "use_case": "agent", "mlflow_version": VERSION, "agent_api": "responses"}
    return [*routes, Route("/agent/info", "GET", static=json.dumps(info))]


def _get_fields(model: PyFuncModel) -> dict[str, list[str]]:
    """Return the body fields in the model's signature for a route's config; {} without names."""
    inputs, params = model.metadata.get_input_schema(), model.metadata.get_params_schema()
    if inputs is None or not inputs.has_input_names():
        return {}
    names = [str(label) for label in input_labels(inputs)]
    if params is not None:
        names += [spec.name for spec in params.params]
    return {"fields": names}

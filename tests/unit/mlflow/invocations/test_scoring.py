"""`/invocations` compared with MLflow's own scoring app: equal status, body and error code.

A body passes through `read_request`, the runtime's `predict`, and `write_response` or
`write_error`, without HTTP. `expected_of` names the intended differences.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver_mlflow import invocations
from mlserver_mlflow.invocations.scoring import IS_FLASK
from support.extra_flavor_models import MORE
from support.mlflow_payloads import CASES
from support.payload_forms import Case
from support.slow import slow
from unit.mlflow.conftest import MLFLOW, MLflowModels, Served

# MLflow warns about overflowing floats and other data; only responses are compared.
pytestmark = pytest.mark.filterwarnings("ignore")


# MLflow reads `instances` as it reads `inputs`: `make test` sends them to these models only.
WITH_INSTANCES = ("linear", "tensors", "unnamed_tensor")


def select(case: Case) -> Any:
    is_further = case.body.startswith(b'{"instances"') and case.model not in WITH_INSTANCES
    return slow(case, id=str(case)) if is_further else case


@pytest.mark.parametrize("case", list(map(select, CASES + MORE)), ids=str)
async def test_invocations_answers_as_mlflow_does(mlflow_models: MLflowModels, case: Case) -> None:
    served = await mlflow_models(case.model)
    expected = await expected_of(served, case)
    answer = await answer_of(served, case)
    if IS_FLASK and expected[0] == 500 and not is_text(case.body):
        # MLflow's Flask application fails to decode the body and responds with 500.
        assert answer[0] in (400, 415)
    else:
        assert answer == expected


async def answer_of(served: Served, case: Case) -> tuple[int, Any]:
    (route,) = (route for route in served.runtime.routes() if route.path == "/invocations")
    request = invocations.read_request(case.body, case.content_type, route.config)
    try:
        response = await served.runtime.predict(request)
        status, body, media_type = invocations.write_response(response, route.config)
    except MLServerError as error:
        status, body, media_type = invocations.write_error(error, route.config)
    assert media_type == "application/json"
    return status, body if status == 200 else comparable(json.loads(body))


async def expected_of(served: Served, case: Case) -> tuple[int, Any]:
    """MLflow's answer, without its stack trace; bare texts as the message of an error."""
    response = await served.oracle.post(
        "/invocations", content=case.body, headers={"content-type": case.content_type}
    )
    if response.status_code == 200:
        return 200, response.content
    if response.headers["content-type"].startswith("application/json"):
        return response.status_code, comparable(response.json())
    if response.status_code == 415:
        fields = (
            {"sqlstate": "KAM00", "error_class": "INVALID_PARAMETER_VALUE"}
            if MLFLOW >= (3, 12)
            else {}
        )
        return 415, {"error_code": "BAD_REQUEST", "message": response.text, **fields}
    return response.status_code, {"error_code": "INTERNAL_ERROR", "message": ...}


def is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def comparable(error: dict[str, Any]) -> dict[str, Any]:
    error.pop("stack_trace", None)
    if error["error_code"] == "INTERNAL_ERROR" and "cannot be written" in error["message"]:
        error["message"] = ...  # MLflow says "Internal Server Error" and no more
    return error

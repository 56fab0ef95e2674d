"""Every kind of exception at every method of a model.

The response has the reason, all processes survive.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import mlflow
import pytest
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.repository import tensor, write_model, write_settings
from support.server import Server

# Kind of exception -> what the reason must contain.
ENDS = {
    "panic": "Panic: no such luck",
    "generator-exit": "GeneratorExit",
    "stop": "StopIteration",
    "stop-async": "StopAsyncIteration",
    "exit": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt",
    "cancelled": "CancelledError",
    "unreadable": "Unreadable",
    "unreadable-panic": "UnreadablePanic",
    "group": "two at once",
    "surrogate": "ValueError: \\udcff",
    "huge": "ValueError: xxx",
    "odd-error": "Odd",
    "unsendable-error": "nsendable",
    "odd-status": "fine",
}
# These need a coroutine: they end the task or the thread that runs the code.
ASYNC_ENDS = {
    "task-exit": "SystemExit: 4",
    "task-generator-exit": "GeneratorExit",
    "thread-stop": "StopIteration",
    "thread-generator-exit": "GeneratorExit",
}

SOURCE = """
import asyncio

from mlserver.errors import MLServerError


class Panic(BaseException):
    pass


class Unreadable(Exception):
    def __str__(self):
        raise ValueError("unreadable")

    __repr__ = __str__


class UnreadablePanic(BaseException):
    def __str__(self):
        raise KeyboardInterrupt

    __repr__ = __str__


class Odd(MLServerError):
    def __init__(self):
        pass


class Unsendable(MLServerError):
    def __init__(self):
        super().__init__("unsendable")
        self.details = {"number": 2**70}


def _raise(error):
    raise error


def end(how):
    errors = {
        "panic": lambda: Panic("no such luck"),
        "generator-exit": GeneratorExit,
        "stop": StopIteration,
        "stop-async": StopAsyncIteration,
        "exit": lambda: SystemExit(3),
        "interrupt": KeyboardInterrupt,
        "cancelled": asyncio.CancelledError,
        "unreadable": Unreadable,
        "unreadable-panic": UnreadablePanic,
        "group": lambda: BaseExceptionGroup("two at once", [Panic("a"), ValueError("b")]),
        "surrogate": lambda: ValueError("\\udcff"),
        "huge": lambda: ValueError("x" * 5_000_000),
        "odd-error": Odd,
        "unsendable-error": Unsendable,
        "odd-status": lambda: MLServerError("fine", 200),
    }
    if how in errors:
        raise errors[how]()


async def end_async(how):
    async def leave(error):
        raise error

    if how == "task-exit":
        await asyncio.create_task(leave(SystemExit(4)))
    if how == "task-generator-exit":
        await asyncio.create_task(leave(GeneratorExit()))
    if how == "thread-stop":
        await asyncio.to_thread(_raise, StopIteration())
    if how == "thread-generator-exit":
        await asyncio.to_thread(_raise, GeneratorExit())
    end(how)
"""

# Raises in the method that its name contains.
ENDING = (
    SOURCE
    + """
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.custom_routes import custom_handler
from mlserver.types import InferenceResponse


class Ending(MLModel):
    def __init__(self, settings):
        super().__init__(settings)
        self.place, _, self.how = settings.name.partition(".")
        if self.place == "init":
            end(self.how)

    async def load(self):
        if self.place == "load":
            await end_async(self.how)
        return True

    async def metadata(self):
        if self.place == "metadata":
            await end_async(self.how)
        return await super().metadata()

    def routes(self):
        if self.place == "routes":
            end(self.how)
        return super().routes()

    async def unload(self):
        if self.place == "unload":
            await end_async(self.how)
        return True

    async def predict(self, payload):
        (how,) = StringCodec.decode_input(payload.inputs[0])
        await end_async(how)
        return self.answer(how)

    async def predict_stream(self, payloads):
        async for payload in payloads:
            how, when = StringCodec.decode_input(payload.inputs[0])
            if when == "late":
                yield self.answer("first")
            await end_async(how)
            yield self.answer("last")

    @custom_handler(rest_path="/ends/{how}", rest_method="GET")
    async def handle(self, how: str) -> str:
        await end_async(how)
        return how

    @custom_handler(rest_path="/ends-in-a-thread/{how}", rest_method="GET")
    def handle_in_a_thread(self, how: str) -> str:
        end(how)
        return how

    def answer(self, text):
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("y", [text])])
"""
)

ENDS_AT_IMPORT = (
    ENDING + "\nfrom pathlib import Path\nend(Path(__file__).parent.name.partition('.')[2])\n"
)

AGENT = (
    SOURCE
    + """
import mlflow
from mlflow.pyfunc import PythonModel


class Agent(PythonModel):
    def load_context(self, context):
        end((context.model_config or {}).get("ends"))

    def predict(self, context, model_input, params=None):
        end(model_input["how"].iloc[0])
        return ["well"]

    def predict_stream(self, context, model_input, params=None):
        yield "first"
        end(model_input["how"])  # of a stream's input MLflow hands over the first row
        yield "last"


mlflow.models.set_model(Agent())
"""
)

PLACES = ("import", "init", "load", "metadata", "routes")


def write_custom(folder: Path) -> None:
    write_model(folder / "ending", "Ending", source=ENDING)
    for place in PLACES:
        for how in {**ENDS, **(ASYNC_ENDS if place in ("load", "metadata") else {})}:
            source = ENDS_AT_IMPORT if place == "import" else ENDING
            write_model(folder / f"{place}.{how}", "Ending", source=source)
    for how in {**ENDS, **ASYNC_ENDS}:
        write_model(folder / f"unload.{how}", "Ending", source=ENDING)


def write_agents(folder: Path) -> None:
    code = folder / "agent.py"
    code.write_text(AGENT)
    model = folder / "mlflow-model"
    signature = ModelSignature(inputs=Schema([ColSpec("string", "how")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's advice about missing type hints
        mlflow.pyfunc.save_model(
            model,
            python_model=str(code),
            signature=signature,
            model_config={"ends": ""},
            pip_requirements=["mlflow"],
        )
    runtime: dict[str, Any] = {"implementation": "mlserver_mlflow.MLflowRuntime"}
    write_settings(folder / "well", name="well", parameters={"uri": str(model)}, **runtime)
    for how in ENDS:
        parameters = {"uri": str(model), "extra": {"model_config": {"ends": how}}}
        write_settings(folder / f"load.{how}", name=f"load.{how}", parameters=parameters, **runtime)


@pytest.fixture(scope="module", params=[0, 2], ids=["in-process", "two-workers"])
def custom(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("custom")
    write_custom(folder)
    yield from serve_some(folder, request.param)


@pytest.fixture(scope="module", params=[0, 2], ids=["in-process", "two-workers"])
def agents(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("agents")
    write_agents(folder)
    yield from serve_some(folder, request.param)


def serve_some(folder: Path, workers: int) -> Iterator[Server]:
    """A server with many models that fail to load; all its processes survive the tests."""
    env = {"MLSERVER_STRICT_READINESS": "false"}
    with Server(folder, workers=workers, env=env, tracebacks=True) as server:
        server.wait_for_line("Ready in ")
        before = server.list_processes()
        assert len(before) == workers + 1
        yield server
        assert server.list_processes() == before


def texts(*values: str) -> list[dict[str, Any]]:
    return [tensor("how", list(values), "BYTES", [len(values), 1] if len(values) == 1 else None)]


def grpc_request(model: str, *values: str) -> Any:
    contents = pb.InferTensorContents(bytes_contents=[value.encode() for value in values])
    shape = [len(values), 1] if len(values) == 1 else [len(values)]
    one = pb.ModelInferRequest.InferInputTensor(
        name="how", datatype="BYTES", shape=shape, contents=contents
    )
    return pb.ModelInferRequest(model_name=model, inputs=[one])


def status_of(how: str) -> int:
    """An `MLServerError` keeps the status code that the model gave it."""
    return 400 if how == "unsendable-error" else 500


def code_of(how: str) -> grpc.StatusCode:
    return (
        grpc.StatusCode.INVALID_ARGUMENT if how == "unsendable-error" else grpc.StatusCode.INTERNAL
    )


def assert_reason(text: str, how: str) -> None:
    assert {**ENDS, **ASYNC_ENDS}[how] in text
    assert len(text) < 6000


all_ends = pytest.mark.parametrize("how", [*ENDS, *ASYNC_ENDS])
sync_ends = pytest.mark.parametrize("how", [*ENDS])


def index(server: Server) -> dict[str, Any]:
    return {item["name"]: item for item in server.post("/v2/repository/index").json()}


# -- load: import, constructor and load() --


def test_failed_loads_have_their_reason(custom: Server) -> None:
    items = index(custom)
    for place in PLACES:
        for how in {**ENDS, **(ASYNC_ENDS if place in ("load", "metadata") else {})}:
            item = items[f"{place}.{how}"]
            assert item["state"] == "UNAVAILABLE", item
            assert_reason(item["reason"], how)
    assert items["ending"]["state"] == "READY"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["panic", "exit", "unreadable-panic"])
def test_a_load_requested_over_the_api(custom: Server, place: str, how: str) -> None:
    answer = custom.post(f"/v2/repository/models/{place}.{how}/load")
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)


def test_loads_of_mlflow_models(agents: Server) -> None:
    items = index(agents)
    for how in ENDS:
        assert items[f"load.{how}"]["state"] == "UNAVAILABLE"
        assert_reason(items[f"load.{how}"]["reason"], how)
    assert items["well"]["state"] == "READY"


# -- predict --


@all_ends
def test_predict_over_rest(custom: Server, how: str) -> None:
    answer = custom.infer("ending", texts(how))
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)
    assert custom.infer("ending", texts("well")).status_code == 200


@all_ends
def test_predict_over_grpc(custom: Server, how: str) -> None:
    with (
        grpc.insecure_channel(f"127.0.0.1:{custom.grpc_port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        GRPCInferenceServiceStub(channel).ModelInfer(grpc_request("ending", how), timeout=30)
    assert caught.value.code() is code_of(how)
    assert_reason(caught.value.details(), how)


@sync_ends
def test_predict_of_mlflow_models(agents: Server, how: str) -> None:
    answer = agents.infer("well", texts(how))
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)
    assert agents.post("/invocations", {"inputs": {"how": [how]}}).status_code in (400, 500)
    assert agents.infer("well", texts("well")).status_code == 200


# -- streams --


def stream_over_rest(server: Server, model: str, inputs: Any) -> list[dict[str, Any]]:
    """The events of a stream; an error before the first one is the whole response."""
    with server.client.stream(
        "POST", f"/v2/models/{model}/infer_stream", json={"inputs": inputs}
    ) as answer:
        if answer.status_code != 200:
            return [json.loads(answer.read())]
        return [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")]


@pytest.mark.parametrize("when", ["early", "late"])
@all_ends
def test_streams_over_rest(custom: Server, how: str, when: str) -> None:
    events = stream_over_rest(custom, "ending", texts(how, when))
    assert [bool(event.get("outputs")) for event in events] == (
        [True, False] if when == "late" else [False]
    )
    assert_reason(events[-1]["error"], how)


@pytest.mark.parametrize("when", ["early", "late"])
@all_ends
def test_streams_over_grpc(custom: Server, how: str, when: str) -> None:
    seen = []
    with grpc.insecure_channel(f"127.0.0.1:{custom.grpc_port}") as channel:
        requests = iter([grpc_request("ending", how, when)])
        answers = GRPCInferenceServiceStub(channel).ModelStreamInfer(requests, timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            seen.extend(iter(answers))
    assert len(seen) == (when == "late")
    assert caught.value.code() is code_of(how)
    assert_reason(caught.value.details(), how)


@sync_ends
def test_streams_of_mlflow_models(agents: Server, how: str) -> None:
    events = stream_over_rest(agents, "well", texts(how))
    assert events[0]["outputs"][0]["data"] == ["first"]
    assert_reason(events[-1]["error"], how)


# -- routes and unload --


@pytest.mark.parametrize("path", ["ends", "ends-in-a-thread"])
@all_ends
def test_custom_routes(custom: Server, how: str, path: str) -> None:
    if path == "ends-in-a-thread" and how in ASYNC_ENDS:
        pytest.skip("a plain function has no task")
    answer = custom.get(f"/v2/models/ending/{path}/{how}")
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)


@all_ends
def test_unload(custom: Server, how: str) -> None:
    name = f"unload.{how}"
    assert index(custom)[name]["state"] == "READY"
    answer = custom.post(f"/v2/repository/models/{name}/unload")
    assert answer.status_code == status_of(how)
    assert_reason(answer.json()["error"], how)
    assert custom.infer(name, texts("well")).status_code == 404
    assert index(custom)[name]["state"] != "READY"
    assert custom.post(f"/v2/repository/models/{name}/load").status_code == 200

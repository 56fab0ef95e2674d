"""Models whose methods end with every kind of exception."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema

from support.repository import write_model, write_settings

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
        output = StringCodec.encode_output("y", [text])
        return InferenceResponse(model_name=self.name, outputs=[output])
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

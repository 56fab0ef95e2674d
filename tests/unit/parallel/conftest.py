"""Models that run in the executors under test, imported from a folder as users' models are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlserver.settings import ModelParameters, ModelSettings
from mlserver.types import InferenceRequest, RequestInput, TensorData

MODELS = '''
"""Small models for the tests of execution."""

import asyncio
import os
import sys
import threading
import time

import mlserver
from mlserver import MLModel
from mlserver.custom_routes import custom_handler
from mlserver.types import InferenceResponse, ResponseOutput


left = []


class Does(MLModel):
    """Does what its one text says."""

    async def load(self):
        parameters = self.settings.parameters
        how = (parameters.extra or {}).get("load") if parameters else None
        if how == "raise":
            raise ValueError("no weights")
        if how == "raise-while" and os.path.exists(parameters.extra["file"]):
            raise ValueError("not yet")
        if how == "exit" or how == "exit-while" and os.path.exists(parameters.extra["file"]):
            os._exit(3)
        if how == "exit-once" and os.path.exists(parameters.extra["file"]):
            os.unlink(parameters.extra["file"])
            os._exit(3)
        if how == "refuse":
            return False
        if how == "hang-in-a-fork" and "mlserver-worker" in open("/proc/self/comm").read():
            threading.Event().wait()
        if how in ("block", "refuse-cancellation"):
            await self._load_slowly(how, parameters.extra["file"])
        return True

    async def _load_slowly(self, how, file):
        """Load until the file exists: without an await, or in spite of cancellations."""
        open(file + ".loading", "w").close()
        while how == "block" and not os.path.exists(file):
            time.sleep(0.01)
        while not os.path.exists(file):
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    async def unload(self):
        file = ((self.settings.parameters and self.settings.parameters.extra) or {}).get("file")
        if file is not None:
            open(file + ".unloaded", "w").close()
        return True

    async def predict(self, payload):
        action, _, argument = payload.inputs[0].data[0].partition(":")
        return self._answer(await getattr(self, "do_" + action)(argument))

    def _answer(self, text):
        output = ResponseOutput(name="y", shape=[1], datatype="BYTES", data=[str(text)])
        return InferenceResponse(model_name=self.name, outputs=[output])

    async def predict_stream(self, payloads):
        async for payload in payloads:
            text = payload.inputs[0].data[0]
            if text == "raise":
                raise ValueError("bad item")
            if text == "leave":
                os._exit(0)
            if text.startswith("block:"):
                open(text.removeprefix("block:"), "w").close()
                time.sleep(1e6)
            if text == "linger":
                yield self._answer(text)
                await self._linger()
            yield self._answer(text)
            yield self._answer(text)

    async def _linger(self):
        """Never answers, and takes its time to clean up when its caller leaves."""
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(100):
                await asyncio.sleep(0)
            left.append(True)

    async def do_left(self, argument):
        return len(left)

    async def do_echo(self, argument):
        return argument

    async def do_pid(self, argument):
        return os.getpid()

    async def do_thread(self, argument):
        return threading.current_thread().name

    async def do_raise(self, argument):
        raise ValueError(argument)

    async def do_leave(self, argument):
        os._exit(0)

    async def do_log(self, argument):
        mlserver.log(from_the_loop=float(argument))
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        await asyncio.to_thread(mlserver.log, from_a_thread=float(argument))
        return argument

    async def do_block(self, argument):
        time.sleep(float(argument))

    async def do_wait(self, argument):
        await asyncio.Event().wait()

    async def do_modules(self, argument):
        return " ".join(name for name in argument.split(",") if name in sys.modules)

    @custom_handler(rest_path="/twice")
    async def twice(self, value: int) -> int:
        return 2 * value


class RowWise(Does):
    row_wise = True


class Plain(Does):
    def predict(self, payload):
        """Return when the file that the text names is gone."""
        while os.path.exists(payload.inputs[0].data[0]):
            time.sleep(0.01)
        return self._answer("gone")
'''


@pytest.fixture(autouse=True)
def models_folder(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "models_of_execution.py").write_text(MODELS)
    sys.path.insert(0, str(tmp_path))
    yield
    sys.path.remove(str(tmp_path))
    sys.modules.pop("models_of_execution", None)


def model_settings(kind: str = "Does", **extra: Any) -> ModelSettings:
    parameters = ModelParameters(extra=extra) if extra else None
    return ModelSettings(
        name="m", implementation=f"models_of_execution.{kind}", parameters=parameters
    )


def request(text: str) -> InferenceRequest:
    return InferenceRequest(
        inputs=[RequestInput(name="x", shape=[1], datatype="BYTES", data=TensorData([text]))]
    )

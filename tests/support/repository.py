"""Model repositories for tests: settings files, and small models in plain Python."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

# Returns every input unchanged.
ECHO = """
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Echo(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput(name=one.name, shape=one.shape, datatype=one.datatype, data=one.data)
            for one in payload.inputs
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
"""

# Decodes its inputs with NumPy and returns their sum.
SUM = """
import numpy as np

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Sum(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        total = sum(self.decode(one, default_codec=NumpyCodec).sum() for one in payload.inputs)
        output = NumpyCodec.encode_output("total", np.array([float(total)]))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
"""

# Raises in `load`.
BROKEN = """
from mlserver import MLModel


class Broken(MLModel):
    async def load(self) -> bool:
        raise RuntimeError("the weights are missing")
"""

SOURCES = {"Echo": ECHO, "Sum": SUM, "Broken": BROKEN}


def write_settings(folder: Path, **settings: Any) -> Path:
    """Write `model-settings.json` into `folder`, created if missing. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=2))
    return folder


def write_server_settings(folder: Path, **settings: Any) -> Path:
    """Write `settings.json` into `folder`, created if missing. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings, indent=2))
    return folder


def write_model(
    folder: Path, kind: str = "Echo", *, source: str | None = None, **settings: Any
) -> Path:
    """Write a model of one class with its settings.

    Args:
        folder: Where; its name becomes the model's unless `settings` name it.
        kind: The class: one of `SOURCES`, or one that `source` defines.
        source: Python text of the module.
        settings: Further fields of `model-settings.json`.
    """
    module = f"{kind.lower()}_model"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(textwrap.dedent(source or SOURCES[kind]))
    return write_settings(
        folder, **{"name": folder.name, "implementation": f"{module}.{kind}"} | settings
    )


def tensor(
    name: str, data: Any, datatype: str = "FP32", shape: list[int] | None = None, **more: Any
) -> dict[str, Any]:
    """A V2 input; the default shape is the data's length."""
    return {
        "name": name,
        "shape": [len(data)] if shape is None else shape,
        "datatype": datatype,
        "data": data,
    } | more

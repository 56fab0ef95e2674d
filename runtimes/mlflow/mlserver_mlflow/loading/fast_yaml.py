"""The C loader of YAML for `MLmodel` files, which MLflow reads three times per load.

It saves 4 of 38 ms of processor time per model of scikit-learn
(`python -m benchmarks.load_steps`). Without libyaml, and for text that it refuses, MLflow calls
`yaml.safe_load` as before.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

_yaml: Any = importlib.import_module("yaml")


class FastYAML:
    """The module `yaml` with another `safe_load`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_yaml, name)

    @staticmethod
    def safe_load(stream: Any) -> Any:
        """Return the document of a text or file, with the types of `yaml.safe_load`."""
        text = stream.read() if hasattr(stream, "read") else stream
        try:
            return _yaml.load(text, Loader=_yaml.CSafeLoader)
        except _yaml.YAMLError:
            return _yaml.safe_load(text)


def install(module: ModuleType) -> None:
    """Replace `yaml` in a module that imported it, if the C loader exists."""
    if hasattr(_yaml, "CSafeLoader") and getattr(module, "yaml", None) is _yaml:
        vars(module)["yaml"] = FastYAML()

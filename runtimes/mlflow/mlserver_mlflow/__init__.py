"""MLServer's runtime for MLflow models: V2 inference and MLflow's own scoring protocol.

`model-settings.json` names `mlserver_mlflow.MLflowRuntime`. The class is imported on first use: the
server's front end imports this package for the wire format `mlserver_mlflow.invocations`, which
loads neither MLflow nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime import MLflowRuntime

__version__ = "2.0.0.dev0"
__all__ = ["MLflowRuntime", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "MLflowRuntime":
        from .runtime import MLflowRuntime

        return MLflowRuntime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

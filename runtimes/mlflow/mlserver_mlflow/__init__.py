"""The MLflow runtime of MLServer: serves any MLflow model over V2 and over MLflow's own scoring protocol.

`MLflowRuntime` is what `model-settings.json` names. It is loaded on first use: importing this package, or its wire format
`mlserver_mlflow.invocations`, loads neither MLflow nor pandas, because the server's front end does so too.
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

"""Hooks for the server's process (`mlserver.runtime_hooks`), without MLflow and pandas."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlserver.runtime_hooks import EnvironmentFiles, RuntimeHooks

from .extra_settings import EXTRA_SETTINGS

if TYPE_CHECKING:
    from mlserver.isolation import ShippedCode
    from mlserver.settings import ModelSettings

# Packages that `mlflow` requires and `mlflow-skinny` does not.
_FULL_MLFLOW = frozenset(
    "alembic docker flask graphene matplotlib mlflow numpy pandas pyarrow scikit-learn scipy skops"
    " sqlalchemy".split()
)
# Keys of a body in MLflow's scoring protocol, beside `inputs`.
_SCORING_KEYS = ("dataframe_split", "dataframe_records", "instances")


class MLflowHooks(RuntimeHooks):
    """Properties of MLflow models, read from their settings and files."""

    implementations = ("mlserver_mlflow.MLflowRuntime", "mlserver_mlflow.runtime.MLflowRuntime")
    extra_keys = tuple(setting.name for setting in EXTRA_SETTINGS)
    makes_trials = True
    variables = ("MLFLOW_",)
    compared_packages = ("mlserver-mlflow", "mlflow", "mlflow-skinny", "scikit-learn")
    # `make test-floors` runs a worker with the lowest of these versions.
    worker_requirements = ("pandas>=1.5.3", "mlflow-skinny>=2.15,<4")
    path_hints = MappingProxyType(
        {
            r"/(invocations|ping|version)": (
                "MLflow models have this path, and no such model is loaded"
            ),
            r"/v2/models/[^/]+(/versions/[^/]+)?/(invocations|ping|version)": (
                "only MLflow models have this path"
            ),
            # The client of `mlflow.deployments`, for MLflow's gateway and for Databricks.
            r"/(serving-)?endpoints/(?P<name>[^/]+)/invocations": (
                "MLflow models have it at /v2/models/{name}/invocations"
            ),
        }
    )
    inference_hint = "POST /invocations with MLflow's body for MLflow models"

    def get_body_hint(self, document: Mapping[str, Any]) -> str:
        key = next((key for key in _SCORING_KEYS if key in document), None)
        if key is not None:
            return f"; a body with '{key}' is MLflow's: MLflow models accept it at /invocations"
        inputs = document.get("inputs")
        if inputs is None:
            return ""
        tensors = inputs if isinstance(inputs, list) else []
        if any(isinstance(tensor, dict) and "name" in tensor for tensor in tensors):
            return ""
        return "; if 'inputs' has MLflow's format, MLflow models accept it at /invocations"

    def is_mutable_address(self, uri: str) -> bool:
        return uri.startswith("models:/")

    def find_shipped_code(self, settings: ModelSettings) -> ShippedCode | None:
        from .loading import shipped_code

        return shipped_code.find_for_settings(settings)

    def list_imports(self, settings: ModelSettings) -> list[str]:
        from .loading import flavor_imports

        return flavor_imports.list_for_settings(settings)

    def list_template_imports(self, settings: ModelSettings) -> list[str]:
        from .loading import template_imports

        return template_imports.list_for_settings(settings)

    def read_environment(self, settings: ModelSettings) -> EnvironmentFiles:
        from .loading import environment_spec

        return environment_spec.read_spec(settings)

    def install_command(self, package: str) -> str | None:
        return "pip install 'mlserver-mlflow[full]'" if package in _FULL_MLFLOW else None

"""The runtime imports only names of the oldest supported MLflow (see `make test-floors`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "runtimes" / "mlflow" / "mlserver_mlflow"
# Names of MLflow 2.15.1. Newer names are read with `getattr` and a default.
OF_THE_OLDEST = {
    "mlflow": {"MlflowClient", "pyfunc"},
    "mlflow.artifacts": {"download_artifacts"},
    "mlflow.exceptions": {"MlflowException"},
    "mlflow.models": {"infer_signature", "model"},
    "mlflow.models.utils": {"_enforce_type"},
    "mlflow.pyfunc": {"PyFuncModel", "load_model", "scoring_server"},
    "mlflow.store.artifact.artifact_repository_registry": {"get_artifact_repository"},
    "mlflow.tracking": {"is_tracking_uri_set"},
    "mlflow.types": {"DataType", "schema"},
    "mlflow.types.schema": {
        "Array",
        "ColSpec",
        "Map",
        "Object",
        "ParamSchema",
        "Schema",
        "TensorSpec",
    },
    "mlflow.version": {"VERSION"},
}
# Names that MLflow's scoring server has in all releases from 2.15 on.
SCORING_SERVER = {
    "CONTENT_TYPES",
    "CONTENT_TYPE_CSV",
    "CONTENT_TYPE_JSON",
    "invocations",
    "predictions_to_json",
    "unwrapped_predictions_to_json",
}


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mlflow":
            yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize(
    "file", sorted(FOLDER.rglob("*.py")), ids=lambda file: str(file.relative_to(FOLDER))
)
def test_names_are_those_of_the_oldest_release(file: Path) -> None:
    tree = ast.parse(file.read_text())
    for module, name in imported(tree):
        assert name in OF_THE_OLDEST.get(module, set()), (
            f"{module}.{name}: MLflow 2.15 may lack it; use getattr"
        )
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "scoring_server"
        ):
            assert node.attr in SCORING_SERVER, (
                f"line {node.lineno}: MLflow 2.15 may lack it; use getattr"
            )

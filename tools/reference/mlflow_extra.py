"""Settings of the MLflow runtime, from its table."""

from __future__ import annotations

from mlserver_mlflow.extra_settings import EXTRA_SETTINGS

from .markdown import code, start_page, table


def page() -> str:
    lines = start_page(
        "The MLflow runtime's `extra`",
        "`mlserver_mlflow.extra_settings`",
        "Keys of `parameters.extra` in the `model-settings.json` of an MLflow model. "
        '`"implementation": "mlserver_mlflow.MLflowRuntime"` selects the runtime; a folder with an '
        "`MLmodel` file needs no settings file.",
    )
    rows = [
        (code(entry.name), entry.type, code(entry.default), entry.description)
        for entry in EXTRA_SETTINGS
    ]
    lines += table(("key", "type", "default", "meaning"), rows)
    return "\n".join(lines).rstrip() + "\n"

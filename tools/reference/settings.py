"""Settings of the server and of models, from the classes."""

from __future__ import annotations

import re

from mlserver.settings.reference import FILES, list_settings, render_markdown
from mlserver.version import __version__

from .markdown import start_page

INTRODUCTIONS = {
    "settings.json": (
        "Settings of the server, in `settings.json` in the folder of `mlserver start`. Each is "
        "also "
        "an environment variable: `MLSERVER_` and the name in capitals, such as "
        "`MLSERVER_PARALLEL_WORKERS=2`; objects and lists are JSON."
    ),
    "model-settings.json": (
        "Settings of one version of a model, in `model-settings.json` in the model's folder. "
        "Variables begin with `MLSERVER_MODEL_`. The keys of `parameters.extra` belong to the "
        "runtime; those of MLflow models are on [a page of their own](mlflow-extra.md)."
    ),
}


def page() -> str:
    lines = start_page(
        "Settings",
        "the classes of `mlserver.settings`",
        "The first source that has a value wins: options of `mlserver start`, the file, "
        "environment "
        "variables, `.env` in the current folder, the default. `mlserver settings --show FOLDER` "
        "prints the values in effect with their source, and "
        '`mlserver settings --json-schema` the JSON schema for an editor (`"$schema"` in the '
        "file).",
    )
    for name, cls in FILES.items():
        table = render_markdown(list_settings(cls)).replace(f'"{__version__}"', "version")
        # A name in angle brackets, such as <module>, would be an HTML tag.
        table = re.sub(r"<(\w+)>", r"\\<\1>", table)
        lines += [f"## {name}", "", INTRODUCTIONS[name], "", table]
    return "\n".join(lines).rstrip() + "\n"

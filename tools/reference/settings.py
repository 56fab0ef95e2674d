"""Settings of the server and of models, from the classes."""

from __future__ import annotations

import re

from mlserver.settings.reference import FILES, SettingReference, list_settings
from mlserver.version import __version__

from .markdown import code, start_page, table

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
        "`mlserver settings --json-schema` the JSON schema for an editor "
        '(`"$schema"` in the file).',
    )
    for name, cls in FILES.items():
        rows = [_row(setting) for setting in list_settings(cls)]
        lines += [f"## {name}", "", INTRODUCTIONS[name], ""]
        lines += table(("setting", "meaning"), rows)
    return "\n".join(lines).rstrip() + "\n"


def _row(setting: SettingReference) -> tuple[str, str]:
    """Return name and description; type, unit and default are a second line in the same cell."""
    # A name in angle brackets, such as <module>, would be an HTML tag.
    description = re.sub(r"<(\w+)>", r"\\<\1>", setting.description)
    default = setting.default.replace(f'"{__version__}"', "the package's version")
    facts = [setting.type]
    if setting.unit:
        facts.append(setting.unit)
    facts.append(f"default {code(default)}" if default else "required")
    return code(setting.name), f"{description}<br><small>{', '.join(facts)}</small>"

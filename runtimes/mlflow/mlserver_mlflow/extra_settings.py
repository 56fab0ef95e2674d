"""Keys of `parameters.extra` that MLflow models have, for documentation."""

from __future__ import annotations

from typing import NamedTuple


class ExtraSetting(NamedTuple):
    """One key.

    Attributes:
        type: Type of the value, in words.
        default: Default as JSON; empty = unset.
    """

    name: str
    type: str
    default: str
    description: str


EXTRA_SETTINGS = (
    ExtraSetting(
        "base64_inputs",
        "true or false",
        "false",
        "Read base64 for binary columns in all forms of `/invocations`. MLflow does so in "
        "`dataframe_split` and `dataframe_records` only.",
    ),
    ExtraSetting(
        "cache_dir",
        "path of a folder",
        "",
        "Folder for downloaded models. Default: the variable `MLSERVER_MLFLOW_CACHE`, else "
        "`mlserver/models` in the user's cache.",
    ),
    ExtraSetting(
        "env_manager",
        '`"local"`, `"uv"` or `"virtualenv"`',
        '"local"',
        "`uv` and `virtualenv` build an environment from the model's requirements and run the "
        "model "
        "in it; `local` uses the server's environment.",
    ),
    ExtraSetting(
        "follow",
        "number of seconds",
        "",
        "Interval at which the registry is polled for the version of the alias in `uri`; a new "
        "version is loaded, tested with its input example, and replaces the old one.",
    ),
    ExtraSetting(
        "model_config",
        "object",
        "",
        "The model's `model_config` (`mlflow.models.ModelConfig`). Default: the content of the "
        "variable `SERVING_MODEL_CONFIG`.",
    ),
    ExtraSetting(
        "traffic",
        "object",
        "",
        "Traffic split among the model's versions: `weights` (version to weight), `sticky_header` "
        "(header whose equal values get the same version) and `shadow` (a version that receives "
        "copies). One version's settings have it.",
    ),
)

"""JSON schemas of `settings.json` and `model-settings.json`, for completion in editors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from .descriptions import read_descriptions
from .fields import CORSSettings, ModelParameters
from .payload_log import PayloadLogSettings
from .reference import format_default
from .security import AuthSettings, JWTSettings, TLSSettings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCHEMA_KEY = {"type": "string", "description": "Path or URL of this schema, for editors; ignored."}
# Keys that begin with these characters are ignored: comments.
_COMMENTS: dict[str, Any] = {"^[_$]": {}}
_GROUPS: tuple[type[BaseModel], ...] = (
    CORSSettings,
    TLSSettings,
    AuthSettings,
    JWTSettings,
    PayloadLogSettings,
    ModelParameters,
)
_LOG_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")


def make_schema(cls: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a settings file, with the descriptions of all settings."""
    schema = cls.model_json_schema(by_alias=True)
    _describe(schema, cls)
    definitions = schema.get("$defs", {})
    for group in _GROUPS:
        if group.__name__ in definitions:
            _describe(definitions[group.__name__], group)
    properties = {"$schema": _SCHEMA_KEY, **schema.pop("properties")}
    return {"$schema": DIALECT, **schema, "properties": properties}


def _describe(schema: dict[str, Any], cls: type[BaseModel]) -> None:
    """Add the descriptions to an object's schema, and refuse unknown keys, except for comments."""
    descriptions = read_descriptions(cls)
    for field_name, field in cls.model_fields.items():
        setting = schema["properties"][field.alias or field_name]
        setting.pop("title", None)
        setting["description"] = descriptions[field_name]
        has_default = isinstance(setting.get("default"), str)
        if has_default and format_default(setting["default"]).startswith('"./'):
            del setting["default"]  # a path of this machine
    if "log_level" in schema["properties"]:
        schema["properties"]["log_level"]["enum"] = [*_LOG_LEVELS, None]
    schema["description"] = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    if cls is not ModelParameters:
        schema["patternProperties"] = _COMMENTS
        schema["additionalProperties"] = False

"""Reference of all settings: name, type, default, unit, variable and description, from the classes.

One source of truth: the field and the string below it. The unit of a number is one of `UNITS` among
the first words of its description ("Seconds that ...").
"""

from __future__ import annotations

import json
import os
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings as PydanticBaseSettings

from .descriptions import read_descriptions
from .fields import DEFAULT_ENVIRONMENTS_DIR, ModelSettings, Settings
from .sources import get_public_name, get_variable_name

UNITS = (
    "seconds",
    "bytes",
    "processes",
    "requests",
    "responses",
    "messages",
    "inputs",
    "connections",
    "calls",
    "threads",
    "rows",
    "cells",
    "replicas",
    "cpus",
    "gpus",
    "share",
    "files",
)
_WORDS_WITH_UNIT = 3
# The current folder at import, which some defaults are in.
_START_FOLDER = os.path.dirname(DEFAULT_ENVIRONMENTS_DIR)
# File -> the class of its settings.
FILES: dict[str, type[BaseModel]] = {
    "settings.json": Settings,
    "model-settings.json": ModelSettings,
}
REQUIRED = "required"


@dataclass(frozen=True)
class SettingReference:
    """Description of one setting.

    Attributes:
        name: Name in its file; a dot separates an object from its keys (`tls.certificate`).
        type: JSON type, such as "integer or null".
        default: Default as JSON text; "" = the setting is required.
        unit: Unit of a number; "" = none.
        variable: Environment variable; "" = the setting is a key of an object, whose variable
            has the whole object as JSON.
        description: Text in one line.
    """

    name: str
    type: str
    default: str
    unit: str
    variable: str
    description: str


def list_settings(cls: type[BaseModel], prefix: str = "") -> list[SettingReference]:
    """Return the settings of a class, each followed by the keys of its object if it is a group."""
    return list(_iterate(cls, prefix))


def _iterate(cls: type[BaseModel], prefix: str) -> Iterator[SettingReference]:
    descriptions = read_descriptions(cls)
    properties = cls.model_json_schema(by_alias=True).get("properties", {})
    for field_name, field in cls.model_fields.items():
        key = get_public_name(field, field_name)
        type_text = describe_type(properties.get(key, {}))
        description = descriptions.get(field_name, "")
        is_default_required = field.default is PydanticUndefined and not field.default_factory
        default = "" if is_default_required else format_default(field.get_default())
        variable = ""
        if issubclass(cls, PydanticBaseSettings):
            variable = get_variable_name(cls, key)
        yield SettingReference(
            prefix + key,
            type_text,
            default,
            find_unit(type_text, description),
            variable,
            description,
        )
        group = find_group(field.annotation)
        if group is not None:
            yield from _iterate(group, f"{prefix}{key}.")


def find_group(annotation: Any) -> type[BaseModel] | None:
    """Return the class of a setting that is an object with known keys; None for other settings."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    for member in get_args(annotation) if is_union else (annotation,):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None


def find_unit(type_text: str, description: str) -> str:
    """Return the unit of a number, "" for other types."""
    if "integer" not in type_text and "number" not in type_text:
        return ""
    words = re.findall(r"[a-z]+", description.lower())[:_WORDS_WITH_UNIT]
    return next((word for word in words if word in UNITS), "")


def describe_type(schema: dict[str, Any]) -> str:
    """Return a JSON schema's type in words, such as "list of string or null"."""
    if "anyOf" in schema:
        return " or ".join(describe_type(member) for member in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {describe_type(schema.get('items', {}))}"
    return str(schema.get("type", "object"))


def format_default(value: Any) -> str:
    """Return a default as JSON text; paths in the current folder as relative paths."""
    if isinstance(value, str):
        value = value.replace(os.path.join(_START_FOLDER, ""), "./")
    return json.dumps(value, ensure_ascii=False)


def render_markdown(settings: list[SettingReference]) -> str:
    """Return a Markdown table of settings, with a line for each."""
    lines = ["| setting | type | default | unit | description |", "|---|---|---|---|---|"]
    for item in settings:
        default = f"`{item.default}`" if item.default else REQUIRED
        cells = [f"`{item.name}`", item.type, default, item.unit, item.description]
        lines.append(f"| {' | '.join(_escape_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _escape_cell(text: str) -> str:
    return text.replace("|", "\\|")

"""Effective values of settings: value, origin, and environment variables that are not used.

Precedence, first to last: command-line options, code or the settings file, environment variables,
`.env` in the current folder, the default. Objects are merged key by key, so that the keys of one
object may have several origins. Secrets are masked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from dotenv import dotenv_values
from pydantic import BaseModel
from pydantic_settings import BaseSettings as PydanticBaseSettings

from .base import ENV_FILE_SETTINGS, BaseSettings
from .masking import mask
from .reference import SettingReference, find_group, list_settings
from .sources import VariablesSource, get_public_name, get_variable_name, has_env_file

DEFAULT = "default"
CODE = "code"
# Settings that are completed after they were read -> origin of the completed value.
_COMPLETED = {"name": "folder", "uri": "folder", "inference_pool_gid": "generated"}


@dataclass(frozen=True)
class EffectiveSetting:
    """Value of one setting.

    Attributes:
        reference: Its name, type, default, unit and description.
        value: The value as JSON values, with masked secrets.
        origin: A file's name, "variable NAME", ".env", "option", "argument", "folder" (derived from
            the model's folder), "code" or "default".
        unused_variables: Environment variables with other values that have no effect, because the
            origin precedes them.
    """

    reference: SettingReference
    value: Any
    origin: str
    unused_variables: tuple[str, ...] = ()

    @property
    def is_default(self) -> bool:
        return self.origin == DEFAULT

    def to_document(self) -> dict[str, Any]:
        """Return the setting as JSON values, for the command line and the console."""
        reference = self.reference
        return {
            "name": reference.name,
            "value": self.value,
            "default": json.loads(reference.default) if reference.default else None,
            "unit": reference.unit,
            "type": reference.type,
            "origin": self.origin,
            "variable": reference.variable,
            "unused_variables": list(self.unused_variables),
            "description": reference.description,
        }


@dataclass(frozen=True)
class _Layer:
    """Values of one source, the first layer that has a key defines it.

    Attributes:
        values: Values by the names in settings files.
        name: Name of the source, for `EffectiveSetting.origin`.
        is_environment: Whether the values are those of variables.
    """

    values: Mapping[str, Any]
    name: str
    is_environment: bool = False

    def get_origin(self, variable: str) -> str:
        return f"{self.name} {variable}" if self.is_environment else self.name


def list_effective_settings(settings: BaseSettings) -> list[EffectiveSetting]:
    """Return all settings of an object in the order of their declaration, with their origins.

    The keys of an object with known keys (`tls`, `parameters` ...) are listed if it is set.
    """
    references = {item.name: item for item in list_settings(type(settings))}
    passed = _Layer(settings.given_values, settings.source_name or CODE)
    return list(_iterate(settings, [passed], references, "", settings.origins))


def _iterate(
    settings: BaseModel,
    layers: list[_Layer],
    references: Mapping[str, SettingReference],
    prefix: str,
    origins: Mapping[str, str],
) -> Iterator[EffectiveSetting]:
    cls = type(settings)
    if issubclass(cls, PydanticBaseSettings):
        layers = [*layers, *_read_environment(cls)]
    for field_name, field in cls.model_fields.items():
        key = get_public_name(field, field_name)
        reference = references[prefix + key]
        value = getattr(settings, field_name)
        having = [layer for layer in layers if key in layer.values or field_name in layer.values]
        if isinstance(value, BaseModel) and find_group(field.annotation) is not None:
            below = [_get_part(layer, key, field_name, cls) for layer in having]
            yield from _iterate(value, below, references, f"{prefix}{key}.", {})
            continue
        yield _describe(reference, field_name, key, value, having, origins, cls)


def _get_part(layer: _Layer, key: str, field_name: str, cls: type[BaseModel]) -> _Layer:
    """Return the layer of an object's keys; the variable of the object is part of its name."""
    value = layer.values.get(key, layer.values.get(field_name))
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True, exclude_unset=True)
    settings_cls = cast("type[PydanticBaseSettings]", cls)
    name = layer.get_origin(get_variable_name(settings_cls, key))
    return _Layer(value if isinstance(value, dict) else {}, name)


def _describe(
    reference: SettingReference,
    field_name: str,
    key: str,
    value: Any,
    having: list[_Layer],
    origins: Mapping[str, str],
    cls: type[BaseModel],
) -> EffectiveSetting:
    plain = mask(_to_plain(value), key)
    setting = EffectiveSetting(reference, plain, DEFAULT)
    if key in origins:
        origin, below = origins[key], [layer for layer in having if layer.is_environment]
    elif having:
        first, *below = having
        origin = first.get_origin(reference.variable)
        first_value = first.values.get(key, first.values.get(field_name))
        merged = [layer for layer in below if _is_merged(first_value, layer.values.get(key))]
        names = [layer.get_origin(reference.variable) for layer in merged]
        origin = " and ".join([origin, *names])
        below = [layer for layer in below if layer not in merged]
    else:
        is_default = value == cls.model_fields[field_name].get_default()
        return setting if is_default else replace(setting, origin=_COMPLETED.get(key, CODE))
    unused = [layer for layer in below if not _is_equal(layer.values.get(key), value)]
    names = [layer.get_origin(reference.variable) for layer in unused if layer.is_environment]
    return replace(setting, origin=origin, unused_variables=tuple(names))


def _is_merged(first: Any, second: Any) -> bool:
    """Whether pydantic-settings merges two values of one setting key by key."""
    return isinstance(first, dict) and isinstance(second, dict)


def _is_equal(text: Any, value: Any) -> bool:
    """Whether a variable has the effective value, in any notation."""
    if isinstance(text, str) and not isinstance(value, str):
        return text.strip().lower() == json.dumps(_to_plain(value)).lower()
    return bool(text == value)


def _read_environment(cls: type[PydanticBaseSettings]) -> list[_Layer]:
    layers = [_Layer(VariablesSource(cls, os.environ)(), "variable", is_environment=True)]
    if has_env_file(ENV_FILE_SETTINGS):
        values = VariablesSource(cls, dotenv_values(ENV_FILE_SETTINGS))()
        layers.append(_Layer(values, ".env", is_environment=True))
    return layers


def _to_plain(value: Any) -> Any:
    """Return a value as JSON values; values that JSON cannot represent as text."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, list):
        return [_to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)

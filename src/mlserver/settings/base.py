"""Base class of all settings (sources, errors, serialization for workers) and their value types."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings as PydanticBaseSettings
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from .. import model_imports
from .security import resolve_group_paths
from .sources import (
    VariablesSource,
    has_env_file,
    read_json_object,
    to_settings_error,
    warn_of_unknown,
    without_env_file,
)

ENV_FILE_SETTINGS = ".env"
ENV_PREFIX_SETTINGS = "MLSERVER_"

_LOG_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")


def _validate_log_level(value: str) -> str:
    if value.upper() not in _LOG_LEVELS:
        raise ValueError(f"one of {', '.join(_LOG_LEVELS)}")
    return value.upper()


def _validate_validation_status(value: int) -> int:
    if value not in (400, 422):
        raise ValueError("400 or 422")
    return value


def _validate_not_ready_status(value: int) -> int:
    if value not in (400, 503):
        raise ValueError("503 or 400")
    return value


def _normalize_root_path(value: str) -> str:
    """Return the path with one leading slash and no trailing one; "" = no prefix."""
    path = value.strip("/")
    return f"/{path}" if path else ""


def _parse_none(value: Any) -> Any:
    """Return None for "none" and "null": an empty environment variable counts as not set."""
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


# An alias: pydantic before 2.10 resolves `dict` in an annotation of `BaseSettings` to its method.
ClassesByPath = dict[str, type[Any]]
LogLevel = Annotated[str, AfterValidator(_validate_log_level)]
Port = Annotated[int, Field(ge=0, le=65535)]
OptionalPort = Annotated[Port | None, BeforeValidator(_parse_none)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ValidationStatus = Annotated[int, AfterValidator(_validate_validation_status)]
NotReadyStatus = Annotated[int, AfterValidator(_validate_not_ready_status)]
RootPath = Annotated[str, AfterValidator(_normalize_root_path)]
Count = Annotated[int, Field(ge=1)]
WorkerStart = Literal["auto", "fresh"]
Isolation = Literal["shared", "model"]


@dataclass
class Provenance:
    """Where the values of settings are from. Settings with equal values are equal all the same.

    Attributes:
        passed: Values as they were passed, by the names in settings files or those of the fields.
        origins: Setting -> origin that is neither a settings file nor code, such as "option".
    """

    passed: dict[str, Any] = field(default_factory=dict, compare=False)
    origins: dict[str, str] = field(default_factory=dict, compare=False)


class BaseSettings(PydanticBaseSettings):
    """Base class of all settings.

    Raises:
        pydantic.ValidationError: a value is invalid; `parse_file` and `load` raise `SettingsError`.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE_SETTINGS, extra="ignore", protected_namespaces=(), populate_by_name=True
    )

    # Fields that hold an import path and also accept a class.
    _import_paths: ClassVar[tuple[str, ...]] = ()

    _source: str | None = PrivateAttr(default=None)
    _provenance: Provenance = PrivateAttr(default_factory=Provenance)
    # Field -> class passed in place of an import path. A class local to a function has no usable
    # path.
    _classes: ClassesByPath = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        classes = {
            key: values[key] for key in self._import_paths if inspect.isclass(values.get(key))
        }
        for key, cls in classes.items():
            values[key] = model_imports.get_import_path(cls)
        if type(self).model_config.get("extra") != "allow":
            warn_of_unknown(type(self), values, None)
        if "_env_file" not in values and not has_env_file(ENV_FILE_SETTINGS):
            values["_env_file"] = None
        super().__init__(**values)
        self._classes = classes
        self._provenance = Provenance(values)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[PydanticBaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # pydantic-settings' own sources pass unknown keys of `.env` to classes that allow extras.
        variables = [
            VariablesSource(settings_cls, source.env_vars)
            for source in (env_settings, dotenv_settings)
            if isinstance(source, EnvSettingsSource)
        ]
        return (init_settings, *variables)

    @classmethod
    def load(cls, values: dict[str, Any] | None = None, source: str | None = None) -> Self:
        """Build settings from `values` and the environment.

        Args:
            values: Content of a settings file; None or {} = the environment alone.
            source: Path of the file, for error messages; relative paths start at its folder.

        Raises:
            SettingsError: one line with the source, the field, the expected and the received value.
        """
        values = values or {}
        if cls.model_config.get("extra") != "allow":
            warn_of_unknown(cls, values, source)
        known = cls.model_fields.keys() | {field.alias for field in cls.model_fields.values()}
        try:
            settings = cls(**{key: value for key, value in values.items() if key in known})
        except ValidationError as error:
            raise to_settings_error(error, cls, values, source) from None
        settings._source = source
        resolve_group_paths(vars(settings).values(), source)
        return settings

    @property
    def given_values(self) -> Mapping[str, Any]:
        """Values of the settings file or of code, before they were parsed."""
        return self._provenance.passed

    @property
    def source_name(self) -> str | None:
        """Name of the settings file, without its folder; None = there is none."""
        return os.path.basename(self._source) if self._source else None

    @property
    def origins(self) -> Mapping[str, str]:
        """Origins of the settings that neither a settings file nor code has set: see
        `record_origin`."""
        return self._provenance.origins

    def with_absolute_source(self) -> Self:
        """Return a copy with the absolute path of its settings file, for another folder or node."""
        copy = self.model_copy()
        copy._source = os.path.abspath(self._source) if self._source else None
        return copy

    def record_origin(self, key: str, origin: str) -> None:
        """Record where a setting's value is from, such as "option" (`settings.effective`)."""
        self._provenance.origins[key] = origin

    @classmethod
    def parse_file(cls, path: str | os.PathLike[str]) -> Self:  # type: ignore[override]
        """Read a settings file. Raises `SettingsError` with a text of one line."""
        path = os.fspath(path)
        return cls.load(read_json_object(path), path)

    @classmethod
    def parse_obj(cls, obj: Any) -> Self:
        return cls.model_validate(obj)

    def dict(
        self,
        by_alias: bool = True,
        exclude_unset: bool = True,
        exclude_none: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the fields that are set, by their names in settings files (`implementation`)."""
        return self.model_dump(
            by_alias=by_alias, exclude_unset=exclude_unset, exclude_none=exclude_none, **kwargs
        )

    def json(
        self,
        by_alias: bool = True,
        exclude_unset: bool = True,
        exclude_none: bool = True,
        **kwargs: Any,
    ) -> str:
        """Return `dict` as JSON, the content of a settings file."""
        return self.model_dump_json(
            by_alias=by_alias, exclude_unset=exclude_unset, exclude_none=exclude_none, **kwargs
        )

    def to_frame(self) -> bytes:
        """Serialize all fields, set or not, for a worker process, with their origins."""
        fields = [type(self).__name__, self.model_dump(by_alias=True), self._source]
        provenance = [self._provenance.passed, self._provenance.origins]
        return msgspec.msgpack.encode([*fields, *provenance], enc_hook=str)

    @classmethod
    def from_frame(cls, frame: bytes) -> Self:
        """Return the settings serialized by `to_frame`; the environment is not read."""
        class_name, values, source, passed, origins = msgspec.msgpack.decode(frame)
        if class_name != cls.__name__:
            raise TypeError(f"frame: expected {cls.__name__}, received {class_name}")
        with without_env_file():
            settings = cls(**values)
        settings._source, settings._provenance = source, Provenance(passed, origins)
        return settings

"""What all settings share: their sources, their errors, how they reach a worker process, and the kinds of values.

How the sources are read is in `settings_sources`; the fields are in `settings` and `settings_security`.
"""

from __future__ import annotations

import inspect
import os
from typing import Annotated, Any, ClassVar, Self

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings as PydanticBaseSettings
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from .. import model_imports
from .security import place_groups
from .sources import (
    Variables,
    explain,
    has_env_file,
    read_json_object,
    warn_of_unknown,
    without_env_file,
)

ENV_FILE_SETTINGS = ".env"

_LOG_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")


def _log_level(value: str) -> str:
    if value.upper() not in _LOG_LEVELS:
        raise ValueError(f"one of {', '.join(_LOG_LEVELS)}")
    return value.upper()


def _validation_status(value: int) -> int:
    if value not in (400, 422):
        raise ValueError("400 or 422")
    return value


def _not_ready_status(value: int) -> int:
    if value not in (400, 503):
        raise ValueError("503 or 400")
    return value


def _none_as_text(value: Any) -> Any:
    """Read the texts that stand for None in a variable, where an empty one is none at all."""
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


# By this name: pydantic before 2.10 takes `dict` in an annotation of `BaseSettings` for its method.
ClassesByPath = dict[str, type[Any]]
LogLevel = Annotated[str, AfterValidator(_log_level)]
Port = Annotated[int, Field(ge=0, le=65535)]
OptionalPort = Annotated[Port | None, BeforeValidator(_none_as_text)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ValidationStatus = Annotated[int, AfterValidator(_validation_status)]
NotReadyStatus = Annotated[int, AfterValidator(_not_ready_status)]
Count = Annotated[int, Field(ge=1)]


class BaseSettings(PydanticBaseSettings):
    """What all settings share: their sources, and how they reach a worker process.

    Raises:
        pydantic.ValidationError: A value has the wrong type. `parse_file` and `load` say the same in one line.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE_SETTINGS, extra="ignore", protected_namespaces=(), populate_by_name=True
    )

    # Fields that hold an import path, and take a class as well.
    _import_paths: ClassVar[tuple[str, ...]] = ()

    _source: str | None = PrivateAttr(default=None)
    # The classes that were given instead of import paths; they may be local to a function, so the path alone would lose them.
    _classes: ClassesByPath = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        classes = {
            key: values[key] for key in self._import_paths if inspect.isclass(values.get(key))
        }
        for key, cls in classes.items():
            values[key] = model_imports.path_of(cls)
        if type(self).model_config.get("extra") != "allow":
            warn_of_unknown(type(self), values, None)
        if "_env_file" not in values and not has_env_file(ENV_FILE_SETTINGS):
            values["_env_file"] = None
        super().__init__(**values)
        self._classes = classes

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[PydanticBaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # pydantic-settings' own sources hand unknown keys of `.env` to classes that allow extras.
        variables = [
            Variables(settings_cls, source.env_vars)
            for source in (env_settings, dotenv_settings)
            if isinstance(source, EnvSettingsSource)
        ]
        return (init_settings, *variables)

    @classmethod
    def load(cls, values: dict[str, Any] | None = None, source: str | None = None) -> Self:
        """Make settings from `values` and the environment.

        Args:
            values: What a file says; None or {} = the environment alone.
            source: The file's path, for messages; kept as the place that relative paths start from.

        Raises:
            SettingsError: One line that says where, which field, what was expected and what came.
        """
        values = values or {}
        if cls.model_config.get("extra") != "allow":
            warn_of_unknown(cls, values, source)
        known = cls.model_fields.keys() | {field.alias for field in cls.model_fields.values()}
        try:
            made = cls(**{key: value for key, value in values.items() if key in known})
        except ValidationError as error:
            raise explain(error, cls, values, source) from None
        made._source = source
        place_groups(vars(made).values(), source)
        return made

    @classmethod
    def parse_file(cls, path: str | os.PathLike[str]) -> Self:  # type: ignore[override]
        """Read a settings file. Raises `SettingsError`, in one line, if anything in it is wrong."""
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
        """What is set, under the names of settings files (`implementation`)."""
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
        """`dict` as JSON: the text of a settings file."""
        return self.model_dump_json(
            by_alias=by_alias, exclude_unset=exclude_unset, exclude_none=exclude_none, **kwargs
        )

    def to_frame(self) -> bytes:
        """These settings for a worker process, as plain data. Every field is in it, the unset ones too."""
        return msgspec.msgpack.encode(
            [type(self).__name__, self.model_dump(by_alias=True), self._source]
        )

    @classmethod
    def from_frame(cls, frame: bytes) -> Self:
        """The settings that `to_frame` gave: every field comes from the frame, so none from the environment."""
        kind, values, source = msgspec.msgpack.decode(frame)
        if kind != cls.__name__:
            raise TypeError(f"a frame of {cls.__name__} was expected, this one holds {kind}")
        with without_env_file():
            made = cls(**values)
        made._source = source
        return made

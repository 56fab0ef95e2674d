"""Readers of settings files, environment variables and `.env`, with one-line errors."""

from __future__ import annotations

import difflib
import errno
import json
import logging
import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings as PydanticBaseSettings
from pydantic_settings import PydanticBaseSettingsSource

from ..errors import SettingsError
from .masking import MASK, mask, names_secret

_MAX_VALUE_CHARS = 60

# Type of a pydantic error -> expected value; other types keep pydantic's text.
_EXPECTED = {
    "missing": "a value",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}

# Kubernetes sets MLSERVER_HTTP_PORT=tcp://10.0.0.9:80 in pods beside a Service `mlserver-http`.
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://")

_logged: set[str] = set()
_ignores_env_file: ContextVar[bool] = ContextVar("ignores_env_file", default=False)


class VariablesSource(PydanticBaseSettingsSource):
    """Source of settings in environment variables or `.env`: known fields only, never extras.

    A variable's name is the class's prefix and the field's name, in any case. Lists and objects are
    JSON. An empty variable counts as not set, unless the field accepts text.
    """

    def __init__(
        self, settings_cls: type[PydanticBaseSettings], variables: Mapping[str, str | None]
    ) -> None:
        super().__init__(settings_cls)
        self.variables = {key.lower(): value for key, value in variables.items()}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        key = get_public_name(field, field_name)
        return self.variables.get(get_variable_name(self.settings_cls, key).lower()), key, False

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for field_name, field in self.settings_cls.model_fields.items():
            text, key, _ = self.get_field_value(field, field_name)
            if text is None:
                continue
            accepts_text, accepts_json = _get_accepted_forms(field.annotation)
            if text or accepts_text:
                name = get_variable_name(self.settings_cls, key)
                if key.endswith("_port") and _SERVICE_LINK.match(text):
                    _warn_about_service_link(name, text)
                    continue
                values[key] = _parse_json(text, name, accepts_text) if accepts_json else text
        return values


def get_public_name(field: FieldInfo, field_name: str) -> str:
    """Return the name of a field in settings files."""
    return field.alias or field_name


def get_variable_name(cls: type[PydanticBaseSettings], key: str) -> str:
    """Return the environment variable of a field."""
    return f"{cls.model_config.get('env_prefix', '')}{key}".upper()


def _get_accepted_forms(annotation: Any) -> tuple[bool, bool]:
    """Return whether a field accepts plain text, and whether it accepts JSON (lists, objects)."""
    if get_origin(annotation) in (Union, types.UnionType):
        forms = [_get_accepted_forms(member) for member in get_args(annotation)]
        accepts_text = any(text for text, _ in forms)
        accepts_json = any(structured for _, structured in forms)
        return accepts_text, accepts_json
    base = get_origin(annotation) or annotation
    if not isinstance(base, type):
        return True, False
    return issubclass(base, str), issubclass(base, (list, dict, BaseModel))


def _parse_json(text: str, name: str, accepts_text: bool) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if accepts_text:
            return text
        # Text that cannot be read is no object whose secrets could be masked one by one.
        received = MASK if names_secret(text) else format_value(text, name)
        raise SettingsError(
            f"environment variable {name}: expected JSON, received {received}"
        ) from None


@contextmanager
def without_env_file() -> Iterator[None]:
    """Build settings, nested ones included, without reading `.env`."""
    token = _ignores_env_file.set(True)
    try:
        yield
    finally:
        _ignores_env_file.reset(token)


def has_env_file(path: str) -> bool:
    """Return whether `.env` exists and is readable; one that is not readable is logged once."""
    if _ignores_env_file.get():
        return False
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        reason = error.strerror
    else:
        if os.access(path, os.R_OK):
            return True
        reason = os.strerror(errno.EACCES)
    _warn_once(f"{path} in the current folder is skipped: {reason}")
    return False


def _warn_about_service_link(name: str, text: str) -> None:
    if not _ignores_env_file.get():  # not again in a worker
        _warn_once(
            f"{name}={text} is skipped: it is the address of a Kubernetes Service, not a setting;"
            " 'enableServiceLinks: false' in the pod avoids it"
        )


def _warn_once(text: str) -> None:
    if text not in _logged:
        _logged.add(text)
        logging.getLogger("mlserver").warning("%s", text)


def read_json_object(path: str) -> dict[str, Any]:
    """Read a settings file. Raises `SettingsError` with a text of one line."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"{path}: not valid JSON: line {error.lineno} column {error.colno}: {error.msg}"
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not valid JSON: the file is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: not valid JSON: nested too deeply") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected a JSON object, received {format_value(content)}")
    return content


def to_settings_error(
    error: ValidationError,
    cls: type[PydanticBaseSettings],
    values: Mapping[str, Any],
    source: str | None,
) -> SettingsError:
    """Convert a pydantic error into one line about all invalid fields.

    Args:
        error: What pydantic raised.
        cls: The settings class that was built.
        values: The values from `source`; all others are from the environment.
        source: Path of the file; None for values from code.
    """
    messages: dict[str, str] = {}
    for item in error.errors(include_url=False):
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, SettingsError):  # a variable of a nested settings class
            return inner
        location = map(str, item["loc"])
        path = [part for part in location if not part.startswith(("function-", "json-"))]
        field = ".".join(path) or "(all)"
        pydantic_text = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        expected = _EXPECTED.get(item["type"], pydantic_text)
        if item["type"] == "extra_forbidden":
            expected = _describe_known_keys(cls, path)
        is_missing = item["type"] == "missing"
        key = next((part for part in reversed(path) if not part.isdigit()), "")
        received = "nothing" if is_missing else format_value(item["input"], key)
        is_from_environment = bool(path) and path[0] not in values and not is_missing
        where = source
        if is_from_environment:
            where = f"environment variable {get_variable_name(cls, path[0])}"
        text = f"field '{field}': expected {expected}, received {received}"
        messages.setdefault(field, f"{where}: {text}" if where else text)
    return SettingsError("; ".join(messages.values()), messages)


def _describe_known_keys(cls: type[BaseModel], path: list[str]) -> str:
    """Return the keys of the object that has an unknown key, and the most similar one."""
    for name in path[:-1]:
        annotation = cls.model_fields[name].annotation
        members = (annotation, *get_args(annotation))
        cls = next(member for member in members if _is_group(member))
    known = list(cls.model_fields)
    similar = difflib.get_close_matches(path[-1].lower(), known, n=1)
    hint = f" (did you mean '{similar[0]}'?)" if similar else ""
    return f"one of the keys {', '.join(known)}{hint}"


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def format_value(value: Any, key: str = "") -> str:
    """Return a value as JSON, truncated, with masked secrets.

    Args:
        value: What was received, of any type.
        key: Name of the field or variable, which may say that the value is a secret.
    """
    try:
        text = json.dumps(mask(value, key), ensure_ascii=False)
    except (TypeError, ValueError):
        text = f"{type(value).__name__} object"
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}..."


def warn_of_misspelled(
    cls: type[PydanticBaseSettings], keys: Iterable[str], source: str | None
) -> None:
    """Log once for each extra key that resembles a field of the class."""
    known = sorted(cls.model_fields)
    for key in keys:
        words = re.split(r"[^a-z]+", re.sub(r"([A-Z])", r"_\1", key).lower())
        contained = [name for name in known if name in words]
        similar = contained or difflib.get_close_matches(key.lower(), known, n=1)
        if similar:
            _warn_once(
                f"{source or cls.__name__}: unknown key '{key}' of 'parameters' is passed to the"
                f" runtime; did you mean '{similar[0]}'?"
            )


def warn_of_unread(keys: Iterable[str], known: Iterable[str], where: str, source: str) -> None:
    """Log once for each key of an object that is not known, with the most similar known key."""
    names = sorted(known)
    for key in keys:
        if key in names or key.startswith(("_", "$")):
            continue
        _warn_once(f"{source}: unknown key '{key}' of '{where}' is ignored; {_suggest(key, names)}")


def _suggest(key: str, known: list[str]) -> str:
    """Return the most similar known key as a question, or all known keys."""
    similar = difflib.get_close_matches(key.lower(), known, n=1)
    return f"did you mean '{similar[0]}'?" if similar else f"expected {', '.join(known)}"


def warn_of_unknown(
    cls: type[PydanticBaseSettings], keys: Iterable[str], source: str | None
) -> None:
    """Log once for each key that is ignored, with the most similar known key."""
    public_names = {get_public_name(field, name) for name, field in cls.model_fields.items()}
    known = public_names | cls.model_fields.keys()
    for key in keys:
        if key in known or key.startswith(("_", "$")):
            continue
        similar = difflib.get_close_matches(key, sorted(known), n=1)
        hint = f"; did you mean '{similar[0]}'?" if similar else ""
        _warn_once(f"{source or cls.__name__}: unknown setting '{key}' is ignored{hint}")

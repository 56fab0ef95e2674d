"""Where settings come from: files, environment variables and `.env`; and the one-line errors when they are wrong.

Which settings there are, and what they mean, is in `settings`.
"""

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

_LONGEST_VALUE = 60

# pydantic's kind of error -> what belongs there, in a reader's words; what is not listed keeps pydantic's text.
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

_already_said: set[str] = set()
_is_ignored: ContextVar[bool] = ContextVar("is_ignored", default=False)


class Variables(PydanticBaseSettingsSource):
    """Variables (of the process, or of `.env`) as values of a settings class: known fields only, never extras.

    Names are the class's prefix and the field, in any case. Lists and objects are JSON. An empty variable counts as
    not set, unless the field takes text.
    """

    def __init__(
        self, settings_cls: type[PydanticBaseSettings], variables: Mapping[str, str | None]
    ) -> None:
        super().__init__(settings_cls)
        self.variables = {key.lower(): value for key, value in variables.items()}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        key = public_name(field, field_name)
        return self.variables.get(variable_name(self.settings_cls, key).lower()), key, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field_name, field in self.settings_cls.model_fields.items():
            text, key, _ = self.get_field_value(field, field_name)
            if text is None:
                continue
            takes_text, takes_json = _takes(field.annotation)
            if text or takes_text:
                name = variable_name(self.settings_cls, key)
                found[key] = _parse(text, name, takes_text) if takes_json else text
        return found


def public_name(field: FieldInfo, field_name: str) -> str:
    """The name of a field in files and variables."""
    return field.alias or field_name


def variable_name(cls: type[PydanticBaseSettings], key: str) -> str:
    """The environment variable of a field."""
    return f"{cls.model_config.get('env_prefix', '')}{key}".upper()


def _takes(annotation: Any) -> tuple[bool, bool]:
    """Whether a field takes plain text, and whether it takes JSON (lists, objects)."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [_takes(each) for each in get_args(annotation)]
        return any(text for text, _ in kinds), any(structured for _, structured in kinds)
    kind = get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return True, False
    return issubclass(kind, str), issubclass(kind, (list, dict, BaseModel))


def _parse(text: str, name: str, takes_text: bool) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if takes_text:
            return text
        raise SettingsError(
            f"environment variable {name}: expected JSON, received {shown(text)}"
        ) from None


@contextmanager
def without_env_file() -> Iterator[None]:
    """Make settings, and those within them, without a look at `.env`."""
    token = _is_ignored.set(True)
    try:
        yield
    finally:
        _is_ignored.reset(token)


def has_env_file(path: str) -> bool:
    """Whether `.env` is there to be read; one that may not be read, or not even looked for, is named once."""
    if _is_ignored.get():
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
    _warn_once(f"{path} in the current folder is left out: {reason}")
    return False


def _warn_once(text: str) -> None:
    if text not in _already_said:
        _already_said.add(text)
        logging.getLogger("mlserver").warning("%s", text)


def read_json_object(path: str) -> dict[str, Any]:
    """Read a settings file. Raises `SettingsError` in one line, also for a file that cannot be read."""
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
        raise SettingsError(f"{path}: expected a JSON object, received {shown(content)}")
    return content


def explain(
    error: ValidationError,
    cls: type[PydanticBaseSettings],
    given: Mapping[str, Any],
    source: str | None,
) -> SettingsError:
    """One line for all that pydantic found wrong.

    Args:
        error: What pydantic raised.
        cls: The settings class that was built.
        given: The values that came from `source`; any other came from the environment.
        source: The file, or None for values given in code.
    """
    problems: dict[str, str] = {}
    for item in error.errors(include_url=False):
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, SettingsError):  # a variable of an object inside
            return inner
        path = [
            str(part) for part in item["loc"] if not str(part).startswith(("function-", "json-"))
        ]
        field = ".".join(path) or "(all)"
        expected = _EXPECTED.get(
            item["type"], item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        )
        received = "nothing" if item["type"] == "missing" else shown(item["input"])
        in_environment = bool(path) and path[0] not in given and item["type"] != "missing"
        where = f"environment variable {variable_name(cls, path[0])}" if in_environment else source
        text = f"field '{field}': expected {expected}, received {received}"
        problems.setdefault(field, f"{where}: {text}" if where else text)
    return SettingsError("; ".join(problems.values()), problems)


def shown(value: Any) -> str:
    """A value as it stands in JSON, cut short."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = f"{type(value).__name__} object"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def warn_of_misspelled(
    cls: type[PydanticBaseSettings], keys: Iterable[str], source: str | None
) -> None:
    """Warn once for each further key of a class that keeps such keys, if it looks like one of its own."""
    known = sorted(cls.model_fields)
    for key in keys:
        words = re.split(r"[^a-z]+", re.sub(r"([A-Z])", r"_\1", key).lower())
        near = [name for name in known if name in words] or difflib.get_close_matches(
            key.lower(), known, n=1
        )
        text = f"{source or cls.__name__}: key '{key}' of 'parameters' is not known"
        if near and text not in _already_said:
            _already_said.add(text)
            logging.getLogger("mlserver").warning(
                "%s and left to the runtime; did you mean '%s'?", text, near[0]
            )


def warn_of_unknown(
    cls: type[PydanticBaseSettings], keys: Iterable[str], source: str | None
) -> None:
    """Say once for each key that it is ignored, and which known key is nearest."""
    known = {
        public_name(field, name) for name, field in cls.model_fields.items()
    } | cls.model_fields.keys()
    for key in keys:
        if key in known or key.startswith("_") or key.startswith("$"):
            continue
        near = difflib.get_close_matches(key, sorted(known), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        text = f"{source or cls.__name__}: unknown setting '{key}' is ignored{hint}"
        _warn_once(text)

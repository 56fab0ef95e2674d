"""Logging: the logger `mlserver`, its formatter (text or JSON), and `logging_settings`."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, TextIO

import orjson

from .context import current_model
from .errors import SettingsError
from .log_context import get_current
from .settings import Settings
from .settings.sources import read_json_object

LoggerName = "mlserver"
logger = logging.getLogger(LoggerName)

# Line breaks and control characters in a client's text could forge log lines or move the terminal's
# cursor.
_ESCAPES: dict[int, str] = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0))}
_ESCAPES |= {ord("\n"): "\\n", ord("\r"): "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_ESCAPES |= {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}
del _ESCAPES[ord("\t")]
_RED, _YELLOW, _RESET = "\x1b[31m", "\x1b[33m", "\x1b[0m"


def get_logger() -> logging.Logger:
    """Return the server's logger."""
    return logger


class ModelLoggerFormatter(logging.Formatter):
    """Formats a record as one line, with the model whose code logged it.

    Text: `time [logger][model:version] LEVEL - message`, tracebacks indented below. With
    `use_structured_logging`: a JSON object with `time`, `name`, `level`, `message`, and, if
    present, `model_name`, `model_version`, `exception`, `request_id` (of a batch `request_ids`),
    `trace_id`, `span_id`, and the keys of the record's `fields`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self.structured = settings is not None and settings.use_structured_logging
        self._second = -1
        self._second_text = ""

    def format(self, record: logging.LogRecord) -> str:
        details = self._format_exception_and_stack(record)
        if self.structured:
            return self._format_json(record, details)
        model = current_model()
        model_tag = ":".join(filter(None, model)) if model else ""
        tag = f"[{model_tag}]" if model else ""
        source = f"{self.formatTime(record)} [{record.name}]{tag}"
        head = f"{source} {record.levelname} - {record.getMessage()}"
        lines = [head, *(f"    {line}" for line in details.split("\n") if line)]
        return "\n".join(line.translate(_ESCAPES) for line in lines)

    def _format_exception_and_stack(self, record: logging.LogRecord) -> str:
        """Return the record's traceback and stack as text."""
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        stack = self.formatStack(record.stack_info) if record.stack_info else ""
        return "\n".join(text for text in (record.exc_text, stack) if text)

    def _format_json(self, record: logging.LogRecord, details: str) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record),
            "name": record.name,
            "level": record.levelname,
            "message": record.getMessage(),
        }
        if model := current_model():
            line["model_name"], line["model_version"] = model
        if details:
            line["exception"] = details
        if request := get_current():
            line |= request.to_fields()
        return _write_json(line | getattr(record, "fields", {}))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Return the time; the text of a second is formatted once."""
        if datefmt is not None or self.default_msec_format is None:
            return super().formatTime(record, datefmt)
        second = int(record.created)
        if second != self._second:
            self._second_text = super().formatTime(record)[:-4]
            self._second = second
        return f"{self._second_text},{int(record.msecs):03d}"


def _write_json(line: dict[str, Any]) -> str:
    """Return a log line in ASCII."""
    try:
        text = orjson.dumps(line, default=str).decode()
    except (TypeError, ValueError):  # a lone surrogate, or an integer above 64 bits
        text = ""
    return text if text and text.isascii() else json.dumps(line, default=str)


class TerminalFormatter(ModelLoggerFormatter):
    """Formats a record for a person: `time message`, with the level from WARNING on, in color.

    A record with `is_block` is printed as it is: text of the server, with its own lines.
    """

    default_time_format = "%H:%M:%S"
    default_msec_format = None

    def __init__(self) -> None:
        super().__init__()
        self._has_colors = has_colors()

    def format(self, record: logging.LogRecord) -> str:
        if getattr(record, "is_block", False):
            return record.getMessage()
        model = current_model()
        model_tag = f"[{':'.join(filter(None, model))}] " if model else ""
        level = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
        head = f"{self.formatTime(record)} {level}{model_tag}{record.getMessage()}"
        details = self._format_exception_and_stack(record)
        lines = [head, *(f"    {line}" for line in details.split("\n") if line)]
        text = "\n".join(line.translate(_ESCAPES) for line in lines)
        if not self._has_colors or record.levelno < logging.WARNING:
            return text
        color = _RED if record.levelno >= logging.ERROR else _YELLOW
        return f"{color}{text}{_RESET}"


def has_colors() -> bool:
    """Whether standard output shows colors: see https://no-color.org."""
    is_dumb = os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout.isatty() and not is_dumb and not os.environ.get("NO_COLOR")


def uses_terminal_format(settings: Settings) -> bool:
    """Whether log lines are for a person at a terminal.

    False for a file or pipe, structured logging, a logging configuration of one's own, debug logs
    and access logs, which need the whole time and the logger's name.
    """
    is_own = settings.use_structured_logging or settings.logging_settings
    is_detailed = settings.debug or settings.access_log or settings.log_level == "DEBUG"
    return not is_own and not is_detailed and sys.stdout.isatty()


class StdoutHandler(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stdout`, also if it is replaced after the start."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout

    def write_lines(self, records: Sequence[logging.LogRecord]) -> None:
        """Write a line for each record."""
        try:
            lines = [self.format(record) + self.terminator for record in records]
            with self.lock or nullcontext():
                self.stream.write("".join(lines))
                self.flush()
        except Exception:
            self.handleError(records[0])


def write_records(target: logging.Logger, records: Sequence[logging.LogRecord]) -> None:
    """Log records that are created already.

    In one write, if the server's own handler is the only one that gets them.
    """
    handler = logger.handlers[0] if len(logger.handlers) == 1 else None
    has_root = bool(logging.getLogger().handlers) and logger.propagate
    is_own = type(handler) is StdoutHandler and not has_root and not target.filters
    if target is not logger:
        is_own = is_own and not target.handlers and target.propagate
    if is_own and isinstance(handler, StdoutHandler):
        handler.write_lines(records)
        return
    for record in records:
        target.handle(record)


def configure_logger(settings: Settings | None = None) -> logging.Logger:
    """Configure level, format and handler of the server's log.

    May be called repeatedly, in any process.

    Raises:
        SettingsError: `logging_settings` is not a logging configuration.
    """
    settings = settings or Settings()
    _remove_own_handler()
    handler = StdoutHandler()
    is_terminal = uses_terminal_format(settings)
    handler.setFormatter(TerminalFormatter() if is_terminal else ModelLoggerFormatter(settings))
    logger.addHandler(handler)
    logger.setLevel(settings.log_level or (logging.DEBUG if settings.debug else logging.INFO))
    if settings.logging_settings:
        apply_logging_file(settings.logging_settings)
    return logger


def apply_logging_file(logging_settings: str | dict[str, Any]) -> None:
    """Apply a logging configuration: an object, a `.json` file with one, or a configparser file.

    Existing loggers stay enabled, unless the configuration disables them. A missing file is logged
    as a warning, and nothing changes.
    """
    if isinstance(logging_settings, str) and not os.path.isfile(logging_settings):
        logger.warning("logging_settings: no such file '%s'", logging_settings)
        return
    source = logging_settings if isinstance(logging_settings, str) else "logging_settings"
    try:
        if isinstance(logging_settings, dict):
            _apply_object(logging_settings)
        elif logging_settings.endswith(".json"):
            _apply_object(read_json_object(logging_settings))
        else:
            logging.config.fileConfig(logging_settings, disable_existing_loggers=False)
    except SettingsError:
        raise
    except Exception as error:
        # The standard library raises a dozen different exceptions for an invalid configuration.
        text = str(error)
        if error.__cause__ and type(error) is ValueError:
            text = f"{error} ({error.__cause__})"
        raise SettingsError(
            f"{source}: not a logging configuration: {' '.join(text.split())}"
        ) from None
    if logging.getLogger().handlers:
        _remove_own_handler()  # the root's handlers get every line by propagation


def _apply_object(config: dict[str, Any]) -> None:
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **config})


def _remove_own_handler() -> None:
    for handler in list(logger.handlers):
        if isinstance(handler, StdoutHandler):
            logger.removeHandler(handler)

"""Log lines as text and as JSON, and the settings of logging."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlserver.context import model_context
from mlserver.logging import (
    LoggerName,
    ModelLoggerFormatter,
    apply_logging_file,
    configure_logger,
    get_logger,
    logger,
)
from mlserver.settings import ModelParameters, ModelSettings, Settings, SettingsError

WINE = ModelSettings(name="wine", implementation="a.B", parameters=ModelParameters(version="2"))
PLAIN = ModelSettings(name="plain", implementation="a.B")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = [(each, list(each.handlers), each.level, each.propagate) for each in (root, logger)]
    root.handlers = []  # pytest's own, which would count as a configured root
    yield
    for each, handlers, level, propagate in before:
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


def record(message: str, *args: Any, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("mlserver.rest", logging.INFO, __file__, 1, message, args, exc_info)


def text(message: str, *args: Any, exc_info: Any = None) -> str:
    return ModelLoggerFormatter(Settings()).format(record(message, *args, exc_info=exc_info))


def structured(message: str, *args: Any, exc_info: Any = None) -> dict[str, Any]:
    line = ModelLoggerFormatter(Settings(use_structured_logging=True)).format(
        record(message, *args, exc_info=exc_info)
    )
    assert "\n" not in line
    parsed: dict[str, Any] = json.loads(line)
    return parsed


# -- lines --


def test_names() -> None:
    assert get_logger() is logger
    assert logger.name == LoggerName == "mlserver"


def test_text() -> None:
    assert re.fullmatch(TIME + r" \[mlserver\.rest\] INFO - it is 7", text("it is %d", 7))


@pytest.mark.parametrize("model, tag", [(WINE, "wine:2"), (PLAIN, "plain")])
def test_text_of_a_model(model: ModelSettings, tag: str) -> None:
    with model_context(model):
        assert f" [mlserver.rest][{tag}] INFO - hello" in text("hello")


@pytest.mark.parametrize(
    "message, shown",
    [
        ("a\nb", r"a\nb"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("nul\0", r"nul\x00"),
        ("next\x85line", r"next\x85line"),
        ("sep\u2028", r"sep\u2028"),
        ("half \ud800", r"half \ud800"),
        ("tab\tü 漢 🍷", "tab\tü 漢 🍷"),
    ],
)
def test_control_characters_cannot_forge_lines(message: str, shown: str) -> None:
    assert text("%s", message).endswith(f"INFO - {shown}")
    assert structured("%s", message)["message"] == message


def caught() -> Any:
    try:
        raise ValueError('bad "value"\n2026-01-01 00:00:00,000 [mlserver] INFO - forged')
    except ValueError:
        return sys.exc_info()


def test_a_traceback_is_indented() -> None:
    first, *rest = text("failed", exc_info=caught()).split("\n")
    assert first.endswith("failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)


def test_structured() -> None:
    line = structured('a "quote" of %s', "x")
    assert re.fullmatch(TIME, line.pop("time"))
    assert line == {"name": "mlserver.rest", "level": "INFO", "message": 'a "quote" of x'}


def test_structured_of_a_model_with_a_traceback() -> None:
    with model_context(WINE):
        line = structured("failed", exc_info=caught())
    assert (line["model_name"], line["model_version"]) == ("wine", "2")
    assert 'ValueError: bad "value"' in line["exception"]


# -- settings --


@pytest.mark.parametrize(
    "settings, level",
    [
        (Settings(), logging.INFO),
        (Settings(debug=True), logging.DEBUG),
        (Settings(log_level="warning"), logging.WARNING),
        (Settings(debug=True, log_level="ERROR"), logging.ERROR),
    ],
)
def test_level(settings: Settings, level: int) -> None:
    assert configure_logger(settings).level == level


def test_repeated_configuration_writes_each_line_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(3):
        configure_logger(Settings())
    logging.getLogger("mlserver.grpc").info("hello")
    out = capsys.readouterr().out
    assert out.count("hello") == 1
    assert "[mlserver.grpc] INFO - hello" in out


def test_structured_lines_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logger(Settings(use_structured_logging=True))
    logger.warning("hello")
    assert json.loads(capsys.readouterr().out)["level"] == "WARNING"


CONFIG: dict[str, Any] = {
    "version": 1,
    "handlers": {
        "own": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "own"}
    },
    "formatters": {"own": {"format": "OWN %(message)s"}},
    "loggers": {"mlserver": {"level": "DEBUG", "handlers": ["own"], "propagate": False}},
}


def test_logging_settings_as_an_object_and_as_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logging.json"
    path.write_text(json.dumps(CONFIG))
    other = logging.getLogger("another.logger")
    for config in (CONFIG, str(path)):
        configure_logger(Settings(logging_settings=config))
        logger.debug("hello")
        assert capsys.readouterr().out == "OWN hello\n"
        assert not other.disabled


def test_a_configured_root_gets_every_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    config = {key: CONFIG[key] for key in ("handlers", "formatters")}
    configure_logger(
        Settings(logging_settings={**config, "root": {"level": "INFO", "handlers": ["own"]}})
    )
    logger.info("hello")
    assert capsys.readouterr().out == "OWN hello\n"


def test_logging_settings_in_the_configparser_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logging.ini"
    path.write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=h\n[formatters]\nkeys=f\n"
        "[logger_root]\nlevel=INFO\nhandlers=h\n"
        "[handler_h]\nclass=StreamHandler\nargs=(sys.stdout,)\nformatter=f\n"
        "[formatter_f]\nformat=INI %(message)s\n"
    )
    configure_logger(Settings(logging_settings=str(path)))
    logger.info("hello")
    assert capsys.readouterr().out == "INI hello\n"


def test_a_missing_file_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logger(Settings(logging_settings="/no/such.json"))
    assert "WARNING - logging_settings: no such file '/no/such.json'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"handlers": {"h": {"class": "no.Such"}}}', "not a logging configuration"),
        ("a.ini", "nonsense", "not a logging configuration"),
    ],
)
def test_an_invalid_configuration_is_one_line(
    name: str, content: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        apply_logging_file(str(path))
    assert caught.value.message.startswith(f"{path}: {expected}")
    assert "\n" not in caught.value.message

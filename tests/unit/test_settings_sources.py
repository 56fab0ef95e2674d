"""Settings: precedence of the sources, and errors in one line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlserver.settings import (
    CORSSettings,
    ModelParameters,
    ModelSettings,
    Settings,
    SettingsError,
)
from support.settings_environment import isolate_settings


@pytest.fixture(autouse=True)
def _isolate_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate_settings(monkeypatch, tmp_path)


def parse(tmp_path: Path, content: Any) -> Settings:
    path = tmp_path / "settings.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Settings.parse_file(path)


# -- sources ---------------------------------------------------------------------------------------


def test_a_file_beats_the_environment_beats_dot_env_beats_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings().http_port == 8080
    Path(".env").write_text("MLSERVER_HTTP_PORT=7001\n")
    assert Settings().http_port == 7001
    monkeypatch.setenv("MLSERVER_HTTP_PORT", "7002")
    assert Settings().http_port == 7002
    assert parse(tmp_path, {"http_port": 7003}).http_port == 7003
    assert parse(tmp_path, {"grpc_port": 1}).http_port == 7002
    assert Settings(http_port=7004).http_port == 7004


def test_precedence_for_models(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("MLSERVER_MODEL_IMPLEMENTATION=dot.Env\nMLSERVER_MODEL_NAME=dot\n")
    assert ModelSettings.load().implementation_ == "dot.Env"
    monkeypatch.setenv("MLSERVER_MODEL_IMPLEMENTATION", "en.Vironment")
    assert ModelSettings.load().implementation_ == "en.Vironment"
    settings = ModelSettings.load({"implementation": "fi.Le"})
    assert (settings.implementation_, settings.name) == ("fi.Le", "dot")


def test_objects_are_merged_key_by_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLSERVER_ALLOW_ORIGINS", '["https://a"]')
    monkeypatch.setenv("MLSERVER_CORS_SETTINGS", '{"allow_headers": ["h"], "max_age": 1}')
    cors = parse(tmp_path, {"cors_settings": {"max_age": 2}}).cors_settings
    assert cors == CORSSettings(allow_origins=["https://a"], allow_headers=["h"], max_age=2)


def test_cors_settings_stay_none_if_only_their_fields_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLSERVER_ALLOW_ORIGINS", '["https://a"]')
    assert Settings().cors_settings is None


def test_parameters_missing_in_the_file_are_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLSERVER_MODEL_URI", "/mnt/models")
    monkeypatch.setenv("MLSERVER_MODEL_VERSION", "v9")
    settings = ModelSettings.load({"implementation": "a.B", "parameters": {"version": "v1"}})
    assert settings.parameters is not None
    assert (settings.parameters.uri, settings.version) == ("/mnt/models", "v1")
    assert ModelSettings.load({"implementation": "a.B"}).parameters is None


def test_unknown_keys_of_dot_env_are_not_parameters() -> None:
    Path(".env").write_text(
        "MLSERVER_HTTP_PORT=7001\nSECRET=x\nMLSERVER_MODEL_URI=/m\nMLSERVER_MODEL_HOBBY=x\n"
    )
    parameters = ModelParameters.model_validate({"own": 1})
    assert parameters.model_extra == {"own": 1}
    assert parameters.uri == "/m"


def test_variables_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("mlserver_Http_Port", "7001")
    assert Settings().http_port == 7001


def test_variables_without_the_prefix_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMPLEMENTATION", "x.Y")
    monkeypatch.setenv("HTTP_PORT", "1")
    assert Settings().http_port == 8080
    with pytest.raises(SettingsError, match="implementation"):
        ModelSettings.load()


def test_empty_variables_count_as_not_set_unless_the_field_is_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLSERVER_HTTP_PORT", "")
    monkeypatch.setenv("MLSERVER_EXTENSIONS", "")
    monkeypatch.setenv("MLSERVER_METRICS_ENDPOINT", "")
    settings = Settings()
    assert (settings.http_port, settings.extensions, settings.metrics_endpoint) == (8080, [], "")


def test_addresses_of_kubernetes_services_are_not_settings(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A Service `mlserver-http` sets the variable of the setting `http_port` in other pods."""
    monkeypatch.setenv("MLSERVER_HTTP_PORT", "tcp://10.0.0.9:80")
    monkeypatch.setenv("MLSERVER_METRICS_PORT", "udp://10.0.0.9:80")
    monkeypatch.setenv("MLSERVER_GRPC_PORT", "tcp:80")
    with pytest.raises(SettingsError, match="expected an integer"):
        Settings.load()
    monkeypatch.delenv("MLSERVER_GRPC_PORT")
    assert (Settings().http_port, Settings().metrics_port) == (8080, 8082)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("MLSERVER_HTTP_PORT=tcp://10.0.0.9:80 is skipped" in line for line in lines) == 1


def test_logging_settings_from_a_variable_may_be_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_LOGGING_SETTINGS", "/etc/logging.ini")
    assert Settings().logging_settings == "/etc/logging.ini"


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert parse(tmp_path, '\ufeff{"http_port": 1}').http_port == 1


# -- errors in one line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, expected",
    [
        ({"http_port": "abc"}, "{file}: field 'http_port': expected an integer, received \"abc\""),
        (
            {"http_port": 70000},
            "{file}: field 'http_port': expected less than or equal to 65535, received 70000",
        ),
        (
            {"debug": "perhaps"},
            "{file}: field 'debug': expected true or false, received \"perhaps\"",
        ),
        ({"extensions": "a"}, "{file}: field 'extensions': expected a list, received \"a\""),
        ({"cors_settings": 3}, "{file}: field 'cors_settings': expected an object, received 3"),
        (
            {"cors_settings": {"max_age": []}},
            "{file}: field 'cors_settings.max_age': expected an integer, received []",
        ),
        (
            {"validation_status": 500},
            "{file}: field 'validation_status': expected 400 or 422, received 500",
        ),
        (
            {"request_timeout": 0},
            "{file}: field 'request_timeout': expected greater than 0, received 0",
        ),
        ({"host": None}, "{file}: field 'host': expected a string, received null"),
        (
            {"log_level": "loud"},
            "{file}: field 'log_level': expected one of CRITICAL, ERROR, WARNING, INFO, DEBUG,"
            ' received "loud"',
        ),
        ([1], "{file}: expected a JSON object, received [1]"),
        ('{"a": ', "{file}: not valid JSON: line 1 column 7: Expecting value"),
        ("[" * 100_000, "{file}: not valid JSON: nested too deeply"),
    ],
)
def test_invalid_files(content: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(tmp_path, content)
    assert caught.value.message == expected.format(file=tmp_path / "settings.json")


@pytest.mark.parametrize(
    "content, expected",
    [
        (
            {"tls": {"certifcate": "c", "certificate": "c", "key": "k"}},
            "field 'tls.certifcate': expected one of the keys certificate, key, client_ca"
            " (did you mean 'certificate'?), received \"c\"",
        ),
        (
            {"auth": {"keys": "k", "jwt": {"jwks": "j", "audiense": "a"}}},
            "field 'auth.jwt.audiense': expected one of the keys jwks, issuer, audience,",
        ),
    ],
)
def test_unknown_keys_of_groups(content: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(tmp_path, content)
    assert expected in caught.value.message


def test_all_invalid_fields_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(tmp_path, {"http_port": [], "debug": 7})
    assert "'http_port'" in caught.value.message
    assert "'debug'" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.fields == {"http_port", "debug"}


def test_long_values_are_truncated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(tmp_path, {"http_port": "x" * 1000})
    assert len(caught.value.message) < 300


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.json: cannot be read: No such file"):
        Settings.parse_file(tmp_path / "none.json")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        Settings.parse_file(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"host": "\xe4"}')
    with pytest.raises(SettingsError, match="not UTF-8"):
        Settings.parse_file(tmp_path / "latin.json")


def test_invalid_variables_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLSERVER_HTTP_PORT", "abc")
    with pytest.raises(SettingsError) as caught:
        parse(tmp_path, {"grpc_port": 1})
    assert caught.value.message == (
        "environment variable MLSERVER_HTTP_PORT: field 'http_port': expected an integer,"
        ' received "abc"'
    )
    monkeypatch.setenv("MLSERVER_EXTENSIONS", "a,b")
    with pytest.raises(
        SettingsError, match="environment variable MLSERVER_EXTENSIONS: expected JSON"
    ):
        Settings.load()
    monkeypatch.setenv("MLSERVER_MODEL_EXTRA", "a,b")
    with pytest.raises(
        SettingsError,
        match=r'^environment variable MLSERVER_MODEL_EXTRA: expected JSON, received "a,b"$',
    ):
        ModelSettings.load({"implementation": "a.B", "parameters": {}})


def test_a_missing_implementation(tmp_path: Path) -> None:
    path = tmp_path / "model-settings.json"
    path.write_text('{"name": "m"}')
    with pytest.raises(SettingsError) as caught:
        ModelSettings.parse_file(path)
    assert (
        caught.value.message
        == f"{path}: field 'implementation': expected a value, received nothing"
    )


def test_invalid_values_in_code_raise_pydantics_error() -> None:
    with pytest.raises(ValidationError):
        Settings(http_port="abc")
    with pytest.raises(ValidationError):
        ModelSettings(name="x")


def test_unknown_keys_are_ignored_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mlserver"):
        for _ in range(2):
            parse(tmp_path, {"htp_port": 1, "$schema": "x", "zzzzzzzz": 2})
        path = tmp_path / "model-settings.json"
        path.write_text('{"implementation": "a.B", "max_batchsize": 3, "parameters": {"own": 1}}')
        ModelSettings.parse_file(path)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'settings.json'}: unknown setting 'htp_port' is ignored;"
        " did you mean 'http_port'?",
        f"{tmp_path / 'settings.json'}: unknown setting 'zzzzzzzz' is ignored",
        f"{path}: unknown setting 'max_batchsize' is ignored; did you mean 'max_batch_size'?",
    ]

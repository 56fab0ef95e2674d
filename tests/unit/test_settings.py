"""Settings: fields, descriptions, precedence of the sources, errors, serialization."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mlserver.settings import (
    DEFAULT_ENVIRONMENTS_DIR,
    DEFAULT_METRICS_DIR,
    CORSSettings,
    ModelParameters,
    ModelSettings,
    Settings,
    SettingsError,
)
from mlserver.settings.descriptions import read_descriptions
from mlserver.settings.security import AuthSettings, JWTSettings, TLSSettings
from mlserver.version import __version__

# Name -> (default, value in JSON, parsed value). The variable holds the JSON text, or the string
# itself.
SERVER: dict[str, tuple[Any, Any, Any]] = {
    "debug": (False, True, True),
    "log_level": (None, "debug", "DEBUG"),
    "access_log": (None, False, False),
    "use_structured_logging": (False, "true", True),
    "logging_settings": (None, {"version": 1}, {"version": 1}),
    "parallel_workers": (1, "2", 2),
    "parallel_workers_timeout": (5, 7, 7),
    "worker_start": ("auto", "fresh", "fresh"),
    "environments_dir": (DEFAULT_ENVIRONMENTS_DIR, "/e", "/e"),
    "model_repository_implementation": (None, "a.b.C", "a.b.C"),
    "model_repository_root": (".", "/models", "/models"),
    "model_repository_implementation_args": ({}, {"a": 1}, {"a": 1}),
    "load_models_at_startup": (True, False, False),
    "default_model": (None, "wine", "wine"),
    "server_name": ("mlserver", "other", "other"),
    "server_version": (__version__, "9", "9"),
    "extensions": ([], ["a"], ["a"]),
    "host": ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
    "http_port": (8080, 0, 0),
    "grpc_port": (8081, 1, 1),
    "metrics_port": (8082, 65535, 65535),
    "root_path": ("", "/p", "/p"),
    "http_workers": (1, 2, 2),
    "cors_settings": (None, {"max_age": 5}, CORSSettings(max_age=5)),
    "gzip_enabled": (True, False, False),
    "max_body_bytes": (64 * 1024 * 1024, 1024, 1024),
    "grpc_max_message_length": (None, -1, -1),
    "request_timeout": (300, 1.5, 1.5),
    "max_queue_size": (1000, 5, 5),
    "max_inputs": (10_000, 20, 20),
    "shutdown_delay": (0, 5, 5),
    "drain_timeout": (30, 0, 0),
    "header_timeout": (10, 1, 1),
    "body_timeout": (60, 2, 2),
    "keep_alive_timeout": (75, 3, 3),
    "max_connections": (4096, 10, 10),
    "validation_status": (400, 422, 422),
    "load_timeout": (1800, 60, 60),
    "unload_timeout": (60, 5, 5),
    "tls": (None, {"certificate": "/c", "key": "/k"}, TLSSettings(certificate="/c", key="/k")),
    "auth": (None, {"keys": "/keys"}, AuthSettings(keys="/keys")),
    "not_ready_status": (503, "400", 400),
    "admin_access": (None, "any", "any"),
    "admin_host": ("127.0.0.1", "::1", "::1"),
    "admin_port": (None, 9000, 9000),
    "production": (False, True, True),
    "allowed_runtimes": (None, ["a.B"], ["a.B"]),
    "allowed_model_sources": (None, ["s3://models/"], ["s3://models/"]),
    "trusted_models": ([], ["/m"], ["/m"]),
    "strict_readiness": (True, False, False),
    "empty_registry_readiness": (True, False, False),
    "console": (True, False, False),
    "metrics_endpoint": ("/metrics", "", ""),
    "metrics_rest_server_prefix": ("rest_server", "r", "r"),
    "metrics_dir": (DEFAULT_METRICS_DIR, "/m", "/m"),
    "tracing_server": (None, "host:4317", "host:4317"),
    "kafka_enabled": (False, True, True),
    "kafka_servers": ("localhost:9092", "k:1", "k:1"),
    "kafka_topic_input": ("mlserver-input", "i", "i"),
    "kafka_topic_output": ("mlserver-output", "o", "o"),
    "kafka_group_id": (None, "g", "g"),
    "kafka_max_in_flight": (256, 8, 8),
    "kafka_config": ({}, {"linger.ms": 5}, {"linger.ms": 5}),
    "cache_enabled": (False, True, True),
    "cache_size": (100, 3, 3),
    "cache_max_bytes": (128 * 1024 * 1024, 1024, 1024),
}

MODEL: dict[str, tuple[Any, Any, Any]] = {
    "name": ("", "m", "m"),
    "platform": ("", "p", "p"),
    "versions": ([], ["1"], ["1"]),
    "max_batch_size": (0, 4, 4),
    "max_batch_time": (0.0, 0.5, 0.5),
    "request_timeout": (None, 2, 2),
    "max_queue_size": (None, 3, 3),
    "cache_enabled": (False, True, True),
    "parallel_workers": (None, 0, 0),
    "warm_workers": (False, True, True),
}

PARAMETERS: dict[str, tuple[Any, Any, Any]] = {
    "uri": (None, "./m", "./m"),
    "version": (None, "v1", "v1"),
    "environment_path": (None, "/e", "/e"),
    "environment_tarball": (None, "e.tar.gz", "e.tar.gz"),
    "inference_pool_gid": (None, "g", "g"),
    "autogenerate_inference_pool_gid": (False, False, False),
    "format": (None, "SVM", "SVM"),
    "content_type": (None, "pd", "pd"),
    "extra": ({}, {"a": {"b": [1]}}, {"a": {"b": [1]}}),
}

CORS: dict[str, tuple[Any, Any, Any]] = {
    "allow_origins": ([], ["*"], ["*"]),
    "allow_origin_regex": (None, "x.*", "x.*"),
    "allow_credentials": (False, True, True),
    "allow_methods": (["GET"], ["POST"], ["POST"]),
    "allow_headers": ([], ["a"], ["a"]),
    "expose_headers": ([], ["b"], ["b"]),
    "max_age": (600, 5, 5),
}


@pytest.fixture(autouse=True)
def _isolate_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the machine's environment variables and `.env`."""
    for name in os.environ:
        if name.upper().startswith("MLSERVER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def rows(table: dict[str, tuple[Any, Any, Any]]) -> list[Any]:
    return [pytest.param(name, *row, id=name) for name, row in table.items()]


def to_variable(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def parse(tmp_path: Path, content: Any) -> Settings:
    path = tmp_path / "settings.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Settings.parse_file(path)


# -- every field -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cls, table",
    [(Settings, SERVER), (ModelParameters, PARAMETERS), (CORSSettings, CORS)],
    ids=lambda x: str(x)[:30],
)
def test_tables_have_every_field(cls: type[Settings], table: dict[str, Any]) -> None:
    assert set(table) == set(cls.model_fields)


@pytest.mark.parametrize(
    "cls",
    [
        Settings,
        ModelSettings,
        ModelParameters,
        CORSSettings,
        TLSSettings,
        AuthSettings,
        JWTSettings,
    ],
)
def test_every_field_has_a_description(cls: type[BaseModel]) -> None:
    descriptions = read_descriptions(cls)
    assert set(descriptions) == set(cls.model_fields)
    assert all(text.endswith(".") for text in descriptions.values())


@pytest.mark.parametrize("name, default, value, expected", rows(SERVER))
def test_server_fields(
    name: str,
    default: Any,
    value: Any,
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert getattr(Settings(), name) == default
    assert getattr(parse(tmp_path, {name: value}), name) == expected
    monkeypatch.setenv(f"MLSERVER_{name.upper()}", to_variable(value))
    assert getattr(Settings(), name) == expected


@pytest.mark.parametrize("name, default, value, expected", rows(MODEL))
def test_model_fields(
    name: str, default: Any, value: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert getattr(ModelSettings(implementation="a.B"), name) == default
    assert getattr(ModelSettings.load({"implementation": "a.B", name: value}), name) == expected
    monkeypatch.setenv(f"MLSERVER_MODEL_{name.upper()}", to_variable(value))
    assert getattr(ModelSettings(implementation="a.B"), name) == expected


@pytest.mark.parametrize("name, default, value, expected", rows(PARAMETERS))
def test_parameter_fields(
    name: str, default: Any, value: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert getattr(ModelParameters(), name) == default
    assert getattr(ModelParameters.model_validate({name: value}), name) == expected
    monkeypatch.setenv(f"mlserver_model_{name}", to_variable(value))
    assert getattr(ModelParameters(), name) == expected


@pytest.mark.parametrize("name, default, value, expected", rows(CORS))
def test_cors_fields(
    name: str, default: Any, value: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert getattr(CORSSettings(), name) == default
    monkeypatch.setenv(f"MLSERVER_{name.upper()}", to_variable(value))
    assert getattr(CORSSettings(), name) == expected


def test_tensors_of_a_model() -> None:
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": [-1, 1],
        "parameters": {"content_type": "np"},
    }
    settings = ModelSettings.model_validate(
        {"implementation": "a.B", "inputs": [tensor], "outputs": [tensor]}
    )
    assert str(settings.inputs[0].datatype) == "FP32"
    assert settings.outputs[0].parameters is not None
    assert settings.outputs[0].parameters.content_type == "np"


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


# -- models ----------------------------------------------------------------------------------------


def test_generated_pool_id() -> None:
    first = ModelParameters(autogenerate_inference_pool_gid=True)
    assert first.inference_pool_gid
    assert (
        first.inference_pool_gid
        != ModelParameters(autogenerate_inference_pool_gid=True).inference_pool_gid
    )
    assert (
        ModelParameters(
            autogenerate_inference_pool_gid=True, inference_pool_gid="g"
        ).inference_pool_gid
        == "g"
    )


def test_implementation_is_imported_on_access() -> None:
    settings = ModelSettings.load({"implementation": "this.does.not.Exist", "name": "m"})
    assert settings.implementation_ == "this.does.not.Exist"
    with pytest.raises(
        SettingsError,
        match=r"model 'm': implementation: 'this\.does\.not\.Exist' cannot be imported",
    ):
        _ = settings.implementation


def test_implementation_may_be_a_local_class() -> None:
    class Local:
        pass

    settings = ModelSettings(implementation=Local)
    assert settings.implementation_.endswith(
        "test_implementation_may_be_a_local_class.<locals>.Local"
    )
    assert settings.implementation is Local
    settings.implementation = Path
    assert settings.implementation is Path
    settings.implementation = "collections.OrderedDict"
    assert settings.implementation is OrderedDict
    assert ModelSettings.model_validate({"implementation": Local}).implementation is Local


def test_repository_class_by_path_and_by_class() -> None:
    assert Settings().repository_class is None
    assert Settings(model_repository_implementation="pathlib.Path").repository_class is Path
    assert Settings(model_repository_implementation=Path).repository_class is Path
    settings = Settings()
    settings.model_repository_implementation = "pathlib.Path"
    assert settings.repository_class is Path


def test_dump_has_the_alias_of_implementation() -> None:
    dumped = ModelSettings(implementation="a.B", name="m").model_dump(
        by_alias=True, exclude_unset=True
    )
    assert dumped == {"implementation": "a.B", "name": "m"}


# -- serialization for workers ---------------------------------------------------------------------


def test_frame_has_all_fields_and_ignores_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "model-settings.json"
    path.write_text(
        json.dumps(
            {
                "name": "m",
                "implementation": "a.B",
                "inputs": [
                    {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"tags": ["t"]}}
                ],
                "parameters": {"own": {"deep": [1, None]}, "extra": {"k": 1.5}},
            }
        )
    )
    sent = ModelSettings.parse_file(path)
    assert sent.parameters is not None
    sent.parameters.extra["late"] = [1, b"x"]
    monkeypatch.setenv("MLSERVER_MODEL_URI", "/other")
    monkeypatch.setenv("MLSERVER_MODEL_MAX_BATCH_SIZE", "99")
    got = ModelSettings.from_frame(sent.to_frame())
    assert got == sent
    assert got.folder == str(tmp_path)
    assert got.max_batch_size == 0
    assert got.parameters is not None
    assert got.parameters.uri is None
    assert got.parameters.extra == {"k": 1.5, "late": [1, b"x"]}


def test_a_frame_of_settings_with_a_local_class() -> None:
    class Local:
        pass

    got = Settings.from_frame(
        Settings(model_repository_implementation=Local, http_port=1).to_frame()
    )
    assert got.http_port == 1
    assert str(got.model_repository_implementation).endswith("Local")
    with pytest.raises(TypeError, match="frame: expected ModelSettings, received Settings"):
        ModelSettings.from_frame(got.to_frame())


def test_a_frame_in_another_process(tmp_path: Path) -> None:
    sent = ModelSettings(
        name="m", implementation="a.B", parameters=ModelParameters(uri="/m", version="3")
    )
    code = (
        "import sys; from mlserver.settings import ModelSettings; "
        "got = ModelSettings.from_frame(sys.stdin.buffer.read()); "
        "print(got.name, got.version, got.parameters.uri)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=sent.to_frame(),
        capture_output=True,
        check=True,
        env={**os.environ, "MLSERVER_MODEL_URI": "/other", "MLSERVER_MODEL_NAME": "other"},
    )
    assert done.stdout.split() == [b"m", b"3", b"/m"]

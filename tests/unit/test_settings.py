"""Settings: fields, their descriptions, models, and serialization for workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

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
from mlserver.settings.payload_log import PayloadLogSettings
from mlserver.settings.ray import ModelRaySettings, RayAutoscaling, RaySettings
from mlserver.settings.security import AuthSettings, JWTSettings, TLSSettings
from mlserver.version import __version__
from support.settings_environment import isolate_settings

# Name -> (default, value in JSON, parsed value). The variable holds the JSON text, or the string
# itself.
SERVER: dict[str, tuple[Any, Any, Any]] = {
    "debug": (False, True, True),
    "log_level": (None, "debug", "DEBUG"),
    "access_log": (None, False, False),
    "use_structured_logging": (False, "true", True),
    "logging_settings": (None, {"version": 1}, {"version": 1}),
    "engine": ("local", "ray", "ray"),
    "ray": (None, {"on_exit": "keep"}, RaySettings(on_exit="keep")),
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
    "grpc_max_connection_age": (None, 60, 60),
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
    "payload_log": (None, {"to": "/p.jsonl"}, PayloadLogSettings(to="/p.jsonl")),
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
    "payload_log": (None, {"sample": 0.5}, PayloadLogSettings(sample=0.5)),
    "parallel_workers": (None, 0, 0),
    "warm_workers": (False, True, True),
    "ray": (None, {"num_cpus": 0.5}, ModelRaySettings(num_cpus=0.5)),
}

PARAMETERS: dict[str, tuple[Any, Any, Any]] = {
    "uri": (None, "./m", "./m"),
    "version": (None, "v1", "v1"),
    "environment_path": (None, "/e", "/e"),
    "environment_tarball": (None, "e.tar.gz", "e.tar.gz"),
    "inference_pool_gid": (None, "g", "g"),
    "autogenerate_inference_pool_gid": (False, False, False),
    "isolation": (None, "model", "model"),
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
    isolate_settings(monkeypatch, tmp_path)


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
        RaySettings,
        ModelRaySettings,
        RayAutoscaling,
        AuthSettings,
        JWTSettings,
        PayloadLogSettings,
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

"""Reference, effective values and JSON schemas of settings: units, origins, masked secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlserver.cli.serve import read_settings
from mlserver.repository.load import load_model_settings
from mlserver.settings import BaseSettings, ModelSettings, Settings
from mlserver.settings.effective import EffectiveSetting, list_effective_settings
from mlserver.settings.json_schema import make_schema
from mlserver.settings.masking import MASK, mask
from mlserver.settings.reference import list_settings, render_markdown
from support.settings_environment import isolate_settings

# Numbers without a unit: ports, HTTP statuses, a share, and a deprecated setting.
WITHOUT_UNIT = {
    "validation_status",
    "not_ready_status",
    "parallel_workers",
    "payload_log.sample",
}


@pytest.fixture(autouse=True)
def _isolate_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate_settings(monkeypatch, tmp_path)


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def by_name(settings: BaseSettings) -> dict[str, EffectiveSetting]:
    return {item.reference.name: item for item in list_effective_settings(settings)}


@pytest.mark.parametrize("cls", [Settings, ModelSettings])
def test_every_number_has_a_unit(cls: type[BaseSettings]) -> None:
    """A description of a number starts with its unit: "Seconds that ..."."""
    for item in list_settings(cls):
        is_number = item.type.split(" or ")[0] in ("integer", "number")
        if is_number and not item.name.endswith("port") and item.name not in WITHOUT_UNIT:
            assert item.unit, f"{item.name}: {item.description}"


def test_every_setting_has_a_type_a_description_and_a_default_or_is_required() -> None:
    items = list_settings(Settings) + list_settings(ModelSettings)
    assert [item.name for item in items if not (item.type and item.description)] == []
    required = {item.name for item in items if not item.default}
    assert required == {
        "implementation",
        "tls.certificate",
        "tls.key",
        "auth.jwt.jwks",
        "ray.autoscaling.max",
    }


def test_the_reference_has_no_path_of_this_machine() -> None:
    text = render_markdown(list_settings(Settings))
    assert '`"./.envs"`' in text
    assert text.count("\n") == len(list_settings(Settings)) + 2


def test_origins_follow_the_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLSERVER_HTTP_PORT", "9000")
    monkeypatch.setenv("MLSERVER_GRPC_PORT", "9001")
    monkeypatch.setenv("mlserver_debug", "true")
    monkeypatch.setenv("MLSERVER_MAX_INPUTS", "7")
    Path(".env").write_text("MLSERVER_MAX_INPUTS=8\nMLSERVER_CACHE_SIZE=9\n")
    write(tmp_path / "settings.json", {"http_port": 1, "max_queue_size": 5, "grpc_port": 9001})
    effective = by_name(read_settings(str(tmp_path), {"max_queue_size": 6}))
    assert {
        name: (item.value, item.origin, item.unused_variables)
        for name, item in effective.items()
        if not item.is_default
    } == {
        "http_port": (1, "settings.json", ("variable MLSERVER_HTTP_PORT",)),
        "grpc_port": (9001, "settings.json", ()),
        "debug": (True, "variable MLSERVER_DEBUG", ()),
        "max_queue_size": (6, "option", ()),
        "max_inputs": (7, "variable MLSERVER_MAX_INPUTS", (".env MLSERVER_MAX_INPUTS",)),
        "cache_size": (9, ".env MLSERVER_CACHE_SIZE", ()),
        "model_repository_root": (str(tmp_path), "argument", ()),
    }


def test_an_option_hides_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLSERVER_HTTP_PORT", "9000")
    port = by_name(read_settings(str(tmp_path), {"http_port": 1}))["http_port"]
    assert (port.origin, port.unused_variables) == ("option", ("variable MLSERVER_HTTP_PORT",))


def test_keys_of_objects_have_origins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLSERVER_MAX_AGE", "7")
    monkeypatch.setenv("MLSERVER_KAFKA_CONFIG", '{"b": 1}')
    content = {"cors_settings": {"allow_origins": ["*"]}, "kafka_config": {"a": 2}}
    write(tmp_path / "settings.json", content)
    effective = by_name(read_settings(str(tmp_path)))
    assert effective["cors_settings.allow_origins"].origin == "settings.json"
    assert effective["cors_settings.max_age"].origin == "variable MLSERVER_MAX_AGE"
    assert effective["cors_settings.allow_credentials"].is_default
    kafka = effective["kafka_config"]
    assert kafka.value == {"a": 2, "b": 1}
    assert kafka.origin == "settings.json and variable MLSERVER_KAFKA_CONFIG"


def test_settings_of_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLSERVER_MODEL_VERSION", "v0")
    monkeypatch.setenv("MLSERVER_MODEL_FORMAT", "f")
    path = write(
        tmp_path / "model-settings.json",
        {"implementation": "a.B", "parameters": {"version": "v1", "extra": {"api_key": "x"}}},
    )
    effective = by_name(load_model_settings(str(path)))
    assert effective["parameters.version"].origin == "model-settings.json"
    assert effective["parameters.version"].unused_variables == ("variable MLSERVER_MODEL_VERSION",)
    assert effective["parameters.format"].origin == "variable MLSERVER_MODEL_FORMAT"
    assert (effective["name"].value, effective["name"].origin) == (tmp_path.name, "folder")
    assert effective["parameters.uri"].origin == "folder"
    assert effective["parameters.extra"].value == {"api_key": MASK}


def test_a_process_that_receives_settings_reports_the_same_origins(tmp_path: Path) -> None:
    write(tmp_path / "settings.json", {"http_port": 1, "tls": {"certificate": "c", "key": "k"}})
    settings = read_settings(str(tmp_path), {"grpc_port": 2})
    received = Settings.from_frame(settings.to_frame())
    expected = [item.to_document() for item in list_effective_settings(settings)]
    assert [item.to_document() for item in list_effective_settings(received)] == expected


def test_settings_from_code() -> None:
    settings = Settings(http_port=1)
    settings.grpc_port = 2
    effective = by_name(settings)
    assert effective["http_port"].origin == effective["grpc_port"].origin == "code"
    assert effective["debug"].is_default


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("kafka_config", {"sasl.password": "x"}, {"sasl.password": MASK}),
        ("kafka_config", {"ssl.key.pem": "x", "group": "g"}, {"ssl.key.pem": MASK, "group": "g"}),
        ("extra", {"a": [{"openai_api_key": "x"}]}, {"a": [{"openai_api_key": MASK}]}),
        ("uri", "https://user:pw@host/x", f"https://{MASK}@host/x"),
        ("uri", "https://host/x?a=1&sig=abc", f"https://host/x?a=1&sig={MASK}"),
        ("x", "-----BEGIN RSA PRIVATE KEY-----\nabc", MASK),
        ("keys", "keys.txt", "keys.txt"),
        ("key", "tls.pem", "tls.pem"),
        ("password", "", ""),
        ("secret", None, None),
    ],
)
def test_secrets_are_masked(key: str, value: Any, expected: Any) -> None:
    assert mask(value, key) == expected


def test_the_json_schema_describes_every_setting() -> None:
    for cls, required in ((Settings, None), (ModelSettings, ["implementation"])):
        schema = make_schema(cls)
        assert schema.get("required") == required
        properties = schema["properties"]
        names = {item.name for item in list_settings(cls) if "." not in item.name}
        assert set(properties) == {"$schema", *names}
        assert [name for name in names if not properties[name]["description"]] == []
        assert "additionalProperties" in schema
    assert str(Path.cwd()) not in json.dumps(make_schema(Settings))


def test_the_key_of_an_editors_schema_is_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "settings.json", {"$schema": "settings.schema.json", "http_port": 1})
    path = write(tmp_path / "model-settings.json", {"$schema": "s", "implementation": "a.B"})
    assert read_settings(str(tmp_path)).http_port == 1
    assert load_model_settings(str(path)).implementation_ == "a.B"
    assert caplog.records == []

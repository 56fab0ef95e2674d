"""Settings of the payload log: errors, and what a model's keys change of the server's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserver.payload_log import PayloadLogs
from mlserver.settings import ModelSettings, Settings, SettingsError
from mlserver.settings.payload_log import PayloadLogSettings, merge_payload_logs
from support.settings_environment import isolate_settings


@pytest.fixture(autouse=True)
def _isolate_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate_settings(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("to", "", "the path of a file, or an http:// or https:// address"),
        ("to", "ftp://host/", "an http:// or https:// address with a host"),
        ("to", "http:///path", "an http:// or https:// address with a host"),
        ("to", "http://host:99999/", "an http:// or https:// address with a host"),
        ("to", "http://user:word@host/", "an address without a user name and a password"),
        ("sample", -0.1, "greater than or equal to 0"),
        ("sample", 1.1, "less than or equal to 1"),
        ("what", "all", "'request', 'response' or 'both'"),
        ("max_bytes", 0, "greater than or equal to 1"),
        ("max_file_bytes", "many", "an integer"),
        ("max_files", 0, "greater than or equal to 1"),
        ("mask", "age", "a list"),
        ("masks", ["age"], "did you mean 'mask'?"),
    ],
)
def test_an_invalid_key_is_named(key: str, value: Any, expected: str) -> None:
    for cls in (Settings, ModelSettings):
        values = {"implementation": "a.B", "payload_log": {key: value}}
        with pytest.raises(SettingsError) as caught:
            cls.load(values)
        assert f"field 'payload_log.{key}': expected " in str(caught.value)
        assert expected in str(caught.value)


def test_a_model_overrides_keys_and_adds_masks() -> None:
    server = PayloadLogSettings(to="all.jsonl", sample=0.5, mask=["age"])
    model = PayloadLogSettings(sample=1.0, mask=["name"])
    merged = merge_payload_logs(server, model, "wine")
    assert merged == PayloadLogSettings(to="all.jsonl", sample=1.0, mask=["age", "name"])


def test_the_merge_survives_the_way_to_another_process() -> None:
    """A process that receives the settings must not take defaults for the model's keys."""
    server = Settings(payload_log=PayloadLogSettings(to="all.jsonl", sample=0.5))
    model = ModelSettings(implementation="a.B", payload_log=PayloadLogSettings(what="request"))
    received = (
        Settings.from_frame(server.to_frame()).payload_log,
        ModelSettings.from_frame(model.to_frame()).payload_log,
    )
    merged = merge_payload_logs(*received, "wine")
    assert merged == PayloadLogSettings(to="all.jsonl", sample=0.5, what="request")


def test_nothing_is_logged_without_a_setting_or_with_sample_0() -> None:
    server = PayloadLogSettings(to="all.jsonl")
    assert merge_payload_logs(None, None, "wine") is None
    assert merge_payload_logs(server, PayloadLogSettings(sample=0), "wine") is None


def test_a_missing_destination_names_the_model() -> None:
    with pytest.raises(SettingsError, match=r"Model 'wine': field 'payload_log.to': expected"):
        merge_payload_logs(PayloadLogSettings(sample=1.0), None, "wine")


def test_relative_paths_start_at_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"payload_log": {"to": "log.jsonl"}}')
    payload_log = Settings.parse_file(path).payload_log
    assert payload_log is not None
    assert payload_log.to == str(tmp_path / "log.jsonl")


def test_one_file_has_one_limit(tmp_path: Path) -> None:
    to = str(tmp_path / "log.jsonl")
    logs = PayloadLogs(Settings(payload_log=PayloadLogSettings(to=to)))
    logs.check(ModelSettings(name="a", implementation="a.B"))
    other = PayloadLogSettings(max_files=2)
    with pytest.raises(SettingsError, match=r"Model 'b'.*expected 134217728 and 8.* and 2"):
        logs.check(ModelSettings(name="b", implementation="a.B", payload_log=other))

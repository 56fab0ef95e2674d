"""Errors of settings show what was received, but no secret."""

from __future__ import annotations

from typing import Any

import pytest

from mlserver.settings import ModelSettings, Settings, SettingsError

SECRET = "hunter2"


@pytest.mark.parametrize(
    "values",
    [
        {"payload_log": {"to": f"https://me:{SECRET}@host/events"}},
        {"payload_log": {"to": f"ftp://host/?token={SECRET}"}},
        {"payload_log": {"password": SECRET}},
        {"kafka_config": [{"sasl.password": SECRET}]},
        {"auth": {"api_keys": [{"key": SECRET}]}},
        {"tls": f"-----BEGIN PRIVATE KEY----- {SECRET}"},
    ],
)
def test_received_values_are_masked(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"received .*\*\*\*") as caught:
        Settings.load(values)
    assert SECRET not in str(caught.value)


def test_a_variable_that_is_no_json_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_KAFKA_CONFIG", f'{{"sasl.password": "{SECRET}"')
    with pytest.raises(SettingsError, match=r"expected JSON, received \*\*\*") as caught:
        Settings.load()
    assert SECRET not in str(caught.value)


def test_other_values_are_shown() -> None:
    with pytest.raises(SettingsError, match='received "many"'):
        ModelSettings.load({"name": "m", "max_batch_size": "many"})

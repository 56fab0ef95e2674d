"""`mlserver settings`: reference, values in effect, JSON schemas; the command as a process."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest

from mlserver.settings import ModelSettings, Settings
from mlserver.settings.reference import list_settings
from support.server import run_mlserver


def test_the_reference_has_every_setting() -> None:
    for arguments in ((), ("--markdown",)):
        code, text = run_mlserver("settings", *arguments)
        assert code == 0
        names = [item.name for item in list_settings(Settings) + list_settings(ModelSettings)]
        assert [name for name in names if name not in text] == []


def test_show_names_the_origin_of_each_value(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"http_port": 1, "kafka_config": {"password": "pw"}}')
    (tmp_path / "price").mkdir()
    (tmp_path / "price" / "model-settings.json").write_text('{"implementation": "a.B"}')
    env = {"MLSERVER_HTTP_PORT": "9", "MLSERVER_GRPC_PORT": "7"}
    code, text = run_mlserver("settings", "--show", str(tmp_path), env=env)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert code == 0
    assert "http_port 1 settings.json (default 8080)" in lines
    assert "grpc_port 7 variable MLSERVER_GRPC_PORT (default 8081)" in lines
    assert "request_timeout 300 seconds default" in lines
    assert "variable MLSERVER_HTTP_PORT is not used: settings.json sets 'http_port'" in lines
    assert 'name "price" folder (default "")' in lines
    assert "pw" not in text.replace("password", "")


def test_show_says_how_long_a_shutdown_takes(tmp_path: Path) -> None:
    """0 + 30 + 5 + 5 s by default; the page on Kubernetes has the same number."""
    code, text = run_mlserver("settings", "--show", str(tmp_path))
    assert code == 0
    assert "A shutdown takes up to 40 s" in text
    (tmp_path / "settings.json").write_text(
        '{"shutdown_delay": 10, "drain_timeout": 20, "parallel_workers_timeout": 1}'
    )
    _, text = run_mlserver("settings", "--show", str(tmp_path))
    assert "A shutdown takes up to 36 s" in text


def test_show_of_a_folder_with_errors(tmp_path: Path) -> None:
    (tmp_path / "model-settings.json").write_text(
        '{"implementation": "a.B", "max_batch_size": "x"}'
    )
    code, text = run_mlserver("settings", "--show", str(tmp_path))
    assert code == 0
    assert "field 'max_batch_size': expected an integer, received \"x\"" in text
    (tmp_path / "settings.json").write_text('{"http_port": "x"}')
    code, text = run_mlserver("settings", "--show", str(tmp_path))
    assert (code, text.count("\n")) == (2, 1)


@pytest.mark.parametrize("file", ["settings.json", "model-settings.json"])
def test_the_schema_accepts_and_refuses_what_the_server_does(file: str) -> None:
    code, text = run_mlserver("settings", "--json-schema", file)
    assert code == 0
    schema = json.loads(text)
    assert jsonschema_rs.meta.is_valid(schema)
    valid = {"implementation": "a.B", "max_batch_size": 3} if "model" in file else {"http_port": 1}
    jsonschema_rs.validate(schema, {**valid, "$schema": "x", "_about": "y"})
    for wrong in ({"htp_port": 1}, {"request_timeout": 0}, {"max_queue_size": "many"}):
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(schema, {**valid, **wrong})


def test_json_schema_defaults_to_the_servers() -> None:
    assert run_mlserver("settings", "--json-schema") == run_mlserver(
        "settings", "--json-schema", "settings.json"
    )


def test_show_of_an_empty_folder(tmp_path: Path) -> None:
    code, text = run_mlserver("settings", "--show", str(tmp_path))
    assert code == 0
    assert "Model" not in text


def test_one_output_at_a_time(tmp_path: Path) -> None:
    code, text = run_mlserver("settings", "--markdown", "--show", str(tmp_path))
    assert code == 2
    assert "Use one of --show, --markdown and --json-schema" in text

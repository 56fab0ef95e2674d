"""Addresses, the request to try and failures of the start-up report."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path
from typing import Any

import pytest

from mlserver.custom_routes import Route
from mlserver.metrics import ServerMetrics
from mlserver.parallel.executor import LoadedModel, ModelInfo
from mlserver.registry import ModelVersion
from mlserver.settings import ModelSettings, Settings
from mlserver.settings.addresses import get_client_host
from mlserver.startup_report import MAX_EXAMPLE_BYTES, add_cure, log_found, make_ready_report
from mlserver.types import MetadataModelResponse

REST = {"REST": "http://localhost:1"}


class Loaded:
    """A loaded model as the report sees it."""

    available = True
    unavailable_reason = ""

    def __init__(self, config: dict[str, Any]) -> None:
        metadata = MetadataModelResponse(name="m", platform="", inputs=[], outputs=[])
        self.info = ModelInfo(metadata, (Route("/invocations", wire="w", config=config),))


def make_entry(
    name: str, config: dict[str, Any] | None, folder: Path | None = None
) -> ModelVersion:
    settings = ModelSettings(name=name, implementation="a.B")
    if folder is not None:
        path = folder / "model-settings.json"
        path.write_text(json.dumps({"name": name, "implementation": "a.B"}))
        settings = ModelSettings.parse_file(path)
    entry = ModelVersion(settings, ServerMetrics("rest_server").for_model(name, None))
    loaded: LoadedModel | None = None if config is None else Loaded(config)  # type: ignore[assignment]
    entry.loaded = loaded
    return entry


def read(command: tuple[str, ...]) -> list[str]:
    return shlex.split(" ".join(command))


def test_the_shortest_example_is_quoted_for_the_shell() -> None:
    example = {"inputs": [{"name": "it's $HOME `x`", "data": ["a\nb"]}]}
    long = {"inputs": ["x" * 500]}
    entries = [
        make_entry("long", {"v2_example": long}),
        make_entry("a/b c", {"v2_example": example}),
    ]
    report = make_ready_report(Settings(), REST, entries)
    arguments = read(report.command)
    assert report.title == "Try the model 'a/b c'"
    assert arguments[:3] == ["curl", "-s", "http://localhost:1/v2/models/a%2Fb%20c/infer"]
    assert json.loads(arguments[-1]) == example


def test_an_example_of_invocations_and_one_that_is_too_long() -> None:
    report = make_ready_report(Settings(), REST, [make_entry("m", {"example": {"inputs": [1]}})])
    assert read(report.command)[2] == "http://localhost:1/v2/models/m/invocations"
    long = {"v2_example": {"inputs": ["x" * MAX_EXAMPLE_BYTES]}}
    report = make_ready_report(Settings(), REST, [make_entry("m", long)])
    assert read(report.command) == ["curl", "-s", "http://localhost:1/v2/models/m"]


def test_the_authors_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample-request.json").write_text("{}")
    entries = [make_entry("m", {}, tmp_path)]
    assert read(make_ready_report(Settings(), REST, entries).command)[-1] == (
        f"@{tmp_path / 'sample-request.json'}"
    )
    monkeypatch.chdir(tmp_path)
    assert read(make_ready_report(Settings(), REST, entries).command)[-1] == "@sample-request.json"


def test_no_request_without_a_model_or_a_client_certificate() -> None:
    assert make_ready_report(Settings(), REST, [make_entry("m", None)]).command == ()
    tls = {"certificate": "c", "key": "k", "client_ca": "a"}
    assert make_ready_report(Settings(tls=tls), REST, [make_entry("m", {})]).command == ()


def test_a_server_with_authentication_needs_a_key() -> None:
    settings = Settings(auth={"keys": "keys.txt"}, tls={"certificate": "c", "key": "k"})
    command = make_ready_report(settings, REST, [make_entry("m", {})]).command
    url = "http://localhost:1/v2/models/m"
    assert command == (f'curl -sk -H "authorization: Bearer $API_KEY" {url}',)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({}, ["REST", "metrics", "docs", "console"]),
        ({"metrics_endpoint": ""}, ["REST", "docs", "console"]),
        ({"console": False}, ["REST", "metrics", "docs"]),
        ({"production": True}, ["REST", "metrics", "docs"]),
    ],
)
def test_only_addresses_that_are_on(fields: dict[str, Any], expected: list[str]) -> None:
    assert list(make_ready_report(Settings(**fields), REST, []).addresses) == expected


@pytest.mark.parametrize(
    "host, expected",
    [("0.0.0.0", "localhost"), ("::", "localhost"), ("127.0.0.1", "127.0.0.1"), ("a.b", "a.b")],
)
def test_client_host(host: str, expected: str) -> None:
    assert get_client_host(host) == expected


@pytest.mark.parametrize(
    "reason, expected",
    [
        ("'a.B' cannot be imported: x", "check 'implementation' in model-settings.json"),
        ("No such file: x", "check 'parameters.uri'"),
        ("the weights are missing", "run: mlserver check 'my models' --verbose"),
        ("f() got an unexpected keyword argument 'x'", "run: mlserver check 'my models' --verbose"),
        ("it is not installed: pip install x", ""),
        ("field 'a': expected an integer, received 1", ""),
    ],
)
def test_reasons_say_what_to_do(reason: str, expected: str) -> None:
    text = add_cure(reason, "my models")
    assert text.startswith(reason)
    assert expected in text.removeprefix(reason)
    assert bool(expected) == (text != reason)


def test_names_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    models = [ModelSettings(name=f"m{number}", implementation="a.B") for number in range(30)]
    with caplog.at_level(logging.INFO, "mlserver"):
        log_found(models, {"x": "wrong"}, Settings(parallel_workers=2))
    [text] = [record.message for record in caplog.records]
    assert "loading 30 models of this folder: m0, m1," in text
    assert text.endswith("m19 and 10 more; 1 with invalid settings; 2 worker processes")

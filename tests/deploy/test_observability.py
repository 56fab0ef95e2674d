"""The dashboard and the alerts: strict schemas, and each expression on a server that was used."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import yaml

from support.ports import free_ports
from support.promql import TARGET_LABELS, Selector, read_selectors
from support.server import create_client
from support.used_server import UsedServer, run_used_server

FOLDER = Path(__file__).parents[2] / "deploy" / "observability"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$model": ".*"}


def fill(expression: str) -> str:
    """Replace the dashboard's variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


EXPRESSIONS = {
    **{
        f"{panel['title']} {target['refId']}": fill(target["expr"])
        for panel in PANELS
        for target in panel["targets"]
    },
    **{rule["alert"]: rule["expr"] for rule in RULES},
}


# -- schemas --


def strict(**properties: Any) -> dict[str, Any]:
    """A schema of an object that has all of these properties and no other."""
    names = list(properties)
    return {
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": False,
    }


TEXT = {"type": "string", "minLength": 1}
WHOLE = {"type": "integer", "minimum": 0}
SOURCE = strict(type={"const": "prometheus"}, uid={"const": "${datasource}"})
GRID = strict(h=WHOLE, w={"enum": [6, 8, 12, 24]}, x=WHOLE, y=WHOLE)
TARGET = strict(refId=TEXT, datasource=SOURCE, expr=TEXT, legendFormat=TEXT)
DEFAULTS = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["short", "s", "bytes", "reqps", "percentunit"]},
        "min": {"const": 0},
        "custom": strict(
            drawStyle={"const": "line"},
            lineWidth=WHOLE,
            fillOpacity=WHOLE,
            showPoints={"enum": ["never", "auto", "always"]},
            spanNulls={"type": "boolean"},
        ),
    },
    "required": ["unit", "min"],
    "additionalProperties": False,
}
PANEL = strict(
    id=WHOLE,
    type={"enum": ["stat", "timeseries"]},
    title=TEXT,
    description=TEXT,
    datasource=SOURCE,
    gridPos=GRID,
    fieldConfig=strict(defaults=DEFAULTS, overrides={"const": []}),
    targets={"type": "array", "items": TARGET, "minItems": 1},
    options={"type": "object"},
)
ROW = strict(
    id=WHOLE,
    type={"const": "row"},
    title=TEXT,
    collapsed={"const": False},
    gridPos=GRID,
    panels={"const": []},
)
DURATION = {"type": "string", "pattern": "^[0-9]+[smhd]$"}
RULE = {
    "type": "object",
    "properties": {
        "alert": {"type": "string", "pattern": "^MLServer[A-Za-z]+$"},
        "expr": TEXT,
        "for": DURATION,
        "labels": strict(severity={"enum": ["critical", "warning"]}),
        "annotations": strict(summary=TEXT, description=TEXT),
    },
    "required": ["alert", "expr", "labels", "annotations"],
    "additionalProperties": False,
}
GROUPS = strict(
    groups={
        "type": "array",
        "items": strict(name=TEXT, rules={"type": "array", "items": RULE, "minItems": 1}),
    }
)


def test_the_alert_file_has_only_known_fields() -> None:
    jsonschema_rs.validate(GROUPS, ALERTS)
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_labels_in_annotations_are_in_the_result() -> None:
    """An alert is grouped by the labels that its text names."""
    for rule in RULES:
        named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        groupings = {label for entry in read_selectors(rule["expr"]) for label in entry.groupings}
        assert named <= groupings, rule["alert"]


def test_promtool_accepts_the_alert_file() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run(
        [promtool, "check", "rules", str(FOLDER / "alerts.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_has_only_known_fields() -> None:
    for panel in DASHBOARD["panels"]:
        jsonschema_rs.validate(ROW if panel["type"] == "row" else PANEL, panel)
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == variables


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        columns = range(grid["x"], grid["x"] + grid["w"])
        area = {(x, y) for x in columns for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not cells & area, panel["title"]
        assert max(columns) < 24
        cells |= area


# -- on a live server --


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsedServer]:
    with run_used_server(tmp_path_factory.mktemp("used")) as used:
        yield used


@pytest.fixture(scope="module")
def samples(server: UsedServer) -> dict[str, list[dict[str, str]]]:
    return server.samples()


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=list(EXPRESSIONS))
def test_every_selector_finds_a_sample(
    samples: dict[str, list[dict[str, str]]], expression: str
) -> None:
    selectors: list[Selector] = read_selectors(expression)
    assert selectors
    for selector in selectors:
        selected = [labels for labels in samples.get(selector.name, []) if selector.matches(labels)]
        assert selected, f"no sample on the page: {selector}"
        assert selector.groupings - TARGET_LABELS <= set(selected[0]), selector


@pytest.mark.slow
def test_prometheus_evaluates_every_expression(server: UsedServer, tmp_path: Path) -> None:
    """A real Prometheus scrapes the server; each expression has a value, each rule is healthy."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    (port,) = free_ports(1)
    target = server.metrics_url.removeprefix("http://")
    jobs = [{"job_name": "mlserver", "static_configs": [{"targets": [target]}]}]
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    rules = [str(FOLDER / "alerts.yaml")]
    settings = {"global": every, "rule_files": rules, "scrape_configs": jobs}
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    process = subprocess.Popen(
        [
            program,
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with create_client(f"http://127.0.0.1:{port}/api/v1") as client:
            missing = set(EXPRESSIONS)
            deadline = time.monotonic() + 120
            while missing and time.monotonic() < deadline:
                missing = {name for name in missing if not has_value(client, EXPRESSIONS[name])}
                time.sleep(0.5)
            assert not missing
            groups = client.get("/rules").json()["data"]["groups"]
        rules_read = [rule for group in groups for rule in group["rules"]]
        assert len(rules_read) == len(RULES)
        assert {rule["health"] for rule in rules_read} <= {"ok", "unknown"}
    finally:
        process.terminate()
        process.wait(30)


def has_value(client: httpx.Client, expression: str) -> bool:
    """Whether an expression has a value now; of an alert, without its comparison."""
    expression = re.sub(r"\s(>|==)\s[0-9.]+\s*$", "", expression)
    try:
        answer = client.get("/query", params={"query": expression})
    except httpx.ConnectError:  # Prometheus is starting
        return False
    if answer.status_code == 503:  # it is reading its storage
        return False
    result = answer.json()
    assert result["status"] == "success", result
    return bool(result["data"]["result"])

"""Every metric that the server declares has a value on the page of a server that was used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlserver.metrics.model_metrics import ModelInstruments
from mlserver.metrics.server_metrics import ServerMetrics
from mlserver.metrics.state_instruments import StateInstruments
from mlserver.version import __version__
from support.used_server import UsedServer, run_used_server

SUFFIXES = {"Counter": "_total", "Gauge": "", "Summary": "_count", "Histogram": "_bucket"}
DECLARED = [
    *ServerMetrics().instruments(),
    *StateInstruments().all(),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsedServer]:
    with run_used_server(tmp_path_factory.mktemp("used")) as used:
        yield used


def test_every_declared_metric_has_a_value(server: UsedServer) -> None:
    assert {entry.name for entry in ModelInstruments().all()} < {entry.name for entry in DECLARED}
    samples = server.samples()
    names = {entry.name + SUFFIXES[type(entry).__name__]: entry for entry in DECLARED}
    assert [name for name in names if name not in samples] == []
    for name, entry in names.items():
        assert set(samples[name][0]) - {"le"} == set(entry.labels), name


def test_states_of_models_and_processes(server: UsedServer) -> None:
    page = server.read_page()
    assert 'model_ready{model="echo",version=""} 1.0' in page
    assert 'model_ready{model="broken",version=""} 0.0' in page
    assert 'model_load_failures_total{model="broken",version=""} 1.0' in page
    assert 'model_load_failures_total{model="echo",version=""} 0.0' in page
    assert 'model_load_seconds_count{model="echo",version=""} 1.0' in page
    assert f'mlserver_info{{version="{__version__}"}} 1.0' in page
    assert 'mlserver_workers{pool="http",state="ready"} 1.0' in page
    assert 'mlserver_workers{pool="http",state="missing"} 0.0' in page
    assert 'mlserver_worker_deaths_total{kind="http_worker",reason="exit"} 0.0' in page
    for pid in server.workers:
        assert f'pid="{pid}",pool="' in page

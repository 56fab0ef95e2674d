"""The templates of a server: shared by the pools of one environment, and stopped without users."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest

from mlserver.env.environment import Environment
from mlserver.parallel.processes.linux import can_adopt
from mlserver.parallel.processes.template import Template
from mlserver.parallel.processes.templates import (
    Templates,
    create_worker_launcher,
    explain_fresh_start,
    start_early,
    worker_variables,
)
from mlserver.settings import Settings

SETTINGS = Settings(parallel_workers=2)
ENVIRONMENT = Environment("k1", "/env/one", "one")
OTHER = Environment("k2", "/env/two", "two")

pytestmark = pytest.mark.skipif(not can_adopt(), reason="workers are not forked on this system")


@pytest.fixture
async def templates() -> AsyncIterator[Templates]:
    created = Templates(SETTINGS)
    yield created
    await created.stop()


async def test_pools_of_one_environment_share_a_template(templates: Templates) -> None:
    own = templates.acquire(None, {})
    assert isinstance(own, Template)
    assert own.pid is None  # no process before it is needed
    assert templates.acquire(None, {}) is own
    first = templates.acquire(ENVIRONMENT, {})
    assert first is not own
    assert templates.acquire(Environment("k1", "/env/one", "renamed"), {}) is first
    assert templates.acquire(OTHER, {}) is not first


async def test_a_template_is_stopped_by_its_last_user(templates: Templates) -> None:
    first = templates.acquire(ENVIRONMENT, {})
    templates.acquire(ENVIRONMENT, {})
    await templates.release(ENVIRONMENT)
    assert templates.acquire(ENVIRONMENT, {}) is first
    await templates.release(ENVIRONMENT)
    await templates.release(ENVIRONMENT)
    await templates.release(ENVIRONMENT)  # not acquired: nothing happens
    again = templates.acquire(ENVIRONMENT, {})
    assert again is not first
    await templates.release(ENVIRONMENT)
    assert templates.acquire(ENVIRONMENT, {}) is not again


async def test_the_early_process_is_that_of_the_own_environment() -> None:
    early = start_early(SETTINGS)
    assert early is not None
    templates = Templates(SETTINGS, early)
    try:
        other = templates.acquire(ENVIRONMENT, {})
        own = templates.acquire(None, {})
        assert other is not None
        assert own is not None
        assert (other.pid, own.pid) == (None, early.pid)
        await templates.release(None)
        assert early.is_ended
        again = templates.acquire(None, {})
        assert again is not None
        assert again.pid is None
    finally:
        await templates.stop()


async def test_an_early_process_without_users_is_stopped() -> None:
    early = start_early(SETTINGS)
    assert early is not None
    templates = Templates(SETTINGS, early)
    await templates.stop()
    assert early.is_ended
    await templates.stop()


FRESH = {
    "setting 'worker_start' is 'fresh'": Settings(worker_start="fresh"),
    "setting 'engine' is 'ray'": Settings(engine="ray"),
}


@pytest.mark.parametrize("reason", FRESH)
async def test_settings_without_forks(reason: str) -> None:
    settings = FRESH[reason]
    assert explain_fresh_start(settings) == reason
    assert start_early(settings) is None
    assert Templates(settings).acquire(None, {}) is None


async def test_a_server_without_workers_has_no_template() -> None:
    settings = Settings(parallel_workers=0)
    assert explain_fresh_start(settings) is None
    assert start_early(settings) is None
    assert Templates(settings).acquire(None, {}) is None


async def test_other_systems_do_not_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explain_fresh_start(SETTINGS) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert explain_fresh_start(SETTINGS) == "this system is not Linux"
    assert Templates(SETTINGS).acquire(None, {}) is None


def test_variables_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's variables precede the defaults, those of the pool precede both."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setenv("MARK", "server")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    variables = worker_variables(SETTINGS, None, {"MARK": "pool"})
    assert variables["OMP_NUM_THREADS"] == "7"
    assert variables["ORT_DISABLE_TELEMETRY"] == "0"
    assert variables["MARK"] == "pool"
    assert int(variables["MKL_NUM_THREADS"]) >= 1
    assert "JE_ARROW_MALLOC_CONF" in variables
    in_environment = worker_variables(SETTINGS, ENVIRONMENT, {"MARK": "pool"})
    assert (in_environment["VIRTUAL_ENV"], in_environment["MARK"]) == ("/env/one", "pool")


async def test_a_launcher_holds_a_template_of_its_environment(templates: Templates) -> None:
    create_worker_launcher("pool 1", SETTINGS, ENVIRONMENT, {}, templates, ())
    template = templates.acquire(ENVIRONMENT, {})
    await templates.release(ENVIRONMENT)
    assert templates.acquire(ENVIRONMENT, {}) is template
    alone = create_worker_launcher("pool 2", SETTINGS, None, {}, None, ())
    alone.prepare(["json"])  # without a template: nothing is imported
    assert not alone.has_stopped_forking

"""How the workers of a pool start: forks or new interpreters, and what the log says about it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from mlserver.parallel.processes import fork_refusals, worker_launcher
from mlserver.parallel.processes.fork_refusals import ForkRefusals
from mlserver.parallel.processes.launchers import InterpreterLauncher
from mlserver.parallel.processes.template import Template
from mlserver.parallel.processes.templates import worker_variables
from mlserver.parallel.processes.worker_launcher import WorkerLauncher
from mlserver.settings import Settings
from unit.parallel.test_templates import COMMAND, LIMIT

VARIABLES = worker_variables(Settings(parallel_workers=1), None, {})


@pytest.fixture
async def launcher() -> AsyncIterator[WorkerLauncher]:
    """Forks a template; its new interpreters are processes that end at once."""
    template = Template(COMMAND, VARIABLES, LIMIT)
    yield WorkerLauncher("pool 7", InterpreterLauncher(["true"], VARIABLES), template, {})
    await template.stop()


async def is_forked(launcher: WorkerLauncher) -> bool:
    """Launch a worker and end it."""
    launched = await launcher.launch([0])
    launched.process.kill()
    launched.process.wait()
    return launched.is_forked


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "mlserver")
    return caplog


async def test_the_way_is_logged_once(
    launcher: WorkerLauncher, lines: pytest.LogCaptureFixture
) -> None:
    assert await is_forked(launcher)
    assert await is_forked(launcher)
    assert lines.messages == ["Workers of pool 7 start as forks of a template process"]


async def test_a_large_environment_means_new_interpreters(
    launcher: WorkerLauncher, lines: pytest.LogCaptureFixture
) -> None:
    launcher._variables = {f"BIG_{number}": "x" * 100_000 for number in range(3)}
    assert not await is_forked(launcher)
    assert not await is_forked(launcher)
    (line,) = lines.messages
    assert line.startswith(
        "Workers of pool 7 start as new interpreters, not as forks: a request of"
    )
    assert line.endswith("could not be sent to the template process: Message too long")


async def test_failed_forks_mean_new_interpreters_for_some_time(
    launcher: WorkerLauncher, lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_launcher, "FAILURE_PAUSES", (1e6,))
    assert await is_forked(launcher)
    launcher.record_start(is_forked=True, is_ready=False)
    launcher.record_start(is_forked=True, is_ready=False)
    assert not await is_forked(launcher)
    assert lines.messages[1:] == [
        "Workers of pool 7 start as new interpreters, not as forks: 2 forked workers in a row ended"
        " at their start"
    ]
    launcher._paused_until = 0.0
    assert await is_forked(launcher)
    assert lines.messages[2:] == ["Workers of pool 7 start as forks of a template process"]


async def test_after_the_last_pause_forks_are_not_tried_again(
    launcher: WorkerLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_launcher, "FAILURE_PAUSES", ())
    launcher.record_start(is_forked=True, is_ready=False)
    launcher.record_start(is_forked=True, is_ready=False)
    assert not await is_forked(launcher)
    assert launcher._template is None


async def test_the_reason_of_new_interpreters(lines: pytest.LogCaptureFixture) -> None:
    interpreters = InterpreterLauncher(["true"], VARIABLES)
    launcher = WorkerLauncher("pool 7", interpreters, None, {}, (), "setting 'x' is 'y'")
    assert not await is_forked(launcher)
    assert not await is_forked(launcher)
    assert lines.messages == [
        "Workers of pool 7 start as new interpreters, not as forks: setting 'x' is 'y'"
    ]


async def test_a_refusal_is_remembered_for_some_time(
    launcher: WorkerLauncher, lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(models: str) -> WorkerLauncher:
        interpreters = InterpreterLauncher(["true"], VARIABLES)
        created = WorkerLauncher("pool 8", interpreters, launcher._template, {})
        created.remember(refusals, models)
        return created

    refusals = ForkRefusals()
    first = create("m")
    assert await is_forked(first)
    first.stop_forking("it hangs")
    lines.clear()
    assert not await is_forked(create("m"))
    assert await is_forked(create("n"))
    assert lines.messages == [
        "Workers of pool 8 start as new interpreters, not as forks: it hangs, in an earlier pool of"
        " the model",
        "Workers of pool 8 start as forks of a template process",
    ]
    monkeypatch.setattr(fork_refusals, "MEMORY_SECONDS", 0.0)
    assert await is_forked(create("m"))
    refusals.record("n", "it hangs")
    assert list(refusals._reasons) == ["n"]

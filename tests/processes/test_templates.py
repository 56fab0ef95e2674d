"""Workers forked from a template process: which ones are, and kills at any moment."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from support.chaos import Chaos, infer_chaos, wait_until_gone, write_chaos
from support.repository import write_model
from support.server import STOP_LIMIT, Serve, Server, read_name
from support.slow import slow

SLOW = pytest.mark.slow  # further moments of the same test
NOT_FORKED = "Workers of pool 1 start as new interpreters, not as forks: "
# Writes the name of each process that imports it.
RECORDER = """
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse

NAME = Path("/proc/self/comm").read_text().strip()
(Path(__file__).parent / f"imported-by-{NAME}").touch()


class Recorder(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return InferenceResponse(model_name=self.name, outputs=[])
"""


@pytest.fixture
def chaos(tmp_path: Path) -> Chaos:
    return write_chaos(tmp_path)


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def get_parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until_complete(server: Server, workers: int, without: list[int]) -> None:
    """Return when the pool and its template are complete, without these processes, and ready."""
    server.wait(
        lambda: (
            len(server.workers) == workers
            and len(server.templates) == 1
            and not {*server.workers, *server.templates} & set(without)
        ),
        "the workers and the template were there",
    )
    server.wait_until("/v2/health/ready")


# -- which workers are forked --


def test_workers_are_forks_and_children_of_the_server(
    serve: Serve, tmp_path: Path, chaos: Chaos
) -> None:
    server = serve(tmp_path, workers=2)
    assert len(server.templates) == 1
    assert [read_name(pid) for pid in server.workers] == ["mlserver-worker"] * 2
    assert [get_parent(pid) for pid in server.workers] == [server.process.pid] * 2
    assert NOT_FORKED not in server.log
    server.wait_for_line("Workers of pool 1 start as forks of a template process")
    assert str(server.log).count("Workers of pool 1 start as") == 1
    assert infer_chaos(server, "echo", "a") == (200, "a")


def test_new_interpreters_on_request(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=2, env={"MLSERVER_WORKER_START": "fresh"})
    assert server.templates == []
    assert len(server.workers) == 2
    before = server.workers
    kill(before)
    server.wait(
        lambda: len(server.workers) == 2 and not set(server.workers) & set(before),
        "the workers were replaced",
    )
    reason = f"{NOT_FORKED}setting 'worker_start' is 'fresh'"
    server.wait_for_line(reason)
    assert str(server.log).count(reason) == 1


def test_a_thread_in_the_template_means_new_interpreters(
    serve: Serve, tmp_path: Path, chaos: Chaos
) -> None:
    """The log has the reason once; there is no template, and workers are replaced."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "sitecustomize.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=[1e6], name='spy', daemon=True).start()\n"
    )
    server = serve(tmp_path, workers=2, env={"PYTHONPATH": str(packages)})
    assert infer_chaos(server, "echo", "a") == (200, "a")
    before = server.workers
    kill(before)
    server.wait(
        lambda: len(server.workers) == 2 and not set(server.workers) & set(before),
        "the workers were replaced",
    )
    server.wait_until("/v2/health/ready")
    assert server.templates == []
    reason = f"{NOT_FORKED}an imported package has started the thread 'spy'"
    server.wait_for_line(reason)
    assert str(server.log).count(reason) == 1
    assert infer_chaos(server, "echo", "b") == (200, "b")


def test_code_of_models_is_not_imported_in_the_template(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "recorder", "Recorder", source=RECORDER)
    server = serve(tmp_path, workers=1)
    before = server.workers
    kill(before)
    wait_until_complete(server, 1, before)
    names = [path.name for path in (tmp_path / "recorder").glob("imported-by-*")]
    assert names == ["imported-by-mlserver-worker"]


# -- killed --


def test_the_template_killed(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    """Its workers answer as before; a new template is forked for their replacements."""
    server = serve(tmp_path, workers=2)
    workers, templates = server.workers, server.templates
    kill(templates)
    wait_until_complete(server, 2, templates)
    # Not at once: a process that is to be a template has the name of a worker for a moment.
    server.wait(lambda: server.workers == workers, "the workers were those of before")
    assert infer_chaos(server, "echo", "a") == (200, "a")
    server.wait_for_line("ended unexpectedly (signal SIGKILL); starting another")

    kill(workers)
    wait_until_complete(server, 2, [*workers, *templates])
    assert [read_name(pid) for pid in server.workers] == ["mlserver-worker"] * 2


def test_template_and_workers_killed_at_once(serve: Serve, tmp_path: Path, chaos: Chaos) -> None:
    server = serve(tmp_path, workers=2)
    before = [*server.workers, *server.templates]
    kill(before)
    wait_until_complete(server, 2, before)
    assert infer_chaos(server, "echo", "a") == (200, "a")
    assert NOT_FORKED not in server.log


@pytest.mark.parametrize("first", ["template", slow("worker")])
def test_killed_while_a_replacement_loads(
    serve: Serve, tmp_path: Path, chaos: Chaos, first: str
) -> None:
    server = serve(tmp_path, workers=1)
    chaos.remove_marker("loading")
    chaos.add_marker("block-load")
    kill(server.workers)
    server.wait(lambda: chaos.has_marker("loading"), "the replacement loaded")
    server.wait_until("/v2/health/ready", 400)
    before = server.templates if first == "template" else server.workers
    kill(before)
    chaos.remove_marker("block-load")
    wait_until_complete(server, 1, before)
    assert infer_chaos(server, "echo", "a") == (200, "a")


@SLOW
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_at_any_moment(serve: Serve, tmp_path: Path, chaos: Chaos, seed: int) -> None:
    """Workers, template and processes between them, while others of them start."""
    server = serve(tmp_path, workers=2)
    moments = random.Random(seed)
    killed: list[int] = []
    for _ in range(12):
        chosen = [pid for pid in [*server.workers, *server.templates] if moments.random() < 0.5]
        kill(chosen)
        killed += chosen
        time.sleep(moments.choice((0.001, 0.01, 0.05, 0.3)))
    server.wait(
        lambda: len(server.workers) == 2 and not set(server.workers) & set(killed),
        "the workers were replaced",
    )
    server.wait_until("/v2/health/ready")
    assert infer_chaos(server, "echo", "a") == (200, "a")
    server.wait(lambda: not list_zombies(server), "no ended process was left")


def list_zombies(server: Server) -> list[str]:
    """Names of ended children of the server that it has not waited for."""
    zombies = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if state == "Z" and int(parent) == server.process.pid:
            zombies.append(name)
    return zombies


@pytest.mark.parametrize("moment", [0.2, *map(slow, (0.0, 0.4, 0.7, 1.0, 1.5))])
def test_the_server_killed_while_it_starts(tmp_path: Path, chaos: Chaos, moment: float) -> None:
    """Nothing of it remains, whether the template imports, forks or has forked."""
    server = Server(tmp_path, workers=2, ready=None)
    server.__enter__()
    time.sleep(moment)
    server.process.kill()
    server.process.wait(STOP_LIMIT)
    wait_until_gone(server.list_processes())
    server.stop()


@pytest.mark.parametrize("moment", [0.05, *map(slow, (0.0, 0.002, 0.01, 0.2))])
def test_the_server_killed_while_workers_are_forked(
    tmp_path: Path, chaos: Chaos, moment: float
) -> None:
    server = Server(tmp_path, workers=2)
    server.__enter__()
    kill(server.workers)
    time.sleep(moment)
    server.process.kill()
    server.process.wait(STOP_LIMIT)
    wait_until_gone(server.list_processes())
    server.stop()


@pytest.mark.slow
def test_a_stopped_template_does_not_stop_replacements(
    serve: Serve, tmp_path: Path, chaos: Chaos
) -> None:
    """A template that does not answer is killed, and workers are new interpreters."""
    server = serve(tmp_path, workers=1)
    (template,) = server.templates
    os.kill(template, signal.SIGSTOP)
    before = server.workers
    kill(before)
    server.wait(
        lambda: len(server.workers) == 1 and server.workers != before and not server.templates,
        "the worker was replaced",
    )
    server.wait_until("/v2/health/ready")
    server.wait_for_line(f"{NOT_FORKED}the template process was not forked within 10 s")
    assert infer_chaos(server, "echo", "a") == (200, "a")


def test_the_exit_of_a_forked_worker_is_reported(
    serve: Serve, tmp_path: Path, chaos: Chaos
) -> None:
    server = serve(tmp_path, workers=1)
    (pid,) = server.workers
    os.kill(pid, signal.SIGSEGV)
    server.wait_for_line(f"Worker {pid} ended unexpectedly (signal SIGSEGV)")
    wait_until_complete(server, 1, [pid])
    (pid,) = server.workers
    infer_chaos(server, "leave", "a")
    server.wait_for_line(f"Worker {pid} ended unexpectedly (exit code 0)")

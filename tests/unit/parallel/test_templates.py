"""Template processes: forks, refusals, learned modules, and what a forked process inherits."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlserver.parallel.processes import linux
from mlserver.parallel.processes import template as processes_template
from mlserver.parallel.processes.launchers import Launched
from mlserver.parallel.processes.template import Template
from mlserver.parallel.processes.template_process import (
    ForkRefused,
    ModuleConflict,
    RequestNotSent,
    TemplateProcess,
)
from mlserver.parallel.processes.templates import worker_variables
from mlserver.parallel.worker.fork_safety import find_obstacle
from mlserver.settings import Settings
from support.server import read_name

COMMAND = [sys.executable, "-P", "-m", "mlserver.parallel.worker.template"]
LIMIT = 60.0
# Connections that `fork` made in the running test.
SERVER_ENDS: list[socket.socket] = []


@pytest.fixture
async def template(tmp_path: Path) -> AsyncIterator[Template]:
    """A template whose process finds the packages in `tmp_path`."""
    added = {"PYTHONPATH": str(tmp_path)}
    created = Template(COMMAND, worker_variables(Settings(parallel_workers=1), None, added), LIMIT)
    yield created
    await created.stop()


@pytest.fixture(autouse=True)
def server_ends() -> Iterator[None]:
    """Close the server's ends of connections, also those of a test that fails."""
    yield
    while SERVER_ENDS:
        SERVER_ENDS.pop().close()


async def fork(
    template: Template, shipped: tuple[str, ...] = (), mark: str = "1"
) -> tuple[Launched, socket.socket]:
    """A forked worker, and the server's end of its connection."""
    server_end, worker_end = socket.socketpair()
    SERVER_ENDS.append(server_end)
    try:
        async with asyncio.timeout(LIMIT):
            return await template.fork([worker_end.fileno()], {"MARK": mark}, shipped), server_end
    finally:
        worker_end.close()


async def end(launched: Launched, connection: socket.socket) -> int:
    """Close a worker's connection. Returns its exit code."""
    connection.close()
    async with asyncio.timeout(LIMIT):
        return await asyncio.to_thread(launched.process.wait)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for happens to a process
            await asyncio.sleep(0.01)


async def test_a_fork_is_a_child_that_ends_with_its_connection(template: Template) -> None:
    launched, connection = await fork(template)
    # The process gets its name after the template has announced it.
    await until(lambda: read_name(launched.process.pid) == linux.WORKER)
    assert launched.process.poll() is None
    assert await end(launched, connection) == 0


async def test_a_killed_fork_has_its_signal_as_exit_code(template: Template) -> None:
    launched, connection = await fork(template)
    launched.process.kill()
    assert await end(launched, connection) == -9


async def test_a_fork_has_its_connection_and_no_other_descriptor(template: Template) -> None:
    launched, connection = await fork(template)
    # Its connection, and the pair that the event loop wakes itself with.
    assert len(list_sockets(launched.process.pid)) <= 3
    assert await end(launched, connection) == 0


def list_sockets(pid: int) -> list[str]:
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith("socket:")]


async def test_orphans_are_adopted_during_a_fork_only(template: Template) -> None:
    launched, connection = await fork(template)
    await asyncio.sleep(0)
    assert not linux._get_subreaper()
    assert await end(launched, connection) == 0


async def test_many_forks_at_once(template: Template) -> None:
    """Together their environments are larger than what the connection queues."""
    template.prepare([])
    forks = await asyncio.gather(*(fork(template, mark=str(n) * 60_000) for n in range(8)))
    assert len({launched.process.pid for launched, _ in forks}) == 8
    assert [await end(*forked) for forked in forks] == [0] * 8


async def test_an_environment_that_cannot_be_sent(template: Template) -> None:
    """A message has at most about 208 KB: such a worker is a new interpreter, others are forked."""
    with pytest.raises(RequestNotSent, match=r"could not be sent .*: Message too long"):
        await fork(template, mark="x" * 300_000)
    before = template.pid
    launched, connection = await fork(template)
    assert template.pid == before
    assert await end(launched, connection) == 0


async def test_learned_modules_whose_names_cannot_be_sent_are_dropped(template: Template) -> None:
    template.prepare([])
    first = template.pid
    template.learn([f"{'learned' * 20}_{number}" for number in range(2000)])
    launched, connection = await fork(template)
    assert template.pid not in (None, first)
    assert await end(launched, connection) == 0


async def test_forks_that_wait_while_the_process_is_replaced(
    template: Template, tmp_path: Path
) -> None:
    """The first fork starts a thread; the second one finds it, and the process is replaced."""
    (tmp_path / "starts_late.py").write_text(
        "import os, threading, time\n"
        "wait = dict(target=time.sleep, args=[1e6], daemon=True)\n"
        "os.register_at_fork(after_in_parent=lambda: threading.Thread(**wait).start())\n"
    )
    template.prepare([])
    template.learn(["starts_late"])
    first = template.pid
    forks = await asyncio.gather(*(fork(template) for _ in range(5)))
    assert template.pid not in (None, first)
    assert [await end(*forked) for forked in forks] == [0] * 5


async def test_forks_after_the_process_was_killed(template: Template) -> None:
    template.prepare([])
    first = template.pid
    assert first is not None
    os.kill(first, 9)
    launched, connection = await fork(template)
    assert template.pid != first
    assert await end(launched, connection) == 0


async def test_a_process_that_is_killed_repeatedly(template: Template) -> None:
    for _ in range(3):
        template.prepare([])
        await until(lambda: template.pid is not None)
        pid = template.pid
        assert pid is not None
        os.kill(pid, 9)
        await until(lambda: template.pid != pid)  # noqa: B023 - awaited in this iteration
    with pytest.raises(ForkRefused, match="the template process ended repeatedly"):
        await fork(template)


async def test_a_module_that_prevents_forks(template: Template, tmp_path: Path) -> None:
    write_thread_starter(tmp_path)
    template.prepare(["starts_thread"])
    with pytest.raises(ForkRefused, match="has started the thread 'its thread'"):
        await fork(template)
    assert template.pid is None


async def test_a_learned_module_that_prevents_forks_is_dropped(
    template: Template, tmp_path: Path
) -> None:
    write_thread_starter(tmp_path)
    template.prepare([])
    first = template.pid
    template.learn(["json.tool", "starts_thread"])
    launched, connection = await fork(template)
    assert template.pid not in (None, first)
    assert await end(launched, connection) == 0
    template.learn(["starts_thread"])
    launched, connection = await fork(template)
    assert await end(launched, connection) == 0


async def test_forks_are_tried_again_once_the_reason_is_gone(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes_template, "RETRY_PAUSES", (0.0, 0.0, 0.2))
    write_thread_starter(tmp_path)
    template.prepare(["starts_thread"])
    with pytest.raises(ForkRefused, match="its thread"):
        await fork(template)
    (tmp_path / "starts_thread.py").write_text("")
    await until(lambda: template.refusal is None)
    launched, connection = await fork(template)
    assert await end(launched, connection) == 0


async def test_retries_are_bounded(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes_template, "RETRY_PAUSES", (0.0,))
    write_thread_starter(tmp_path)
    template.prepare(["starts_thread"])
    await until(lambda: template.refusal is not None)
    await until(lambda: template.pid is not None)
    await until(lambda: template.pid is None)
    assert template.refusal is not None
    with pytest.raises(ForkRefused, match="its thread"):
        await fork(template)
    await until(lambda: not template._tasks)


async def test_a_thread_that_ends_is_no_obstacle(template: Template, tmp_path: Path) -> None:
    (tmp_path / "short_thread.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=[0.05], daemon=True).start()\n"
    )
    template.prepare(["short_thread"])
    launched, connection = await fork(template)
    assert await end(launched, connection) == 0


SPINNER = """
import time
started = time.process_time()
while time.process_time() < started + 0.2:
    pass
"""


async def test_a_fork_ends_the_pauses_of_imports_in_the_background(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learned modules get a small share of a processor until a worker has to be forked."""
    (tmp_path / "spins.py").write_text(SPINNER)
    first, connection = await fork(template)
    assert await end(first, connection) == 0
    sent: list[dict[str, Any]] = []
    send = TemplateProcess._request

    def record(process: TemplateProcess, request: dict[str, Any], fds: list[int]) -> Any:
        sent.append(request)
        return send(process, request, fds)

    monkeypatch.setattr(TemplateProcess, "_request", record)
    template.learn(["spins"])
    launched, connection = await fork(template)
    assert [request.get("is_background") for request in sent] in (
        [True, False, None],
        [False, False, None],  # the fork was requested before the import was sent
    )
    assert await end(launched, connection) == 0


def write_thread_starter(folder: Path) -> None:
    (folder / "starts_thread.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=[1e6], name='its thread', daemon=True).start()\n"
    )


async def test_a_module_that_cannot_be_imported_is_skipped(
    template: Template, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('broken')\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    template.prepare(["broken", "leaves", "does_not_exist"])
    launched, connection = await fork(template)
    assert await end(launched, connection) == 0


async def test_a_model_that_ships_an_imported_module(template: Template) -> None:
    with pytest.raises(ModuleConflict, match="the model ships a module 'msgspec'"):
        await fork(template, ("msgspec",))
    launched, connection = await fork(template, ("prep",))
    assert await end(launched, connection) == 0


async def test_a_process_that_cannot_be_started(tmp_path: Path) -> None:
    template = Template([str(tmp_path / "python")], {}, LIMIT)
    with pytest.raises(ForkRefused, match="could not be started"):
        await fork(template)
    await template.stop()


# -- checks before a fork --


def test_this_process_has_an_obstacle_with_a_thread() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="spy")
    thread.start()
    try:
        assert "thread" in str(find_obstacle(range(1000)))
    finally:
        go.set()
        thread.join()


def test_an_open_socket_is_an_obstacle() -> None:
    code = (
        "import socket\n"
        "from mlserver.parallel.worker.fork_safety import find_obstacle\n"
        "assert find_obstacle([0, 1, 2]) is None, find_obstacle([0, 1, 2])\n"
        "null = open('/dev/null')\n"
        "assert find_obstacle([0, 1, 2]) is None\n"
        "end = socket.socket()\n"
        "print(find_obstacle([0, 1, 2]))\n"
        "assert find_obstacle([0, 1, 2, end.fileno()]) is None\n"
    )
    assert run_python(code).startswith("an imported package has opened 'socket:")


def test_a_native_thread_is_an_obstacle() -> None:
    code = (
        "import os\n"
        "os.environ['OPENBLAS_NUM_THREADS'] = '3'\n"
        "import numpy\n"
        "from mlserver.parallel.worker.fork_safety import find_obstacle\n"
        "print(find_obstacle([0, 1, 2]))\n"
    )
    assert "native thread" in run_python(code)


def test_a_fork_that_is_not_adopted_ends_at_once() -> None:
    """The template was killed during the fork: the server adopts no orphan, and waits for none."""
    code = (
        "import os\n"
        "from mlserver.parallel.worker import template\n"
        "template.ADOPTION_TIMEOUT = 1e9\n"
        "read_end, write_end = os.pipe()\n"
        "server = os.getpid()\n"
        "if not os.fork():\n"
        "    forking = os.getpid()\n"
        "    if not os.fork():\n"
        "        template._wait_for_adoption(server, forking)\n"
        "        os.write(write_end, b'adopted')\n"
        "    os._exit(0)\n"
        "os.close(write_end)\n"
        "print(os.read(read_end, 100))\n"
    )
    assert run_python(code) == "b''\n"


def run_python(code: str) -> str:
    import subprocess

    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LIMIT
    )
    return completed.stdout

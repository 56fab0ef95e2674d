"""Models in worker pools of their own: by setting, and for equal module names in two folders."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.repository import tensor, write_model
from support.server import Serve, Server
from support.slow import slow

# Returns what the folder's `helper` says, found by its name or in a pickled object.
LOOKS_UP = """
import importlib
import pickle
from pathlib import Path

import helper
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse


class Uses(MLModel):
    async def load(self):
        self.text = importlib.import_module("helper").TEXT
        file = Path(__file__).parent / "object.pkl"
        self.pickled = pickle.loads(file.read_bytes()).say()
        return True

    async def predict(self, payload):
        output = StringCodec.encode_output("y", [self.text, self.pickled])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
# Reads its helper by an `import` statement.
IMPORTS = """
import os

from helper import TEXT
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse


class Uses(MLModel):
    async def predict(self, payload):
        output = StringCodec.encode_output("y", [TEXT, str(os.getpid())])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
HELPER = """
TEXT = "{text}"


class Says:
    def say(self):
        return TEXT
"""
# Blocks the interpreter, or ends the process, if a request says so.
HOLDS = """
import os
import sys
import time
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse

HERE = Path(__file__).parent


class Holds(MLModel):
    async def predict(self, payload):
        (text,) = StringCodec.decode_input(payload.inputs[0])
        if text == "exit":
            os._exit(1)
        if text == "hold":
            sys.setswitchinterval(1000)  # no other thread gets the interpreter's lock
            (HERE / "held").touch()
            while not (HERE / "go").exists():
                pass
        output = StringCodec.encode_output("y", [text, str(os.getpid())])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
ISOLATED = {"isolation": "model"}


def write_helper(folder: Path, text: str) -> None:
    (folder / "helper.py").write_text(HELPER.format(text=text))
    # The pickled text of an object of the class `helper.Says`.
    pickled = b"\x80\x04chelper\nSays\n)\x81."
    assert pickle.PROTO == b"\x80"
    (folder / "object.pkl").write_bytes(pickled)


def write_user(folder: Path, source: str, text: str, **settings: Any) -> Path:
    write_model(folder, "Uses", source=source, **settings)
    write_helper(folder, text)
    if source == IMPORTS:
        (folder / "object.pkl").unlink()
    return folder


def ask(server: Server, name: str, text: str = "x") -> list[str]:
    response = server.infer(name, [tensor("x", [text], "BYTES")])
    assert response.status_code == 200, response.text
    data: list[str] = response.json()["outputs"][0]["data"]
    return data


# -- module names --


@pytest.mark.parametrize("workers", [slow(1), 2])
def test_equal_names_that_are_looked_up(serve: Serve, tmp_path: Path, workers: int) -> None:
    """Each model gets the module and the class of its own folder."""
    for name in "abc":
        write_user(tmp_path / name, LOOKS_UP, name)
    server = serve(tmp_path, workers=workers)
    assert {name: ask(server, name) for name in "abc"} == {name: [name, name] for name in "abc"}
    assert len(server.workers) >= 3 * workers
    assert str(server.log).count("runs in a worker pool of its own, since model '") == 2


def test_a_changed_helper_that_is_looked_up(serve: Serve, tmp_path: Path) -> None:
    folder = write_user(tmp_path / "a", LOOKS_UP, "old")
    server = serve(tmp_path, workers=1)
    assert ask(server, "a") == ["old", "old"]
    for text in ("new", "newer"):
        write_helper(folder, text)
        assert server.post("/v2/repository/models/a/load").status_code == 200
        assert ask(server, "a") == [text, text]


def test_a_helper_of_equal_size_that_is_changed_within_a_second(
    serve: Serve, tmp_path: Path
) -> None:
    """Python would take the compiled code of the file before, which it compares by seconds."""
    folder = write_user(tmp_path / "a", LOOKS_UP, "old")
    moment = 1_700_000_000 * 10**9  # ns
    os.utime(folder / "helper.py", ns=(moment, moment))
    # Empty: modules may be cached, whatever this process's environment says.
    server = serve(tmp_path, workers=1, env={"PYTHONDONTWRITEBYTECODE": ""})
    assert ask(server, "a") == ["old", "old"]
    write_helper(folder, "new")
    os.utime(folder / "helper.py", ns=(moment, moment + 10**6))
    assert server.post("/v2/repository/models/a/load").status_code == 200
    assert ask(server, "a") == ["new", "new"]


def test_equal_names_in_import_statements_share_the_pool(serve: Serve, tmp_path: Path) -> None:
    for name in "ab":
        write_user(tmp_path / name, IMPORTS, name)
    server = serve(tmp_path, workers=1)
    (first, first_pid), (second, second_pid) = ask(server, "a"), ask(server, "b")
    assert (first, second) == ("a", "b")
    assert first_pid == second_pid


def test_equal_names_in_the_server_s_process_are_refused(serve: Serve, tmp_path: Path) -> None:
    write_user(tmp_path / "a", LOOKS_UP, "a")
    server = serve(tmp_path, workers=0)
    write_user(tmp_path / "b", LOOKS_UP, "b")
    answer = server.post("/v2/repository/models/b/load")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert "Model b: model 'a' has another module 'helper'" in error
    assert "set 'parallel_workers' to 1 or more" in error
    assert ask(server, "a") == ["a", "a"]
    write_user(tmp_path / "c", IMPORTS, "c", parameters={"isolation": "shared"})
    assert server.post("/v2/repository/models/c/load").status_code == 200
    assert ask(server, "c")[0] == "c"


# -- the setting --


@pytest.mark.parametrize("workers", [slow(1), 2])
def test_a_model_that_blocks_does_not_block_others(
    serve: Serve, tmp_path: Path, workers: int
) -> None:
    """The other model answers while every worker of the first holds the interpreter's lock."""
    folder = write_model(tmp_path / "holds", "Holds", source=HOLDS, parameters=ISOLATED)
    write_model(tmp_path / "other", "Holds", source=HOLDS)
    server = serve(tmp_path, workers=workers)
    with ThreadPoolExecutor(1) as callers:
        held = callers.submit(ask, server, "holds", "hold")
        server.wait((folder / "held").exists, "the lock was held")
        for _ in range(20):
            assert ask(server, "other")[0] == "x"
        assert not held.done()
        (folder / "go").touch()
        assert held.result(60)[0] == "hold"


def test_a_crash_ends_no_other_model_s_worker(serve: Serve, tmp_path: Path) -> None:
    for name in "ab":
        write_model(tmp_path / name, "Holds", source=HOLDS, parameters=ISOLATED)
    server = serve(tmp_path, workers=1)
    (_, first), (_, second) = ask(server, "a"), ask(server, "b")
    assert first != second
    assert server.infer("a", [tensor("x", ["exit"], "BYTES")]).status_code == 503
    server.wait_until("/v2/models/a/ready")
    assert ask(server, "a")[1] != first
    assert ask(server, "b")[1] == second


def test_the_pool_ends_with_the_model(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "a", "Holds", source=HOLDS, parameters=ISOLATED)
    server = serve(tmp_path, workers=1)
    _, first = ask(server, "a")
    assert server.post("/v2/repository/models/a/load").status_code == 200
    _, second = ask(server, "a")
    assert first != second
    server.wait(lambda: int(first) not in server.workers, "the first pool has ended")
    assert server.post("/v2/repository/models/a/unload").status_code == 200
    server.wait(lambda: int(second) not in server.workers, "the second pool has ended")


def test_isolation_needs_workers(serve: Serve, tmp_path: Path) -> None:
    write_model(tmp_path / "other")
    server = serve(tmp_path, workers=0)
    write_model(tmp_path / "a", "Holds", source=HOLDS, parameters=ISOLATED)
    answer = server.post("/v2/repository/models/a/load")
    assert answer.status_code == 500
    assert "Model a: 'isolation' of 'model' needs worker processes" in answer.json()["error"]

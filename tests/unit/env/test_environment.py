"""Environments of models: unpacked safely and once, checked before a worker runs in them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest

from mlserver import MLModel, ModelSettings
from mlserver.env import environment
from mlserver.env.builder import EnvironmentSpec
from mlserver.env.environment import EnvironmentNotFound, find_environment, unpack
from mlserver.settings import ModelParameters


def settings(**parameters: str) -> ModelSettings:
    return ModelSettings(name="m", implementation=MLModel, parameters=ModelParameters(**parameters))  # type: ignore[arg-type]


def pack(path: Path, *members: tarfile.TarInfo, files: dict[str, bytes] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (files or {}).items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return path


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# -- which --


def test_none_is_asked_for(tmp_path: Path) -> None:
    assert find_environment(settings(), str(tmp_path)) is None
    assert find_environment(ModelSettings(name="m", implementation=MLModel), str(tmp_path)) is None


def test_a_folder_is_found_beside_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "model-settings.json").write_text(
        '{"implementation": "mlserver.MLModel", "parameters": {"environment_path": "env"}}'
    )
    environment = find_environment(
        ModelSettings.parse_file(tmp_path / "model-settings.json"), str(tmp_path)
    )
    assert environment is not None
    assert environment.folder == str(tmp_path / "env")


def test_variables_in_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVS", str(tmp_path))
    environment = find_environment(settings(environment_path="$ENVS"), "")
    assert environment is not None
    assert environment.folder == str(tmp_path)


@pytest.mark.parametrize("field", ["environment_path", "environment_tarball"])
def test_what_is_not_there(tmp_path: Path, field: str) -> None:
    with pytest.raises(EnvironmentNotFound, match=r"'nowhere' cannot be used: there is no such"):
        find_environment(settings(**{field: "nowhere"}), str(tmp_path))


# -- unpacking --


def test_unpacked_once_per_content(tmp_path: Path) -> None:
    archive = pack(tmp_path / "one.tar.gz", files={"bin/python": b"1"})
    other = pack(tmp_path / "other.tar.gz", files={"bin/python": b"2"})
    first = unpack(str(archive), str(tmp_path / "envs"), "one")
    Path(first.folder, "mark").touch()
    again = unpack(str(archive), str(tmp_path / "envs"), "one")
    assert again == first
    assert Path(again.folder, "mark").exists()
    assert unpack(str(other), str(tmp_path / "envs"), "other") != first


def test_an_interrupted_unpacking_is_repeated(tmp_path: Path) -> None:
    tarball = str(pack(tmp_path / "env.tar.gz", files={"bin/python": b"whole"}))
    folder = Path(unpack(tarball, str(tmp_path / "envs"), "env").folder)
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()  # the mark of completeness
    (folder / "bin" / "python").write_text("half")
    unpack(tarball, str(tmp_path / "envs"), "env")
    assert (folder / "bin" / "python").read_text() == "whole"


def test_two_servers_unpack_one_after_the_other(tmp_path: Path) -> None:
    tarball = str(
        pack(tmp_path / "env.tar.gz", files={f"lib/{at}": bytes(1000) for at in range(200)})
    )
    together, counts = Barrier(4), []

    def work() -> None:
        together.wait()
        folder = unpack(tarball, str(tmp_path / "envs"), "env").folder
        counts.append(len(os.listdir(os.path.join(folder, "lib"))))

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [200] * 4


@pytest.mark.parametrize(
    "bad",
    [
        member("lib/out", tarfile.SYMTYPE, "/etc/passwd"),
        member("lib/out", tarfile.SYMTYPE, "../../out"),
        member("bin/python", tarfile.SYMTYPE, "../../python"),
        member("lib/out", tarfile.LNKTYPE, "../out"),
        member("../out", tarfile.REGTYPE),
        member("dev", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda bad: f"{bad.name}-{bad.linkname}",
)
def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    tarball = pack(tmp_path / "env.tar.gz", bad, files={"bin/x": b""})
    with pytest.raises(EnvironmentNotFound):
        unpack(str(tarball), str(tmp_path / "envs"), "env")
    assert not [path for path in (tmp_path / "envs").iterdir() if path.is_dir()]
    assert not (tmp_path / "out").exists()


def test_an_interpreter_link_leads_to_interpreters_only(tmp_path: Path) -> None:
    tarball = pack(
        tmp_path / "env.tar.gz",
        member("bin/python", tarfile.SYMTYPE, "/bin/sh"),
        files={"bin/x": b""},
    )
    folder = unpack(str(tarball), str(tmp_path / "envs"), "env").folder
    assert not os.path.lexists(os.path.join(folder, "bin", "python"))


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tarball = pack(tmp_path / "env.tar.gz", files={"bin/x": bytes(1000), "bin/y": bytes(1000)})
    monkeypatch.setattr(environment, "MAX_BYTES", 1500)
    with pytest.raises(EnvironmentNotFound, match="more than"):
        unpack(str(tarball), str(tmp_path / "envs"), "env")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8bbroken"])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "env.tar.gz").write_bytes(content)
    with pytest.raises(EnvironmentNotFound):
        unpack(str(tmp_path / "env.tar.gz"), str(tmp_path / "envs"), "env")


@pytest.mark.parametrize("envs", ["file", "file/envs"])
def test_a_folder_of_environments_that_cannot_be_written(tmp_path: Path, envs: str) -> None:
    """A file in its place: root may write into read-only folders."""
    (tmp_path / "file").touch()
    tarball = pack(tmp_path / "env.tar.gz", files={"bin/x": b""})
    with pytest.raises(EnvironmentNotFound, match="'environments_dir': expected one that can be"):
        unpack(str(tarball), str(tmp_path / envs), "env")
    spec = EnvironmentSpec("m", "uv", "3.11", (), str(tmp_path), None, "mlserver")
    with pytest.raises(EnvironmentNotFound, match="'of model m' .*'environments_dir': expected"):
        environment.build(spec, str(tmp_path / envs))


def test_an_archive_that_cannot_be_read(tmp_path: Path) -> None:
    """It was replaced after `find_environment` had checked it."""
    with pytest.raises(EnvironmentNotFound, match="its file cannot be read: No such file"):
        unpack(str(tmp_path / "env.tar.gz"), str(tmp_path / "envs"), "env")


def test_conda_unpack_is_run(tmp_path: Path) -> None:
    script = b'import pathlib, sys; pathlib.Path(sys.argv[0]).with_name("moved").touch()'
    tarball = pack(
        tmp_path / "env.tar.gz",
        member("bin/python", tarfile.SYMTYPE, sys.executable),
        files={"bin/conda-unpack": script},
    )
    assert Path(unpack(str(tarball), str(tmp_path / "envs"), "env").folder, "bin", "moved").exists()


# -- checking --


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment without a single package."""
    folder = tmp_path_factory.mktemp("environments") / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


def as_environment(folder: Path) -> environment.Environment:
    return environment.Environment("key", str(folder), folder.name)


def test_an_environment_without_mlserver_gets_ours(empty: Path) -> None:
    as_environment(empty).check()


def test_an_environment_without_an_interpreter(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentNotFound, match="no bin/python"):
        as_environment(tmp_path).check()


def _write(folder: Path, text: str) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bin" / "python").chmod(0o755)


BROKEN: dict[str, Callable[[Path], None]] = {
    "no module named x": lambda folder: _write(folder, "echo no module named x >&2; exit 1"),
    "exited with 3": lambda folder: _write(folder, "exit 3"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_an_environment_that_cannot_run_a_worker(tmp_path: Path, reason: str) -> None:
    BROKEN[reason](tmp_path)
    with pytest.raises(EnvironmentNotFound, match=reason):
        as_environment(tmp_path).check()

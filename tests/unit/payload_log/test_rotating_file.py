"""Files of the payload log: rotation, permissions, other programs that rename them, full disks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mlserver.payload_log.rotating_file import RotatingFile, WriteFailed
from mlserver.settings.payload_log import PayloadLogSettings


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_a_full_file_is_renamed_and_the_oldest_is_deleted(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log"), max_bytes=8, max_files=3)
    for number in range(8):
        file.append([b"%03d\n" % number])
    file.close()
    assert contents(tmp_path) == {
        "log": "006\n007\n",
        "log.1": "004\n005\n",
        "log.2": "002\n003\n",
    }


def test_lines_that_are_written_together_are_divided_among_files(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log"), max_bytes=8, max_files=4)
    file.append([b"%03d\n" % number for number in range(5)])
    file.append([b"more than eight\n"])
    file.close()
    assert contents(tmp_path) == {
        "log": "more than eight\n",
        "log.1": "004\n",
        "log.2": "002\n003\n",
        "log.3": "000\n001\n",
    }


def test_with_one_file_the_full_one_is_deleted(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "log"), max_bytes=8, max_files=1)
    for number in range(3):
        file.append([b"%03d\n" % number])
    file.close()
    assert contents(tmp_path) == {"log": "002\n"}


def test_an_existing_file_is_continued(tmp_path: Path) -> None:
    for number in range(2):
        file = RotatingFile(str(tmp_path / "log"), max_bytes=8, max_files=2)
        file.append([b"%03d\n" % number])
        file.close()
    assert contents(tmp_path) == {"log": "000\n001\n"}


def test_only_the_user_may_read_a_new_file(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        file = RotatingFile(str(tmp_path / "log"), max_bytes=8, max_files=2)
        file.append([b"a\n"])
        file.close()
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_a_file_that_another_program_renamed_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlserver.payload_log.rotating_file.CHECK_INTERVAL", 0.0)
    file = RotatingFile(str(tmp_path / "log"), max_bytes=100, max_files=2)
    file.append([b"a\n"])
    os.replace(tmp_path / "log", tmp_path / "moved")
    file.append([b"b\n"])
    file.close()
    assert contents(tmp_path) == {"log": "b\n", "moved": "a\n"}


def test_two_writers_of_one_path_lose_no_line(tmp_path: Path) -> None:
    """As in a rolling restart: the old and the new server write for a while."""
    path = str(tmp_path / "log")
    files = [RotatingFile(path, max_bytes=40, max_files=100) for _ in range(2)]
    for number in range(50):
        files[number % 2].append([b"%03d\n" % number])
    for file in files:
        file.close()
    lines = sorted("".join(contents(tmp_path).values()).split())
    assert lines == [f"{number:03}" for number in range(50)]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(WriteFailed, match="No space left") as caught:
        RotatingFile("/dev/full", max_bytes=8, max_files=2).append([b"a\n"])
    assert caught.value.written == 0


def test_other_processes_have_files_of_their_own() -> None:
    settings = PayloadLogSettings(to="/logs/payload.jsonl")
    paths = [RotatingFile.from_settings(settings, index)._path for index in range(3)]
    assert paths == [
        "/logs/payload.jsonl",
        "/logs/payload.jsonl.w2",
        "/logs/payload.jsonl.w3",
    ]

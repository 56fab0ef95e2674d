"""Local paths, addresses and links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlserver.locations import is_address, is_below, locate, resolve_links, with_resolved_folder
from mlserver.settings import ModelParameters, ModelSettings


@pytest.mark.parametrize(
    "uri",
    [
        "s3://b/x",
        "models:/wine/3",
        "models:/wine@a#b",
        "runs:/1/m",
        "dbfs:/m",
        "mlflow-artifacts:/1",
        "https://h/x",
    ],
)
def test_addresses(uri: str) -> None:
    assert is_address(uri)
    assert locate(uri) is None


@pytest.mark.parametrize(
    "uri, expected",
    [
        ("a", "/w/a"),
        ("./a/../b", "/w/b"),
        (".", "/w"),
        ("/x/a#b?c%20d", "/x/a#b?c%20d"),
        ("v1:2/m", "/w/v1:2/m"),
        ("C#/m", "/w/C#/m"),
        ("models:wine", "/w/models:wine"),
        ("file:///x/a%20b", "/x/a b"),
        ("FILE:///x/a", "/x/a"),
        ("file:/x/a", "/x/a"),
        ("file:a%23", "/w/a#"),
        ("file://localhost/x/a", "/x/a"),
        ("file:///x/a#b?c", "/x/a#b?c"),
        ("filed", "/w/filed"),
        ("file", "/w/file"),
    ],
)
def test_paths(uri: str, expected: str) -> None:
    assert not is_address(uri)
    assert locate(uri, "/w") == expected


def test_links(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "up").symlink_to("a/b/..")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "up")
    (tmp_path / "loop").symlink_to("loop")
    for path in ("a", "up/b", "a/again/b", "a/again/../x", "missing/x", "up/../a", ".", "a//b/"):
        assert resolve_links(str(tmp_path / path)) == os.path.realpath(tmp_path / path)
    assert resolve_links(str(tmp_path / "loop" / "x")).startswith(str(tmp_path))
    assert is_below(str(tmp_path / "up" / "b"), str(tmp_path / "a"))
    assert not is_below(str(tmp_path / "ab"), str(tmp_path / "a"))


@pytest.mark.skipif(
    not os.path.isdir("/proc/self") or os.getuid() != 0, reason="needs /proc, and root for chroot"
)
def test_the_file_system_of_another_process(tmp_path: Path) -> None:
    """In KServe's modelcar the model's folder is a link to `/proc/PID/root/models`."""
    (tmp_path / "root" / "models").mkdir(parents=True)
    (tmp_path / "root" / "models" / "file").write_text("there")
    code = "import os, sys\nos.chroot(sys.argv[1])\nprint('ready', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "root")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        (tmp_path / "models").symlink_to(f"/proc/{other.pid}/root/models")
        resolved = resolve_links(str(tmp_path / "models"))
        assert resolved == f"/proc/{other.pid}/root/models"
        assert Path(resolved, "file").read_text() == "there"
        assert not is_below(str(tmp_path / "models"), "/models")
        assert is_below(str(tmp_path / "models" / "file"), str(tmp_path / "models"))
        other.communicate("")


def test_settings_with_links(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_text("x")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "model.json").symlink_to("../blobs/1")
    (tmp_path / "link").symlink_to("real")

    def resolved(uri: str | None) -> str | None:
        settings = ModelSettings(
            name="m", implementation="a.B", parameters=ModelParameters(uri=uri)
        )
        settings._source = str(tmp_path / "model-settings.json")
        parameters = with_resolved_folder(settings).parameters
        assert settings.parameters is not None
        assert settings.parameters.uri == uri
        return parameters.uri if parameters is not None else None

    assert resolved("link") == str(tmp_path / "real")
    assert resolved("./link/model.json") == str(
        tmp_path / "real" / "model.json"
    )  # the extension determines the format
    assert resolved(f"file://{tmp_path}/link") == str(tmp_path / "real")
    for uri in ("missing", "s3://b/x", "models:/wine", None):
        assert resolved(uri) == uri

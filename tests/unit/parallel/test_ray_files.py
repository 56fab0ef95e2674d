"""Copies of a model's files for nodes that do not have them, and versions of packages."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mlserver.errors import MLServerError
from mlserver.parallel.ray import file_digests, node_files
from mlserver.parallel.ray.applications import plan_application
from mlserver.parallel.ray.directory import Directory
from mlserver.parallel.ray.model_files import (
    PART_BYTES,
    ModelFiles,
    compute_digest,
    describe_files,
    list_paths,
    pack,
    relocate,
    unpack,
)
from mlserver.parallel.ray.node_files import NodeFiles, allow_copies
from mlserver.parallel.ray.node_versions import list_differences, read_versions, select_compared
from mlserver.parallel.ray.uploads import Uploader
from mlserver.settings import ModelSettings, Settings
from support.repository import write_settings


def load(folder: Path, **values: Any) -> ModelSettings:
    write_settings(folder, name="m", **{"implementation": "a.B", **values})
    return ModelSettings.parse_file(folder / "model-settings.json")


class Nodes:
    """A server with a directory in this process.

    Attributes:
        limit: Setting `upload_limit` of the server.
    """

    def __init__(self, model: ModelSettings) -> None:
        self.model = model
        self.directory = Directory("secret")
        self.limit = 1 << 30

    def call(self, method: str, *arguments: Any) -> Any:
        """A replica's call; the server sends what is missing afterwards."""
        answer = getattr(self.directory, method)(*arguments)
        applications = self.directory.poll("server", ["app"])["applications"]
        for digest in applications["app"]["missing"]:
            Uploader(self._call, self.limit)._send(digest, self.model.to_frame())
        return answer

    def _call(self, method: str, *arguments: Any) -> Any:
        return getattr(self.directory, method)(*arguments)

    def provide(self, files: list[ModelFiles]) -> tuple[ModelSettings, dict[str, str], NodeFiles]:
        values = [(each.path, each.digest, each.is_folder) for each in files]
        node = NodeFiles(self.call, "app", values)
        settings, copies = node.provide(self.model)
        return settings, copies, node


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model; copies are made below `tmp_path`."""
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    return tmp_path / "wine"


def test_which_files_belong_to_a_model(folder: Path) -> None:
    assert list_paths(load(folder)) == [str(folder)]
    (folder / "weights").mkdir()
    weights = {"parameters": {"uri": "./weights"}}
    assert list_paths(load(folder, **weights)) == [str(folder / "weights")]
    (folder / "my_code.py").write_text("")
    assert list_paths(load(folder, implementation="my_code.B", **weights)) == [str(folder)]
    (folder / "model.bin").write_bytes(b"1")
    assert list_paths(load(folder, parameters={"uri": "model.bin"})) == [str(folder)]
    assert list_paths(load(folder, parameters={"uri": "s3://bucket/wine"})) == []
    assert list_paths(load(folder, parameters={"uri": "./missing"})) == []
    outside = folder.parent / "outside"
    outside.mkdir()
    both = load(folder, implementation="my_code.B", parameters={"uri": "../outside"})
    assert list_paths(both) == sorted([str(outside), str(folder)])


def test_digests_follow_names_and_contents(folder: Path) -> None:
    load(folder)
    digests = [compute_digest(str(folder))]
    (folder / "a").write_bytes(b"1")
    digests.append(compute_digest(str(folder)))
    (folder / "a").write_bytes(b"2")
    digests.append(compute_digest(str(folder)))
    (folder / "a").rename(folder / "b")
    digests.append(compute_digest(str(folder)))
    assert len(set(digests)) == 4
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "b.pyc").write_bytes(b"3")
    os.utime(folder / "b", (1, 1))
    assert compute_digest(str(folder)) == digests[-1]


def test_one_byte_of_a_large_file_changes_the_digests(folder: Path) -> None:
    """A layer that was trained again: equal size and time, and equal at any number of samples."""
    model, large = load(folder), folder / "large"
    with large.open("wb") as content:
        content.truncate(65 * 1024 * 1024)
    status = large.stat()
    before = compute_digest(str(folder)), plan_application(Settings(), model).digest
    assert (compute_digest(str(folder)), plan_application(Settings(), model).digest) == before
    with large.open("r+b") as content:
        content.seek(1024 * 1024 + 1)
        content.write(b"1")
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert compute_digest(str(folder)) != before[0]
    assert plan_application(Settings(), model).digest != before[1]


def empty_cache(monkeypatch: pytest.MonkeyPatch, settled_seconds: float) -> None:
    """Begin without digests, and cache those of files of any size from this age on."""
    monkeypatch.setattr(file_digests, "CACHED_BYTES", 0)
    monkeypatch.setattr(file_digests, "SETTLED_SECONDS", settled_seconds)
    monkeypatch.setattr(file_digests, "_digests", {})


def test_a_large_file_is_read_once_while_it_is_unchanged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder)
    empty_cache(monkeypatch, settled_seconds=0.0)
    reads, read = [], hashlib.file_digest

    def count(content: Any, algorithm: str) -> Any:
        reads.append(content.name)
        return read(content, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", count)
    digests = {compute_digest(str(folder)) for _ in range(3)}
    assert (len(digests), len(reads)) == (1, 1)
    (folder / "model-settings.json").touch()
    assert {compute_digest(str(folder))} == digests
    assert len(reads) == 2


def test_a_file_that_has_just_been_written_is_not_cached(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second write within one tick of the file system's clock would leave its times equal."""
    load(folder)
    empty_cache(monkeypatch, settled_seconds=3600.0)
    compute_digest(str(folder))
    assert file_digests._digests == {}


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 2 * PART_BYTES + 12345])
def test_archives(folder: Path, tmp_path: Path, size: int) -> None:
    load(folder)
    content = os.urandom(size)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "data").write_bytes(content)
    (folder / "run").write_text("#!/bin/sh")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to(folder / "run")
    parts = list(pack(str(folder)))
    assert parts == list(pack(str(folder)))
    assert max(map(len, parts)) <= PART_BYTES
    unpack(iter(parts), str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "deep" / "er" / "data").read_bytes() == content
    assert os.access(tmp_path / "copy" / "run", os.X_OK)
    assert compute_digest(str(tmp_path / "copy")) == compute_digest(str(folder))


def test_settings_of_a_copy(folder: Path) -> None:
    (folder / "weights").mkdir(parents=True)
    model = load(folder, parameters={"uri": "./weights"})
    moved = relocate(model, {str(folder): "/copy"})
    assert moved.parameters is not None
    assert (moved.folder, moved.parameters.uri) == ("/copy", "/copy/weights")
    elsewhere = relocate(model, {"/other": "/copy"})
    assert elsewhere.parameters is not None
    assert (elsewhere.folder, elsewhere.parameters.uri) == (str(folder), str(folder / "weights"))


def test_equal_files_are_used_where_they_are(folder: Path) -> None:
    nodes = Nodes(load(folder))
    settings, copies, _ = nodes.provide(describe_files(nodes.model))
    assert settings.folder == str(folder)
    assert copies == {}


@pytest.mark.parametrize("is_stale", [False, True])
def test_a_node_without_the_files_gets_a_copy(folder: Path, is_stale: bool) -> None:
    """The node has another path than the server, in which nothing or older files are."""
    nodes = Nodes(load(folder))
    [files] = describe_files(nodes.model)
    there = folder.parent / "there"
    if is_stale:
        there.mkdir()
        (there / "model-settings.json").write_text("{}")
    settings, copies, node = nodes.provide([ModelFiles(str(there), files.digest, True)])
    copy = Path(copies[str(there)])
    assert compute_digest(str(copy)) == files.digest
    assert settings.folder == str(folder)  # its settings name the server's path
    node.remove()
    assert not copy.exists()
    nodes.directory.forget("app")
    assert nodes.directory._packages == {}


def test_a_single_file_is_copied(folder: Path) -> None:
    outside = folder.parent / "model.bin"
    outside.write_bytes(b"weights")
    nodes = Nodes(load(folder, parameters={"uri": "../model.bin"}))
    [files] = describe_files(nodes.model)
    missing = ModelFiles("/missing/model.bin", files.digest, False)
    assert not files.is_folder
    _, copies, _ = nodes.provide([missing])
    assert Path(copies[missing.path]).read_bytes() == b"weights"


def test_refusals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(load(folder))
    [files] = describe_files(nodes.model)
    missing = ModelFiles("/missing", files.digest, True)
    nodes.limit = 10
    with pytest.raises(
        MLServerError, match=r"/missing does not exist on node .* has \d+ bytes, and"
    ):
        nodes.provide([missing])
    nodes.limit = 1 << 30
    (folder / "new").write_bytes(b"1")
    with pytest.raises(MLServerError, match="it has changed since the load began"):
        nodes.provide([missing])
    monkeypatch.setattr(node_files, "WAIT", 0.0)
    monkeypatch.setattr(nodes, "call", nodes._call)
    with pytest.raises(MLServerError, match="no server that has it answered"):
        nodes.provide([missing])


def test_a_directory_that_restarts_meanwhile_offers_no_incomplete_package() -> None:
    directory = Directory("secret")
    directory.request_files("app", "digest")
    directory.store_part("digest", 1, b"second")
    assert not directory.complete_files("digest", 2)
    assert directory.request_files("app", "digest") == {"parts": None, "error": None}


def test_leftovers_of_killed_replicas_are_deleted(folder: Path) -> None:
    copies = folder.parent / "copies"
    for pid in (os.getpid(), 4_194_305):  # above the largest process id
        (copies / f"{node_files.PREFIX}{pid}-x").mkdir()
    node_files._remove_leftovers()
    assert [path.name for path in copies.iterdir()] == [f"{node_files.PREFIX}{os.getpid()}-x"]


def test_copies_of_allowed_files_are_allowed() -> None:
    settings = Settings(production=True, allowed_model_sources=["/models"], trusted_models=["/t"])
    allowed = allow_copies(settings, {"/models/wine": "/copy", "/other": "/no", "/t/x": "/trusted"})
    assert allowed.allowed_model_sources == ["/models", "/copy"]
    assert allowed.trusted_models == ["/t", "/trusted"]
    assert allow_copies(Settings(), {"/models": "/copy"}).allowed_model_sources is None


def test_versions() -> None:
    versions = read_versions("mlserver_mlflow.MLflowRuntime")
    assert {"mlserver", "Python", "numpy", "msgspec"} <= versions.keys()
    assert "mlserver-mlflow" in versions
    assert "mlserver-mlflow" not in read_versions("a.B")
    assert list_differences(versions, versions) == []
    assert select_compared(versions, {"env_vars": {}}) == versions
    assert select_compared(versions, {"pip": ["numpy==1.26"]}).keys() == {"mlserver"}
    other = {**versions, "numpy": "1.0"}
    del other["msgspec"]
    assert list_differences(versions, other) == [
        f"msgspec none (server: {versions['msgspec']})",
        f"numpy 1.0 (server: {versions['numpy']})",
    ]

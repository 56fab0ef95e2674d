"""Files in a model's folder that count as its code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from mlserver.isolation import ShippedCode
from mlserver_mlflow.loading.shipped_code import find

HEAD = "flavors:\n  python_function:\n    loader_module: some_loader\n"


def write(folder: Path, described: str, *files: str) -> ShippedCode | None:
    """Write a model's files, each with its own path as its text, and find the code."""
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"# {path}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text(HEAD + described)
    return find(str(folder))


@pytest.mark.parametrize(
    ("described", "files"),
    [
        ("    code: null\n", ("model.pkl",)),
        ("", ("data/model.pkl", "requirements.txt")),
        ("    code: code\n", ()),
        ("    model_code_path: /elsewhere/agent.py\n", ("agent.py",)),
        ("    model_code_path: agent.py\n", ("agent.py", "__pycache__/agent.cpython-311.pyc")),
        ("    code: code\n", ("code/__pycache__/prep.cpython-311.pyc",)),
    ],
)
def test_no_code(tmp_path: Path, described: str, files: tuple[str, ...]) -> None:
    assert write(tmp_path, described, *files) is None


@pytest.mark.parametrize(
    ("described", "files", "names", "modules", "stray"),
    [
        ("    code: code\n", ("code/prep.py",), "prep.py", {"prep"}, set()),
        (
            "    code: 'code'\n",
            ("code/team/__init__.py", "code/team/late.py"),
            "team/",
            {"team"},
            set(),
        ),
        ("    code: code\n", ("code/team/inner/late.py",), "team/", {"team"}, set()),
        ("    code: code\n", ("code/fast.cpython-311-x86_64-linux-gnu.so",), None, {"fast"}, set()),
        ("    code: lib\n", ("lib/a.py", "lib/b.txt"), "a.py, b.txt", {"a", "b"}, set()),
        ("  sklearn:\n    code: code\n", ("code/prep.py",), "prep.py", {"prep"}, set()),
        ("", ("artifacts/source/prep.py",), "artifacts/source/prep.py", set(), {"prep"}),
        ("", ("artifacts/team/__init__.py", "artifacts/team/types.py"), None, set(), {"team"}),
        ("    model_code_path: /x/agent.py\n", ("agent.py", "prep.py"), "prep.py", set(), {"prep"}),
    ],
)
def test_code(
    tmp_path: Path,
    described: str,
    files: tuple[str, ...],
    names: str | None,
    modules: set[str],
    stray: set[str],
) -> None:
    code = write(tmp_path, described, *files)
    assert code is not None
    assert names is None or str(code) == names
    assert code.modules == modules
    assert code.stray_modules == stray


def test_archives_of_modules(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    with zipfile.ZipFile(tmp_path / "artifacts" / "weights.zip", "w") as archive:
        archive.writestr("weights.bin", b"1")
    assert write(tmp_path, "") is None
    with zipfile.ZipFile(tmp_path / "artifacts" / "team.whl", "w") as archive:
        archive.writestr("team/__init__.py", "")
    code = write(tmp_path, "")
    assert code is not None
    assert code.stray_modules == {"team"}


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "prep.py").touch()
    model.mkdir()
    (model / "code").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "current").symlink_to(model)
    code = write(model, "    code: code\n")
    assert code is not None
    assert "prep" in code.modules
    linked = find(str(tmp_path / "current"))
    assert linked is not None
    assert (linked.folder, linked.digest) == (code.folder, code.digest)


def test_the_digest_is_that_of_paths_and_bytes(tmp_path: Path) -> None:
    first, other = (
        write(tmp_path / name, "    code: code\n", "code/prep.py") for name in ("one", "other")
    )
    assert first is not None
    assert other is not None
    assert first.digest == other.digest
    (tmp_path / "other" / "code" / "__pycache__").mkdir()
    (tmp_path / "other" / "code" / "__pycache__" / "prep.cpython-311.pyc").touch()
    (tmp_path / "other" / "model.pkl").touch()
    for change in ("same", "text", "name"):
        if change == "text":
            (tmp_path / "other" / "code" / "prep.py").write_text("# code/prep.PY")
        elif change == "name":
            (tmp_path / "other" / "code" / "prep.py").write_text("# code/prep.py")
            (tmp_path / "other" / "code" / "prep.py").rename(
                tmp_path / "other" / "code" / "post.py"
            )
        changed = find(str(tmp_path / "other"))
        assert changed is not None
        assert (changed.digest == first.digest) == (change == "same")

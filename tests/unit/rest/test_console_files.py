"""The console's files: vendored libraries as listed, no inline code, bounded size."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tools.console_libraries import LIBRARIES, SERVED, TESTS, write_table

STATIC = SERVED.parent
SOURCES = sorted(path for path in STATIC.rglob("*.js") if path.parent != SERVED)
MAX_COMPRESSED = 150_000  # bytes; the wheel may grow by 250 KB


@pytest.mark.parametrize("folder", [SERVED, TESTS], ids=["served", "tests"])
def test_libraries_are_the_published_ones(folder: Path) -> None:
    table = (folder / "VENDOR.md").read_text()
    assert table == write_table(folder)
    listed = {
        name for library in LIBRARIES if library.folder == folder for name in library.files.values()
    }
    assert {path.name for path in folder.iterdir()} == {*listed, "VENDOR.md"}
    for library in LIBRARIES:
        assert any(name.endswith("LICENSE.txt") for name in library.files.values())
    for name in listed:
        assert hashlib.sha512((folder / name).read_bytes()).hexdigest() in table


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(STATIC)))
def test_sources_are_modules_without_html_from_text(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("// "), "the first line says what the module is"
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )
    assert not re.search(r"https?://(?!127)", text)
    assert text.count("\n") <= 400
    for imported in re.findall(r'from "([^"]+)"', text):
        assert (path.parent / imported).resolve().is_file(), imported


@pytest.mark.slow
def test_types() -> None:
    """JSDoc types agree, checked where TypeScript is installed (`npm install -g typescript`)."""
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("no TypeScript compiler: npm install -g typescript")
    project = TESTS.parent / "tsconfig.json"
    done = subprocess.run([compiler, "-p", project], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_size() -> None:
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < MAX_COMPRESSED

"""Checks of built distributions find what must not be there, and what is missing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from tools.distributions import ROOT, Distribution

METADATA = "Metadata-Version: 2.4\nName: x\nVersion: 1.0\nLicense-Expression: Apache-2.0\n"
GOOD = {
    "x/py.typed": "",
    "x/__init__.py": "",
    "x-1.0.dist-info/METADATA": METADATA,
    "x-1.0.dist-info/licenses/LICENSE": "",
}


def faults(folder: Path, files: dict[str, str]) -> list[str]:
    path = folder / "x-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return list(Distribution(path).faults("x", "1.0"))


def test_a_complete_wheel_has_no_faults(tmp_path: Path) -> None:
    assert faults(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    "missing, text", [("x/py.typed", "no x/py.typed"), ("licenses/LICENSE", "no LICENSE")]
)
def test_missing_files(missing: str, text: str, tmp_path: Path) -> None:
    files = {name: content for name, content in GOOD.items() if not name.endswith(missing)}
    assert faults(tmp_path, files) == [text]


def test_what_must_not_be_there(tmp_path: Path) -> None:
    extra = {"tests/test_x.py": "", "x/where.py": f"HERE = '{ROOT}/src'"}
    assert faults(tmp_path, GOOD | extra) == [
        "must not contain tests/test_x.py",
        "x/where.py contains a path of this machine",
    ]


def test_another_version(tmp_path: Path) -> None:
    metadata = METADATA.replace("1.0", "2.0")
    received = faults(tmp_path, GOOD | {"x-1.0.dist-info/METADATA": metadata})
    assert received == ["version: expected 1.0, received 2.0"]

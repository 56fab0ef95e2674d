"""The table of versions with known faults, and the warning at start."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from mlserver.known_faults import FAULTS, Fault, find_faults, parse_release, read_installed_version
from support.repository import write_settings
from support.server import Serve

ROOT = Path(__file__).resolve().parents[2]
EXACT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9.]+)")


def declared() -> Iterator[tuple[str, str]]:
    """Package and floor of every requirement of the server, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    for line in chain(project["dependencies"], extras):
        if match := EXACT.match(line):
            yield match[1], match[2]


@pytest.mark.parametrize("package", sorted({fault.package for fault in FAULTS}))
def test_installed_packages_have_no_known_fault(package: str) -> None:
    version = read_installed_version(package)
    assert version is not None
    assert not [fault for fault in FAULTS if fault.package == package and fault.affects(version)]


@pytest.mark.parametrize(
    "package, version, count",
    [
        ("orjson", "3.10.18", 1),
        ("orjson", "3.11.5", 1),
        ("orjson", "3.11.6", 0),
        ("orjson", "4.0", 0),
        ("protobuf", "3.20.3", 1),
        ("protobuf", "4.25.3", 1),
        ("protobuf", "4.25.8", 0),
        ("protobuf", "5.29.4", 1),
        ("protobuf", "5.29.6", 0),
        ("protobuf", "6.30.2", 1),
        ("protobuf", "6.33.6", 0),
        ("protobuf", "7.36.2", 0),
        ("starlette", "0.46.2", 2),
        ("starlette", "0.52.1", 1),
        ("starlette", "1.0.0rc1", 1),
        ("starlette", "1.0.1", 0),
        ("starlette", "1.10.0", 0),
        ("uvicorn", "0.49.0", 1),
        ("uvicorn", "0.50.0", 0),
    ],
)
def test_versions(package: str, version: str, count: int) -> None:
    lines = list(find_faults(lambda name: version if name == package else None))
    assert len(lines) == count
    for line in lines:
        assert line.startswith(f"{package} {version} has a known fault (")
        assert f"pip install '{package}>=" in line


def test_install_command_keeps_the_major_version() -> None:
    fault = Fault("protobuf", ((4, 25, 8), (5, 29, 5), (6, 31, 1)), "deep messages")
    assert fault.get_install_command("5.29.1") == "pip install 'protobuf>=5.29.5,<6'"
    assert fault.get_install_command("6.30.0") == "pip install 'protobuf>=6.31.1'"
    assert fault.get_install_command("3.20.0") == "pip install 'protobuf>=6.31.1'"


@pytest.mark.parametrize(
    "text, release", [("1.2.3", (1, 2, 3)), ("1.2rc1", (1, 2)), ("2!1.0", (2,)), ("x", (0,))]
)
def test_releases(text: str, release: tuple[int, ...]) -> None:
    assert parse_release(text) == release


@pytest.mark.parametrize("package, floor", sorted(set(declared())))
def test_allowed_versions_with_faults_are_found(package: str, floor: str) -> None:
    """Every lower bound of `pyproject.toml` with a fault is reported."""
    for fault in FAULTS:
        if fault.package == package and fault.affects(floor):
            assert list(find_faults(lambda name: floor if name == package else None))


def test_server_warns_at_start(serve: Serve, tmp_path: Path) -> None:
    packages = tmp_path / "packages" / "orjson-3.10.0.dist-info"
    packages.mkdir(parents=True)
    (packages / "METADATA").write_text("Metadata-Version: 2.1\nName: orjson\nVersion: 3.10.0\n")
    folder = tmp_path / "models"
    (folder / "echo").mkdir(parents=True)
    (folder / "echo" / "runtime.py").write_text(RUNTIME)
    write_settings(folder / "echo", name="echo", implementation="runtime.Echo")
    server = serve(folder, env={"PYTHONPATH": str(packages.parent)})
    server.wait_for_line("orjson 3.10.0 has a known fault (deeply nested JSON")
    server.wait_for_line("pip install 'orjson>=3.11.6'")
    assert str(server.log).count("has a known fault") == 1


RUNTIME = """
from mlserver import MLModel
from mlserver.types import InferenceResponse


class Echo(MLModel):
    async def predict(self, request):
        return InferenceResponse(model_name=self.name, outputs=[])
"""

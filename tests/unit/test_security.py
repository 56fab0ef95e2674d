"""What must not be in the source at all, and the oldest versions of what it stands on."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "src" / "mlserver", ROOT / "runtimes" / "mlflow" / "mlserver_mlflow"]
FILES = sorted(path for source in SOURCES for path in source.rglob("*.py"))

# Reading any of these runs code that is in the data.
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "multiprocessing"}
# What would run or fetch what a caller sent.
CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "numpy.load",
    "np.load",
    "pd.read_pickle",
}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert not PICKLES & set(imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in CALLS, f"line {node.lineno}"
            for keyword in node.keywords:
                is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                assert not (keyword.arg in ("shell", "allow_pickle") and is_true), f"line {node.lineno}"


# What tells the time of the day. Durations and deadlines are counted by a clock that never jumps; these modules tell dates.
WALL_CLOCKS = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "datetime.now", "datetime.utcnow"}
TELL_DATES = {
    "scheduling/statistics.py": "the protocol's time of the last inference",
    "handlers/credentials.py": "the end of a token",
    "handlers/traced.py": "the beginning of a span",
    "agents.py": "the protocol's time of an answer",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_clock_on_the_wall_is_for_dates_only(file: Path) -> None:
    asked = {ast.unparse(node) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
    if asked & WALL_CLOCKS:
        assert inside(file) in TELL_DATES


# What fetches addresses; none of these modules is given one by a caller of the server.
FETCHERS = {"urllib.request", "http.client", "httpx", "requests", "aiohttp", "urllib3", "ftplib", "smtplib"}
MAY_FETCH = {
    "handlers/credentials.py": "the issuer's keys, from the address in the settings",
    "cli/scoring/client.py": "the server that the command names",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_only_these_modules_fetch_anything(file: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    if names & FETCHERS:
        assert inside(file) in MAY_FETCH


def inside(file: Path) -> str:
    (source,) = (source for source in SOURCES if file.is_relative_to(source))
    return str(file.relative_to(source))


# The first version of each dependency without a known fault that matters to a server, and what the fault was.
FLOORS = {
    "orjson": ((3, 11, 6), "deep JSON ends the process"),
    "starlette": ((0, 49, 1), "CVE-2025-62727, CVE-2025-54121, CVE-2024-47874: forms and ranges stop the server"),
    "fastapi": ((0, 109, 1), "CVE-2024-24762: a content type stops the server"),
    "pydantic": ((2, 4), "CVE-2024-3772: an address stops the server"),
    "uvicorn": ((0, 11, 7), "CVE-2020-7694, CVE-2020-7695: forged log lines and headers"),
    "grpcio": ((1, 65, 4), "CVE-2024-7246, CVE-2023-33953, CVE-2023-32731: HPACK, data of other connections"),
    "protobuf": ((5, 29, 5), "CVE-2025-4565: deep messages stop the pure Python parser"),
    "PyJWT": ((2, 10, 1), "CVE-2024-53861, CVE-2022-29217: issuers and algorithms confused"),
    "pyarrow": ((14, 0, 1), "CVE-2023-47248: reading runs code"),
    "numpy": ((1, 22), "CVE-2021-41496, CVE-2021-34141: buffer overflows"),
}


def floors() -> dict[str, tuple[int, ...]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = project["optional-dependencies"]
    listed = [*project["dependencies"], *(one for name, group in groups.items() if name != "dev" for one in group)]
    found = {}
    for one in listed:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9.]+)", one)
        if match:
            found[match[1]] = tuple(int(part) for part in match[2].split("."))
    return found


@pytest.mark.parametrize("name", FLOORS)
def test_the_oldest_versions_allowed_have_no_known_fault(name: str) -> None:
    lowest, why = FLOORS[name]
    assert floors()[name] >= lowest, why


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_has_no_known_fault(name: str) -> None:
    lowest, why = FLOORS[name]
    assert Version(version(name)) >= Version(".".join(map(str, lowest))), why

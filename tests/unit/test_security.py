"""What must not be in the source at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "src" / "mlserver", ROOT / "runtimes" / "mlflow" / "mlserver_mlflow"]
FILES = sorted(path for source in SOURCES for path in source.rglob("*.py"))

# Reading any of these runs code that is in the data.
PICKLES = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "multiprocessing",
}
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
                assert not (keyword.arg in ("shell", "allow_pickle") and is_true), (
                    f"line {node.lineno}"
                )


# What tells the time of the day. Durations and deadlines are counted by a clock that never jumps; these modules tell dates.
WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "datetime.now",
    "datetime.utcnow",
}
TELL_DATES = {
    "metrics/model_statistics.py": "the protocol's time of the last inference",
    "security/credentials.py": "the end of a token",
    "handlers/tracing_stage.py": "the beginning of a span",
    "agents/openai_format.py": "the protocol's time of an answer",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_clock_on_the_wall_is_for_dates_only(file: Path) -> None:
    asked = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
    }
    if asked & WALL_CLOCKS:
        assert inside(file) in TELL_DATES


# What fetches addresses; none of these modules is given one by a caller of the server.
FETCHERS = {
    "urllib.request",
    "http.client",
    "httpx",
    "requests",
    "aiohttp",
    "urllib3",
    "ftplib",
    "smtplib",
}
MAY_FETCH = {
    "security/credentials.py": "the issuer's keys, from the address in the settings",
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

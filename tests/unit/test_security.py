"""Calls and imports that the source must not contain."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "src" / "mlserver", ROOT / "runtimes" / "mlflow" / "mlserver_mlflow"]
FILES = sorted(path for source in SOURCES for path in source.rglob("*.py"))

# Formats whose readers run code from the data.
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
# Calls that run code from their argument.
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
def test_no_unpickling_evaluation_or_shell(file: Path) -> None:
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


# Clocks that may be set back: durations and deadlines use a monotonic clock.
WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "datetime.now",
    "datetime.utcnow",
}
NEED_DATES = {
    "metrics/model_metrics.py": "the protocol's time of the last inference",
    "security/credentials.py": "the expiry of a token",
    "handlers/tracing_stage.py": "the start of a span",
    "agents/openai_format.py": "the protocol's time of a response",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_wall_clocks_are_used_for_dates_only(file: Path) -> None:
    attributes = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
    }
    if attributes & WALL_CLOCKS:
        assert get_relative_path(file) in NEED_DATES


# Modules that fetch URLs. Clients of the server supply no URL to any of them.
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
    "security/credentials.py": "the issuer's keys, from the URL in the settings",
    "cli/scoring/client.py": "the server given on the command line",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_only_listed_modules_fetch_urls(file: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    if names & FETCHERS:
        assert get_relative_path(file) in MAY_FETCH


def get_relative_path(file: Path) -> str:
    (source,) = (source for source in SOURCES if file.is_relative_to(source))
    return str(file.relative_to(source))

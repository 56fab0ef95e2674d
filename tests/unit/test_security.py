"""Calls and imports that the source must not contain."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "src" / "mlserver", ROOT / "runtimes" / "mlflow" / "mlserver_mlflow"]


@cache
def parse_sources() -> dict[str, ast.Module]:
    """Path relative to its package -> the module."""
    return {
        str(path.relative_to(source)): ast.parse(path.read_text())
        for source in SOURCES
        for path in sorted(source.rglob("*.py"))
    }


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


def get_dotted_name(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes of a name; "" for other expressions.

    `ast.unparse` of each call and attribute took 8 s of the suite.
    """
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def list_imports(tree: ast.AST) -> Iterator[str]:
    """Yield the packages that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def list_forbidden_calls(tree: ast.AST) -> Iterator[str]:
    """Yield the imports of pickles, and calls that run code from their argument or in a shell."""
    yield from (f"import {name}" for name in PICKLES & set(list_imports(tree)))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if get_dotted_name(node.func) in CALLS:
            yield f"line {node.lineno}: {get_dotted_name(node.func)}"
        for keyword in node.keywords:
            is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if keyword.arg in ("shell", "allow_pickle") and is_true:
                yield f"line {node.lineno}: {keyword.arg}=True"


def test_no_unpickling_evaluation_or_shell() -> None:
    assert not {
        file: calls
        for file, tree in parse_sources().items()
        if (calls := [*list_forbidden_calls(tree)])
    }


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
    "access_log.py": "the time of a line, which is written later",
    "payload_log/events.py": "the time of an event",
    "metrics/model_metrics.py": "the protocol's time of the last inference",
    "security/credentials.py": "the expiry of a token",
    "handlers/tracing_stage.py": "the start of a span",
    "agents/openai_format.py": "the protocol's time of a response",
    "handlers/alias_watcher.py": "when an alias moved or failed, for /v2/console/routing",
    "handlers/monitoring.py": "the time of a document of /v2/console",
    "metrics/recent_errors.py": "when an error was first and last seen, for /v2/console/errors",
    "parallel/death_count.py": "when a worker ended, for /v2/console/workers",
    "parallel/ray/file_digests.py": "the age of a file, whose times are dates",
    "server.py": "when the server started, for /v2/console/metrics",
}


def test_wall_clocks_are_used_for_dates_only() -> None:
    attributes = {
        file: {get_dotted_name(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for file, tree in parse_sources().items()
    }
    assert {file for file, names in attributes.items() if names & WALL_CLOCKS} <= set(NEED_DATES)


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
    "security/jwks.py": "the issuer's keys, from the URL in the settings",
    "cli/scoring/client.py": "the server given on the command line",
}


def list_imported_names(tree: ast.AST) -> Iterator[str]:
    """Yield imported modules, and `module.name` of every `from module import name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_listed_modules_fetch_urls() -> None:
    fetching = {
        file for file, tree in parse_sources().items() if FETCHERS & set(list_imported_names(tree))
    }
    assert fetching <= set(MAY_FETCH)

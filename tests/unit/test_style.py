"""The language and the density of the code, checked.

Old words stay out, a statement holds one idea.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src/", "runtimes/", "tests/", "benchmarks/", "examples/", "tools/")
TEXT_SUFFIXES = {
    *(".py", ".md", ".html", ".toml", ".json", ".sh"),
    *(".js", ".css", ".proto", ".svg", ".yml", ".lua"),
}

# A word of an earlier vocabulary -> the standard word.
OLD_WORDS = {
    "road": "pipeline, path",
    "roads": "pipelines, paths",
    "told": "notified, received",
    "whoever": "the caller, the client",
    "nobody": "no caller, no client",
    "somebody": "a caller, a client",
    "anew": "again",
    "guilty": "failing",
    "forgive": "decay",
    "forgives": "decays",
    "crew": "worker group",
    "fronts": "HTTP worker processes, front ends",
    "desk": "dispatcher",
    "settle": "normalize",
    "settles": "normalizes",
    "settled": "normalized",
    "travel": "pass, be sent",
    "travels": "passes, is sent",
    "traveller": "request",
    "zoo": "models",
    "front door": "public API",
    "at the door": "on admission",
    "for good": "permanently",
    "faces": "representations",
    "errand": "request",
    "suspect": "report",
}
_OLD = re.compile(rf"\b({'|'.join(map(re.escape, OLD_WORDS))})\b", re.IGNORECASE)
_SELF = "tests/unit/test_style.py"


def tracked_files() -> list[str]:
    """Paths of the tracked text files, relative to the repository."""
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [Path(line) for line in listing.stdout.splitlines()]
    return [
        str(path)
        for path in paths
        if (path.suffix in TEXT_SUFFIXES or path.name == "Makefile")
        and "benchmarks/results" not in str(path)
        and "corpus" not in path.parts
        and "vendor" not in path.parts
        and not path.name.endswith((".min.js", ".min.css"))
        and (ROOT / path).is_file()
    ]


FILES = tracked_files()
PYTHON = [name for name in FILES if name.endswith(".py") and name.startswith(CODE)]
SOURCES = [name for name in PYTHON if name.startswith(("src/", "runtimes/")) and "_pb2" not in name]


@cache
def parse(name: str) -> ast.Module:
    """The syntax tree of a file; not parsed at import: each test process imports this module."""
    return ast.parse((ROOT / name).read_text())


@pytest.mark.parametrize(
    "folder", ["src/", "runtimes/", "docs/how-to/", "docs/reference/", "tools/"]
)
def test_the_words_are_sought_everywhere(folder: str) -> None:
    assert any(name.startswith(folder) for name in FILES)


def test_no_old_words() -> None:
    hits = [
        f"{name}:{number}: '{match.group(1)}', write {OLD_WORDS[match.group(1).lower()]}"
        for name in FILES
        if name != _SELF
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        for match in _OLD.finditer(line)
    ]
    assert not hits, "\n".join(hits)


# Statements for which the rule makes the code worse: (path, text of the line) -> the reason.
DENSE_ON_PURPOSE: dict[tuple[str, str], str] = {}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def own_expressions(statement: ast.stmt) -> list[ast.AST]:
    """The expression nodes of a statement without those of the statements inside it."""
    pending = [
        child for child in ast.iter_child_nodes(statement) if not isinstance(child, ast.stmt)
    ]
    nodes: list[ast.AST] = []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ExceptHandler | ast.match_case):
            continue
        nodes.append(node)
        pending += [
            child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)
        ]
    return nodes


def list_dense_statements(name: str) -> Iterator[str]:
    """Yield `path:line: text` of statements with several comprehensions or conditionals."""
    lines = (ROOT / name).read_text().splitlines()
    for node in ast.walk(parse(name)):
        if not isinstance(node, ast.stmt):
            continue
        nodes = own_expressions(node)
        comprehensions = sum(isinstance(item, _COMPREHENSIONS) for item in nodes)
        conditionals = sum(isinstance(item, ast.IfExp) for item in nodes)
        source = lines[node.lineno - 1].strip()
        is_dense = max(comprehensions, conditionals, comprehensions + conditionals - 1) > 1
        if is_dense and (name, source) not in DENSE_ON_PURPOSE:
            yield f"{name}:{node.lineno}: {source}"


def test_a_statement_has_at_most_one_comprehension_and_one_conditional() -> None:
    dense = [statement for name in SOURCES for statement in list_dense_statements(name)]
    assert not dense, "give a part a name:\n" + "\n".join(dense)


def test_files_have_at_most_400_lines() -> None:
    sizes = {name: len((ROOT / name).read_text().splitlines()) for name in PYTHON}
    assert not {name: size for name, size in sizes.items() if size > 400 and "_pb2" not in name}


def test_functions_have_at_most_60_lines() -> None:
    """Docstrings are not counted."""
    long = []
    for name in PYTHON:
        if "_pb2" in name:
            continue
        for node in ast.walk(parse(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                docstring_lines = docstring.count("\n") + 1 if docstring else 0
                size = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines
                if size > 60:
                    long.append(f"{name}:{node.lineno}: {node.name} has {size} lines")
    assert not long, "\n".join(long)


# Names that say nothing of what they name, with what to write instead.
VAGUE_NAMES = {
    "answered": "count, is_answered",
    "asked": "request, call, headers",
    "asking": "call, build_request",
    "found": "actual, or a noun: outputs, samples",
    "given": "value, or a noun: request_id, headers",
    "made": "a noun: request, tensor, payload",
    "one": "a noun: tensor, output, entry",
    "problem": "error",
    "said": "text, message, line",
    "told": "received",
    "wanted": "expected",
}


def list_vague_names(name: str) -> Iterator[str]:
    """Yield `path:line: name` of variables, parameters and functions with a vague name."""
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined, line = node.id, node.lineno
        elif isinstance(node, ast.arg):
            defined, line = node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defined, line = node.name, node.lineno
        else:
            continue
        if defined in VAGUE_NAMES:
            yield f"{name}:{line}: {defined}, write {VAGUE_NAMES[defined]}"


def test_names_are_nouns_of_the_domain() -> None:
    files = [name for name in PYTHON if "_pb2" not in name]
    vague = [entry for name in files for entry in list_vague_names(name)]
    assert not vague, "\n".join(vague)

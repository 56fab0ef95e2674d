"""Mutation testing of one module: `python -m tools.mutation FILE TESTS... [--sample N] [--seed N]`.

Each mutant differs from the file in one operator, constant, condition or statement. A child process
runs the tests against it; a mutant for which no test fails survives, and is printed. The libraries
are imported once, in the parent process, so that a mutant of a module with unit tests takes about a
second:

    python -m tools.mutation src/mlserver/rest/http/body.py tests/unit/rest/test_body.py --sample 40

Survivors need judgement: some are equivalent to the original, or change only its speed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

# Import roots, and libraries that are imported before the first mutant.
ROOTS = ("src", "runtimes/mlflow", "tests")
LIBRARIES = ("pytest", "numpy", "pydantic", "orjson", "msgspec", "httpx")
MLFLOW_LIBRARIES = ("pandas", "sklearn.linear_model", "sklearn.ensemble", "mlflow.pyfunc")
# Seconds after which the tests of a mutant count as failed.
LIMIT = 120.0

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Attributes:
        line: Line of the change in the original.
        before: Text of the changed node.
        after: Its text in the mutant.
        source: Text of the whole mutant.
    """

    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.line}: {_shorten(self.before)}  ->  {_shorten(self.after)}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else f"{line[:90]}..."


def list_mutants(source: str) -> list[Mutant]:
    """Return all mutants of a module's text, in the order of its lines."""
    tree = ast.parse(source)
    mutants = []
    nodes = list(ast.walk(tree))
    skipped = set(map(id, _list_skipped(tree)))
    for index, node in enumerate(nodes):
        if id(node) in skipped:
            continue
        for changed in _change(node):
            copied = copy.deepcopy(tree)
            target = list(ast.walk(copied))[index]
            _Replacement(target, changed).visit(copied)
            text = ast.unparse(ast.fix_missing_locations(copied))
            line = getattr(node, "lineno", 0)
            mutants.append(Mutant(line, ast.unparse(node), ast.unparse(changed), text))
    return sorted(mutants, key=lambda mutant: mutant.line)


class _Replacement(ast.NodeTransformer):
    """Replaces one node of a tree."""

    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self._target = target
        self._replacement = replacement

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._target:
            return self._replacement
        return self.generic_visit(node)


def _list_skipped(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield nodes that are not mutated: annotations, imports, formatted texts, log calls."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parts = [node.returns]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            parts = [node.annotation]
        elif _has_no_effect(node):
            parts = [node]
        for part in parts:
            if part is not None:
                yield from ast.walk(part)


def _has_no_effect(node: ast.AST) -> bool:
    """Whether a node is an import, an import for types, a formatted text or a log call."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Expr):
        return ast.unparse(node).startswith("logger.")
    return isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr)


def _change(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node is replaced by, one mutant each."""
    if isinstance(node, ast.Compare):
        yield from _change_comparison(node)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield ast.BoolOp(other, node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _OPERATORS:
        changed = copy.copy(node)
        changed.op = _OPERATORS[type(node.op)]()
        yield changed
    elif isinstance(node, ast.Constant):
        yield from _change_constant(node)
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        changed_test = copy.copy(node)
        changed_test.test = ast.UnaryOp(ast.Not(), node.test)
        yield changed_test
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant | ast.Yield):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and not isinstance(node.value, ast.Constant | None):
        yield ast.Return(ast.Constant(None))


def _change_comparison(node: ast.Compare) -> Iterator[ast.AST]:
    for index, operator in enumerate(node.ops):
        changed = copy.copy(node)
        changed.ops = [*node.ops]
        changed.ops[index] = _COMPARISONS[type(operator)]()
        yield changed


def _change_constant(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)


class _MutantImporter(MetaPathFinder, Loader):
    """Imports one module from the text of a mutant."""

    def __init__(self, name: str, file: Path, source: str) -> None:
        self._name = name
        self._file = file
        self._source = source

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return spec_from_loader(fullname, self, origin=str(self._file))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._file)
        exec(compile(self._source, str(self._file), "exec"), vars(module))


def get_module_name(file: Path) -> str:
    """Return the import name of a file in one of `ROOTS`."""
    for root in map(Path, ROOTS):
        if file.is_relative_to(root):
            return ".".join(file.relative_to(root).with_suffix("").parts)
    raise SystemExit(f"{file}: expected a file below {', '.join(ROOTS)}")


def run_tests(file: Path, source: str, tests: Sequence[str]) -> bool:
    """Run tests against a mutant in a child process; return whether all of them pass."""
    pid = os.fork()
    if not pid:
        _run_child(file, source, tests)
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def _run_child(file: Path, source: str, tests: Sequence[str]) -> None:
    os.setsid()
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.meta_path.insert(0, _MutantImporter(get_module_name(file), file, source))
        pytest = importlib.import_module("pytest")
        # Plugins that a library has imported are not rewritten: the warning would be an error.
        options = ["-x", "-q", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*options, "-p", "no:cacheprovider", "--timeout=60", *tests]))
    finally:
        os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--sample", type=int, help="number of mutants; default: all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    libraries = [*LIBRARIES]
    if "mlflow" in str(options.file):
        libraries += MLFLOW_LIBRARIES
    for name in libraries:
        importlib.import_module(name)
    sys.path[:0] = [str(Path(root).resolve()) for root in ROOTS]
    source = options.file.read_text()
    mutants = list_mutants(source)
    if options.sample is not None and options.sample < len(mutants):
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    if not run_tests(options.file, source, options.tests):
        raise SystemExit("the tests fail without a mutant")
    survivors = 0
    for mutant in sorted(mutants, key=lambda mutant: mutant.line):
        if run_tests(options.file, mutant.source, options.tests):
            survivors += 1
            sys.stdout.write(f"{options.file}:{mutant}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{survivors} of {len(mutants)} mutants survive\n")


if __name__ == "__main__":
    main()

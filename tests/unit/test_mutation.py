"""Mutants of a small module, and the tests that kill them."""

from __future__ import annotations

from pathlib import Path

from tools import mutation

SOURCE = '''"""Limits."""

LIMIT = 3


def is_above(value: int) -> bool:
    """Whether a value is above the limit."""
    if value > LIMIT and not value % 2:
        return True
    return bool(value - 10 == 0)
'''


def test_mutants_change_one_node() -> None:
    changes = {(mutant.line, mutant.after) for mutant in mutation.list_mutants(SOURCE)}
    assert {
        (3, "4"),
        (8, "value >= LIMIT"),
        (8, "value > LIMIT or not value % 2"),
        (8, "value % 2"),
        (8, "value // 2"),
        (9, "False"),
        (10, "return None"),
        (10, "value - 10 != 0"),
        (10, "value + 10"),
        (10, "11"),
    } <= changes
    assert all(compile(mutant.source, "m", "exec") for mutant in mutation.list_mutants(SOURCE))


def test_annotations_docstrings_and_log_calls_are_not_mutated() -> None:
    source = '"""Text 1."""\nx: list[1] = logger\nlogger.info("a", 1)\nprint(f"{1}")\n'
    assert [mutant.after for mutant in mutation.list_mutants(source)] == ["pass"]


def test_names_of_modules() -> None:
    assert mutation.get_module_name(Path("src/mlserver/wire/json.py")) == "mlserver.wire.json"
    path = Path("runtimes/mlflow/mlserver_mlflow/runtime.py")
    assert mutation.get_module_name(path) == "mlserver_mlflow.runtime"

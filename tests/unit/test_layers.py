"""The rows of ARCHITECTURE.md, enforced.

A module imports only from lower rows, and packages of one row make no cycle.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "mlserver"
ROWS = [
    "_lazy_names _optional errors pipeline tensor types version",
    "access_log context folder_modules isolation known_faults locations log_context logging metrics"
    " model_imports model_threads runtime_hooks security settings sockets tracing",
    "cloudevents codecs custom_routes middleware model raw repository utils wire",
    "env",
    "parallel",
    "batching",
    "registry",
    "cache handlers payload_log",
    "grpc kafka rest",
    "assembly http_workers server startup_report",
    "cli __main__",
]
ROW = {name: number for number, names in enumerate(ROWS) for name in names.split()}
FRONT_ENDS = {"grpc", "kafka", "rest"}
MAY_IMPORT_WIRE = {*FRONT_ENDS, "cli", "wire"}
MODULES = sorted(
    path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if path.name != "version.py"
)


def get_layer_name(module: Path) -> str:
    """The package or module of a row that a file belongs to; "" = `mlserver/__init__.py`."""
    name = module.parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


def list_imports(module: Path) -> Iterator[str]:
    """The layers that a file imports from, at any depth of the code."""
    package = ["mlserver", *module.parent.parts]
    for node in ast.walk(ast.parse((SOURCE / module).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            origin = [*base, *(node.module.split(".") if node.module else [])]
            # `from .. import x` names modules, `from ..x import y` does not.
            names = [".".join([*origin, alias.name]) for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("mlserver."))


def list_faults(module: Path) -> Iterator[str]:
    """Yield the imports of a file that the rows do not allow."""
    layer = get_layer_name(module)
    if not layer:
        return
    if layer not in ROW:
        yield f"give {layer} a row, here and in ARCHITECTURE.md"
        return
    for other in set(list_imports(module)) - {layer}:
        if other not in ROW:
            yield f"{module}: import {other} from the module that defines it"
            continue
        if ROW[other] > ROW[layer]:
            yield f"{module} imports {other}, which is a row above it"
        if other == "wire" and layer not in MAY_IMPORT_WIRE:
            yield f"{module} imports wire: only front ends and the CLI may"
        if {layer, other} <= FRONT_ENDS:
            yield f"{module} imports the front end {other}"


# Folders that a path in ARCHITECTURE.md may start from, beside the folders that it names.
ROOT = SOURCE.parents[1]
PATH_BASES = [SOURCE, ROOT / "runtimes" / "mlflow" / "mlserver_mlflow", ROOT]


def list_architecture_paths() -> set[str]:
    """The files, modules and folders that ARCHITECTURE.md names; `/invocations` is a route."""
    names = re.findall(r"`([\w.][\w./-]*)`", (ROOT / "ARCHITECTURE.md").read_text())
    return {name for name in names if "/" in name or name.endswith(".py")}


def test_paths_in_the_architecture_exist() -> None:
    names = list_architecture_paths()
    assert {"wire/json.py", "batching/scheduler.py", "parallel/worker_pool.py"} <= names
    folders = [base / name for base in PATH_BASES for name in names if name.endswith("/")]
    bases = [*PATH_BASES, *filter(Path.is_dir, folders)]
    missing = [
        name
        for name in sorted(names)
        if not any((base / name).exists() or (base / f"{name}.py").exists() for base in bases)
    ]
    assert not missing, f"ARCHITECTURE.md names paths that do not exist: {missing}"


def test_the_architecture_has_the_same_rows() -> None:
    table = (ROOT / "ARCHITECTURE.md").read_text().partition("\n## Layers\n")[2]
    documented = {}
    for number, modules in re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", table, re.MULTILINE):
        documented[int(number)] = {name.rstrip("/") for name in re.findall(r"`([^`]+)`", modules)}
    assert documented == {number: set(names.split()) for number, names in enumerate(ROWS)}
    existing = {get_layer_name(module) for module in MODULES} - {""}
    assert existing | {"version"} == set(ROW)


def test_imports_lower_rows_only() -> None:
    faults = [fault for module in MODULES for fault in list_faults(module)]
    assert not faults, "\n".join(faults)


def test_packages_import_each_other_without_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        if layer := get_layer_name(module):
            graph.setdefault(layer, set()).update(set(list_imports(module)) - {layer})
    assert list(TopologicalSorter(graph).static_order())


# Modules that a runtime in a repository of its own may import.
PUBLIC_MODULES = {
    "mlserver.codecs",
    "mlserver.codecs.base",
    "mlserver.codecs.numpy",
    "mlserver.context",
    "mlserver.custom_routes",
    "mlserver.errors",
    "mlserver.isolation",
    "mlserver.locations",
    "mlserver.logging",
    "mlserver.model",
    "mlserver.runtime_hooks",
    "mlserver.security.code_policy",
    "mlserver.settings",
    "mlserver.types",
    "mlserver.utils",
}
RUNTIME = SOURCE.parents[1] / "runtimes" / "mlflow" / "mlserver_mlflow"


def test_only_repository_and_cli_of_the_core_name_a_runtime() -> None:
    """A runtime is a plug-in: the rest of the core knows the contract of `runtime_hooks` only."""
    for path in sorted(SOURCE.rglob("*.py")):
        package = path.relative_to(SOURCE).parts[0]
        if package not in ("cli", "repository"):
            assert "mlflow" not in path.read_text().lower(), f"{path.relative_to(SOURCE)}: mlflow"


def list_core_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of every import from the core; the name is "" for a whole module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                is_module = node.module == "mlserver"
                module = f"mlserver.{alias.name}" if is_module else str(node.module)
                yield module, "" if is_module else alias.name


def test_the_runtime_uses_public_names_only() -> None:
    for path in sorted(RUNTIME.rglob("*.py")):
        for module, name in list_core_imports(path):
            if module.partition(".")[0] != "mlserver":
                continue
            assert module in PUBLIC_MODULES, f"{path.name} imports {module}, which is not public"
            assert not name.startswith("_"), f"{path.name} imports {module}.{name}"

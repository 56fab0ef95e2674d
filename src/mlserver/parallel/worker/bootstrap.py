"""Starts a worker in another environment: `python bootstrap.py VERSION PATH... ENTRY FD`.

The worker runs this server's own `mlserver`, whichever version the environment holds, because both
ends of a connection must use the same protocol. All other packages are imported from the
environment, and after that from the server's environment (the PATHs), unless its Python is another
VERSION. ENTRY is `worker`, `template`, or `check`, which only imports the worker. This file has no
imports from its package, because it makes that package importable.
"""

import importlib.util
import os
import sys

OLDEST_PYTHON = (3, 11)


def main() -> None:
    version, paths, entry, fd = sys.argv[1], sys.argv[2:-2], sys.argv[-2], sys.argv[-1]
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise SystemExit(f"Python: expected {oldest} or newer, received {sys.version.split()[0]}")
    if not sys.flags.safe_path:
        sys.path.pop(0)  # this script's folder
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        sys.path.extend(paths)
    _import_server_package()
    sys.argv = [sys.argv[0], fd]
    if entry == "template":
        from mlserver.parallel.worker import template

        template.main()
    from mlserver.parallel.worker import worker

    if entry == "worker":
        worker.main(int(fd))


def _import_server_package() -> None:
    """Bind the name `mlserver` to the package that contains this file."""
    folder = os.path.abspath(__file__)
    for _ in ("worker", "parallel", "mlserver"):
        folder = os.path.dirname(folder)
    init = os.path.join(folder, "__init__.py")
    spec = importlib.util.spec_from_file_location(
        "mlserver", init, submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["mlserver"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    main()

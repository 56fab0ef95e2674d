"""Starts a worker with the interpreter of another environment: run by path, `python bootstrap.py VERSION PATH... FD`.

The worker is always this server's own (the two ends of the channel must agree), whatever `mlserver` the environment holds.
All other packages are the environment's; what it lacks comes from this server's environment (the PATHs), which is last in
line and left out if its Python is another VERSION. It has no imports from its package, for it makes that package findable.
With `check` for FD it only tries whether all that is possible.
"""

import importlib.util
import os
import sys

OLDEST = (3, 11)


def main() -> None:
    version, paths, end = sys.argv[1], sys.argv[2:-1], sys.argv[-1]
    if sys.version_info[:2] < OLDEST:
        raise SystemExit(
            f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {sys.version.split()[0]}"
        )
    sys.path.pop(0)  # this script's folder
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        sys.path.extend(paths)
    _find_own_package()
    sys.argv = [sys.argv[0], end]
    from mlserver.parallel.worker import worker

    if end != "check":
        worker.main()


def _find_own_package() -> None:
    """Make `mlserver` mean the package that this file lies in."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
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

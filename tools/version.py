"""Version of both distributions: `python -m tools.version 2.0.0` sets it.

Without an argument, the version is printed, and an error if the places differ.
The version is that of `src/mlserver/version.py`; the MLflow runtime's pyproject.toml repeats it,
because a source distribution is built without this repository.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "mlserver" / "version.py"
RUNTIME = ROOT / "runtimes" / "mlflow" / "pyproject.toml"
# File -> pattern whose second group is the version.
PLACES = {
    SOURCE: r'(__version__ = ")([^"]+)(")',
    RUNTIME: r'(?m)(^version = ")([^"]+)(")',
}
_REQUIREMENT = r'("mlserver>=)([^,"]+)(,)'


def read_version() -> str:
    """Return the version. Raises `SystemExit` if the places differ."""
    versions = {_find(path, pattern) for path, pattern in PLACES.items()}
    versions.add(_find(RUNTIME, _REQUIREMENT))
    if len(versions) > 1:
        raise SystemExit(f"versions differ: {', '.join(sorted(versions))}")
    return versions.pop()


def set_version(version: str) -> None:
    """Write the version into each place."""
    for path, pattern in (*PLACES.items(), (RUNTIME, _REQUIREMENT)):
        text = re.sub(pattern, rf"\g<1>{version}\g<3>", path.read_text(), count=1)
        path.write_text(text)


def _find(path: Path, pattern: str) -> str:
    match = re.search(pattern, path.read_text())
    if match is None:
        raise SystemExit(f"{path.relative_to(ROOT)}: expected a version, found none")
    return match[2]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        set_version(sys.argv[1])
    sys.stdout.write(read_version() + "\n")

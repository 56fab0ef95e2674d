"""Versions of the packages that a server and the replicas of its models should share."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ...runtime_hooks import find_hooks
from ...version import __version__

SERVER = "mlserver"
PYTHON = "Python"
# Packages that define frames, arrays and tables.
COMPARED = ("msgspec", "numpy", "pandas")
# Keys of a runtime environment that has packages of its own.
_PACKAGES = {"conda", "image_uri", "pip", "py_executable", "uv"}


def read_versions(implementation: str) -> dict[str, str]:
    """Return the versions in this process; what is not installed is missing.

    Args:
        implementation: Import path of a model's runtime, which names further packages.
    """
    versions = {SERVER: __version__, PYTHON: platform.python_version()}
    for name in (*COMPARED, *find_hooks(implementation).compared_packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def select_compared(versions: Mapping[str, str], runtime_env: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions that a replica compares: this package only if its others are chosen."""
    has_packages = not _PACKAGES.isdisjoint(runtime_env)
    return {name: versions[name] for name in versions if name == SERVER or not has_packages}


def list_differences(server: Mapping[str, str], node: Mapping[str, str]) -> list[str]:
    """Return each package with another version, as `numpy 2.4.0 (server: 2.3.1)`."""
    differences = []
    for name in sorted({*server, *node}):
        ours, theirs = server.get(name, "none"), node.get(name, "none")
        if ours != theirs:
            differences.append(f"{name} {theirs} (server: {ours})")
    return differences

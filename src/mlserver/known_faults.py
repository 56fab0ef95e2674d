"""Table of package versions with known faults, and warnings about installed ones.

`pyproject.toml` allows these versions, because the server shares its environment with a model's
requirements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from .logging import get_logger

logger = get_logger()

Release = tuple[int, ...]


@dataclass(frozen=True)
class Fault:
    """A fault of a package.

    Attributes:
        package: The distribution's name.
        fixed: First release without the fault of each major version that has one, oldest first.
        text: The fault and its effect on the server.
    """

    package: str
    fixed: tuple[Release, ...]
    text: str

    def affects(self, version: str) -> bool:
        """Return whether a release has the fault."""
        return parse_release(version) < self._find_fix(version)

    def get_install_command(self, version: str) -> str:
        """Return the command that installs a fix, preferably of the same major version."""
        fix = self._find_fix(version)
        bound = f",<{fix[0] + 1}" if fix != self.fixed[-1] else ""
        return f"pip install '{self.package}>={'.'.join(map(str, fix))}{bound}'"

    def _find_fix(self, version: str) -> Release:
        major = parse_release(version)[0]
        return next((fix for fix in self.fixed if fix[0] == major), self.fixed[-1])


FAULTS = (
    Fault("orjson", ((3, 11, 6),), "deeply nested JSON in a request ends the process"),
    Fault(
        "protobuf",
        ((4, 25, 8), (5, 29, 5), (6, 31, 1)),
        "CVE-2025-4565: deeply nested messages (pure Python parser)",
    ),
    Fault(
        "grpcio", ((1, 65, 4),), "CVE-2024-7246: HPACK tables of other connections behind a proxy"
    ),
    Fault(
        "starlette",
        ((1, 0, 1),),
        "CVE-2026-48710: a Host header changes request.url.path of custom routes",
    ),
    Fault(
        "starlette",
        ((0, 49, 1),),
        "CVE-2025-62727: a Range header occupies the process (FileResponse)",
    ),
    Fault("fastapi", ((0, 109, 1),), "CVE-2024-24762: a form's content type occupies the process"),
    Fault("PyJWT", ((2, 10, 1),), "CVE-2024-53861: part of an issuer is accepted as the issuer"),
    Fault(
        "pyarrow",
        ((14, 0, 1),),
        "CVE-2023-47248: reading Arrow or Parquet runs code that is in the data",
    ),
    Fault(
        "uvicorn",
        ((0, 50, 0),),
        "older releases lack names that the REST server uses: requests fail",
    ),
    Fault(
        "httptools",
        ((0, 7, 1),),
        "its HTTP parser (llhttp before 9.3) reads some requests in two ways",
    ),
)


def parse_release(version: str) -> Release:
    """Parse the leading numbers of a version: `1.2.0rc1` -> (1, 2, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else (0,)


def read_installed_version(package: str) -> str | None:
    """Return the installed version of a distribution; None = not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def find_faults(
    read_version: Callable[[str], str | None] = read_installed_version,
) -> Iterator[str]:
    """Yield a line per known fault of installed packages: package, version, fault, command."""
    packages = {fault.package for fault in FAULTS}
    versions = {package: read_version(package) for package in packages}
    for fault in FAULTS:
        version = versions[fault.package]
        if version is not None and fault.affects(version):
            command = fault.get_install_command(version)
            yield f"{fault.package} {version} has a known fault ({fault.text}): {command}"


def log_warnings() -> None:
    """Log a warning for each known fault of installed packages."""
    for line in find_faults():
        logger.warning(line)

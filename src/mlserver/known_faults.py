"""Versions of other packages with known faults: one table, and the warning that names those that are installed.

`pyproject.toml` allows such versions, because the server is installed beside requirements that are not its own.
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
        fixed: The first release without the fault, of each major line that has one, oldest first.
        text: What the fault is and what it does here.
    """

    package: str
    fixed: tuple[Release, ...]
    text: str

    def is_in(self, version: str) -> bool:
        """Whether a release has the fault."""
        return parse_release(version) < self._fix_for(version)

    def cure(self, version: str) -> str:
        """The command that installs a release without the fault, of the same major line if that has one."""
        fix = self._fix_for(version)
        bound = f",<{fix[0] + 1}" if fix != self.fixed[-1] else ""
        return f"pip install '{self.package}>={'.'.join(map(str, fix))}{bound}'"

    def _fix_for(self, version: str) -> Release:
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
    Fault("PyJWT", ((2, 10, 1),), "CVE-2024-53861: part of an issuer is taken for the issuer"),
    Fault(
        "pyarrow",
        ((14, 0, 1),),
        "CVE-2023-47248: reading Arrow or Parquet runs code that is in the data",
    ),
    Fault(
        "uvicorn",
        ((0, 50, 0),),
        "the REST server stands on names that older releases lack: requests fail",
    ),
    Fault(
        "httptools",
        ((0, 7, 1),),
        "its HTTP parser (llhttp before 9.3) reads some requests in two ways",
    ),
)


def parse_release(version: str) -> Release:
    """The leading numbers of a version: `1.2.0rc1` -> (1, 2, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else (0,)


def installed_version(package: str) -> str | None:
    """The installed version of a distribution; None = it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def find_faults(version_of: Callable[[str], str | None] = installed_version) -> Iterator[str]:
    """One line for each known fault of what is installed: package, version, fault and cure."""
    versions = {package: version_of(package) for package in {fault.package for fault in FAULTS}}
    for fault in FAULTS:
        version = versions[fault.package]
        if version is not None and fault.is_in(version):
            yield f"{fault.package} {version} has a known fault ({fault.text}): {fault.cure(version)}"


def warn() -> None:
    """Log a warning for each known fault of what is installed."""
    for line in find_faults():
        logger.warning(line)

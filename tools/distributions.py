"""Wheels and source distributions of both projects, built into dist/ and checked.

`python -m tools.distributions` builds, checks metadata with twine, and the content of each file.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path, PurePosixPath

from .version import read_version

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
# Project -> import package.
PROJECTS = {ROOT: "mlserver", ROOT / "runtimes" / "mlflow": "mlserver_mlflow"}
FORBIDDEN = re.compile(r"(^|/)(tests?|benchmarks|\.git|\.venv|__pycache__|build)(/|$)")
# Paths of the machine that builds; a home such as /root is too short to be searched for.
_HOME = [Path.home()] if len(Path.home().parts) > 2 else []
MACHINE_PATHS = tuple(str(path).encode() for path in (ROOT, *_HOME))


class Distribution:
    """One built file.

    Attributes:
        names: Paths inside, without the top folder of a source distribution.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_wheel = path.suffix == ".whl"
        self._files = dict(_read(path))
        self.names = set(self._files)

    def faults(self, package: str, version: str) -> Iterator[str]:
        """Yield what is missing or must not be there."""
        metadata = self._metadata()
        if metadata.get("Version") != version:
            yield f"version: expected {version}, received {metadata.get('Version')}"
        if metadata.get("License-Expression") != "Apache-2.0":
            yield "License-Expression: expected Apache-2.0"
        if not any(PurePosixPath(name).name == "LICENSE" for name in self.names):
            yield "no LICENSE"
        if not any(name.endswith(f"{package}/py.typed") for name in self.names):
            yield f"no {package}/py.typed"
        for name, content in self._files.items():
            if FORBIDDEN.search(name) and "cli/templates" not in name:
                yield f"must not contain {name}"
            if any(path in content for path in MACHINE_PATHS):
                yield f"{name} contains a path of this machine"

    def _metadata(self) -> dict[str, str]:
        file_name = "METADATA" if self.is_wheel else "PKG-INFO"
        names = [name for name in self.names if PurePosixPath(name).name == file_name]
        text = self._files[min(names, key=len)].decode()
        return dict(Parser().parsestr(text, headersonly=True).items())


def build(target: Path) -> list[Path]:
    """Build both projects into `target`, which is emptied. Returns the files."""
    shutil.rmtree(target, ignore_errors=True)
    for project in PROJECTS:
        # A former build's folder would add files that no longer exist.
        shutil.rmtree(project / "build" / "lib", ignore_errors=True)
        command = [sys.executable, "-m", "build", "--outdir", str(target), str(project)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{project.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return sorted(target.iterdir())


def check(files: list[Path]) -> list[str]:
    """Return the faults of built files, each with the file's name."""
    version = read_version()
    faults = []
    for path in files:
        package = path.name.partition("-")[0]
        faults += [f"{path.name}: {fault}" for fault in Distribution(path).faults(package, version)]
    if len(files) != 2 * len(PROJECTS):
        faults.append(f"expected {2 * len(PROJECTS)} files, received {len(files)}")
    return faults


def main() -> None:
    files = build(DIST)
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict"]
    subprocess.run([*command, *map(str, files)], check=True)
    faults = check(files)
    if faults:
        raise SystemExit("\n".join(faults))
    for path in files:
        sys.stdout.write(f"{path.stat().st_size / 1024:8.0f} KiB  dist/{path.name}\n")


def _read(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name, archive.read(name)
        return
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            if file is not None:
                yield member.name.partition("/")[2], file.read()


if __name__ == "__main__":
    main()

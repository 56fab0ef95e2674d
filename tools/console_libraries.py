"""Fetches the console's libraries with npm: `python -m tools.console_libraries`.

The files are stored with their licences and VENDOR.md, which has name, version, licence and SHA-512
of each; `tests/unit/rest/test_console_files.py` compares them. axe-core is for the browser tests
only, and not part of the package.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVED = ROOT / "src" / "mlserver" / "rest" / "console" / "static" / "vendor"
TESTS = ROOT / "tests" / "browser" / "vendor"
HEAD = """# Libraries of the console

Fetched by `python -m tools.console_libraries`; do not edit.
Changes to the published files: {changes}

| file | package | version | licence | SHA-512 |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Library:
    """One npm package.

    Attributes:
        files: Path in the package -> name here.
        licence: SPDX identifier.
    """

    name: str
    version: str
    licence: str
    files: dict[str, str]
    folder: Path = SERVED


LIBRARIES = (
    Library(
        "preact",
        "11.2.0",
        "MIT",
        {
            "dist/preact.mjs": "preact.js",
            "hooks/dist/hooks.mjs": "preact-hooks.js",
            "LICENSE": "preact.LICENSE.txt",
        },
    ),
    Library("htm", "3.1.1", "Apache-2.0", {"dist/htm.mjs": "htm.js", "LICENSE": "htm.LICENSE.txt"}),
    Library(
        "uplot",
        "1.6.32",
        "MIT",
        {
            "dist/uPlot.iife.min.js": "uplot.js",
            "dist/uPlot.min.css": "uplot.css",
            "LICENSE": "uplot.LICENSE.txt",
        },
    ),
    Library(
        "axe-core",
        "4.14.1",
        "MPL-2.0",
        {"axe.min.js": "axe.min.js", "LICENSE": "axe-core.LICENSE.txt"},
        TESTS,
    ),
)


def fetch(library: Library, folder: Path) -> dict[str, bytes]:
    """Return the files of a package by their names here."""
    subprocess.run(
        ["npm", "pack", "--silent", f"{library.name}@{library.version}"], cwd=folder, check=True
    )
    with tarfile.open(folder / f"{library.name}-{library.version}.tgz") as archive:
        contents = {}
        for path, name in library.files.items():
            member = archive.extractfile(f"package/{path}")
            assert member is not None, path
            contents[name] = member.read()
    return contents


def adapt(name: str, content: bytes) -> bytes:
    """Return a file as the console imports it, without a build step."""
    if not name.endswith(".js"):
        return content
    text = "// @ts-nocheck\n" + content.decode()
    text = re.sub(r"\n?//# sourceMappingURL=\S+\s*$", "\n", text)
    if name == "preact-hooks.js":
        text, count = re.subn(r'from"preact"', 'from"./preact.js"', text)
        assert count == 1, "expected one bare import"
    if name == "uplot.js":
        text += "\nexport default uPlot;\n"
    return text.encode()


def write_table(folder: Path) -> str:
    """Return VENDOR.md for the files of a folder."""
    changes = "none."
    if folder == SERVED:
        changes = (
            "the import of preact in `preact-hooks.js` names the file, `uplot.js` has an export, "
            "addresses of source maps are removed, and a first line excludes them from type checks."
        )
    table = HEAD.format(changes=changes)
    for library in LIBRARIES:
        for name in library.files.values() if library.folder == folder else ():
            digest = hashlib.sha512((folder / name).read_bytes()).hexdigest()
            fields = (f"`{name}`", library.name, library.version, library.licence, f"`{digest}`")
            table += f"| {' | '.join(fields)} |\n"
    return table


def main() -> None:
    """Fetch all libraries and write the tables."""
    for library in LIBRARIES:
        library.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in fetch(library, Path(folder)).items():
                is_served = library.folder == SERVED
                stored = adapt(name, content) if is_served else content
                (library.folder / name).write_bytes(stored)
    for target in (SERVED, TESTS):
        (target / "VENDOR.md").write_text(write_table(target))


if __name__ == "__main__":
    main()

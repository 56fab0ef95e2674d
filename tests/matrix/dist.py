"""`python -m matrix.dist`: the quick start from the wheels in dist/, with each Python found."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.page_session import PageSession
from support.pages import ROOT, is_run, read_blocks

from .environments import NotAvailable, find_python

PAGE = "docs/tutorials/quick-start.md"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def main() -> int:
    wheels = sorted((ROOT / "dist").glob("*.whl"))
    ran = 0
    for version in PYTHONS:
        try:
            python = find_python(version)
        except NotAvailable as error:
            sys.stdout.write(f"Python {version}: skipped, {error}\n")
            continue
        with tempfile.TemporaryDirectory() as folder:
            interpreter = install(python, Path(folder) / "venv", wheels)
            with PageSession(Path(folder) / "session", interpreter, installs=False) as session:
                for block in read_blocks(PAGE):
                    if is_run(block):
                        session.run_block(block)
        sys.stdout.write(f"Python {version}: the quick start runs\n")
        ran += 1
    return 0 if ran else 1


def install(python: str, folder: Path, wheels: list[Path]) -> Path:
    """Create an environment with both wheels and all of MLflow. Returns its interpreter."""
    uv = [sys.executable, "-m", "uv"]
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    commands = [
        [*uv, "venv", "--quiet", "--python", python, str(folder)],
        [*uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
        + [f"{wheel}[full]" if "mlflow" in wheel.name else str(wheel) for wheel in wheels],
    ]
    for command in commands:
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder / "bin" / "python"


if __name__ == "__main__":
    sys.exit(main())

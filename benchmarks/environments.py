"""Virtual environments of the peers under .venvs, one each, installed from the package index."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
FOLDER = ROOT / ".venvs"
OWN = "own"  # the environment that runs the benchmark: this server is installed in it
RELEVANT_PACKAGES = (
    "mlserver",
    "mlserver-mlflow",
    "mlflow",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "pydantic",
    "bentoml",
    "litserve",
    "ray",
    "kserve",
    "grpcio",
    "scikit-learn",
    "pandas",
    "numpy",
)
_LIST = (
    "import json, sys; from importlib.metadata import version, PackageNotFoundError\n"
    "versions = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try: versions[name] = version(name)\n"
    "    except PackageNotFoundError: pass\n"
    "print(json.dumps(versions))"
)


class NotInstalled(Exception):
    """An environment cannot be created; the text is the reason."""


def python(name: str) -> Path:
    """Return the interpreter of the environment."""
    return Path(sys.executable) if name == OWN else FOLDER / name / "bin" / "python"


def install(name: str) -> None:
    """Create the environment, unless it exists with the same requirements.

    Raises:
        NotInstalled: with the errors of pip.
    """
    if name == OWN:
        return
    requirements = HERE / "environments" / f"{name}.txt"
    stamp = FOLDER / name / ".installed"
    state = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return
    print(f"installing {name} ...", flush=True)
    _run([sys.executable, "-m", "venv", str(FOLDER / name)])
    pip = [str(python(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "-r", str(requirements)])
    stamp.write_text(state)


def install_libraries(name: str) -> Path:
    """Install the packages of a requirements file into a folder for `PYTHONPATH`; return it.

    Raises:
        NotInstalled: with the errors of pip.
    """
    requirements = HERE / "environments" / f"{name}.txt"
    folder = FOLDER / name
    stamp = folder / ".installed"
    state = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return folder
    print(f"installing {name} ...", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--upgrade", "--no-deps", "--target", str(folder), "-r", str(requirements)])
    stamp.write_text(state)
    return folder


def versions(name: str) -> dict[str, str]:
    """Return the versions of the relevant packages in an environment."""
    if name == OWN:
        return {"mlserver": version("mlserver")} | _read_versions(name)
    return _read_versions(name)


def _read_versions(name: str) -> dict[str, str]:
    done = subprocess.run(
        [str(python(name)), "-c", _LIST, *RELEVANT_PACKAGES],
        capture_output=True,
        text=True,
        check=True,
    )
    found_versions: dict[str, str] = json.loads(done.stdout)
    return found_versions


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR")
        ] or done.stderr.splitlines()[-1:]
        raise NotInstalled(" ".join(errors)[:300])

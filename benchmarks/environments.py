"""The peers' environments: one each under .venvs, made from the package index; one that cannot be made says why."""

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
OF_INTEREST = (
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
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try: found[name] = version(name)\n"
    "    except PackageNotFoundError: pass\n"
    "print(json.dumps(found))"
)


class NotInstalled(Exception):
    """An environment cannot be made; the text is the reason."""


def python(name: str) -> Path:
    """The environment's interpreter."""
    return Path(sys.executable) if name == OWN else FOLDER / name / "bin" / "python"


def install(name: str) -> None:
    """Make the environment, unless it is there with the same requirements.

    Raises:
        NotInstalled: pip's last words.
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


def versions(name: str) -> dict[str, str]:
    """The versions in an environment that matter to a measurement."""
    if name == OWN:
        return {"mlserver": version("mlserver")} | _ask(name)
    return _ask(name)


def _ask(name: str) -> dict[str, str]:
    answer = subprocess.run(
        [str(python(name)), "-c", _LIST, *OF_INTEREST], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR")
        ] or done.stderr.splitlines()[-1:]
        raise NotInstalled(" ".join(errors)[:300])

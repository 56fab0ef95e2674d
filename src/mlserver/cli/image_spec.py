"""What an image needs in order to serve a folder, and the Dockerfile that says so. Reads the folder; runs nothing.

Every instruction with arguments is in Docker's JSON form, so that no name, path or requirement meets a shell.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from ..settings import SettingsError
from ..settings.sources import read_json_object
from ..version import __version__
from .terminal import CommandError

CONDA_FILES = ("environment.yml", "environment.yaml", "conda.yml", "conda.yaml")
MODELS = "/mnt/models"
REQUIREMENTS = "/opt/requirements"
WHEELS = "/opt/wheels"
# Name of the build context of wheels that lie outside of the folder.
WHEELS_CONTEXT = "wheels-of-the-server"
HOME = "/home/mlserver"
RUNTIMES = ("mlflow",)
OLDEST_PYTHON = (3, 11)
PORTS = {"http_port": 8080, "grpc_port": 8081, "metrics_port": 8082}
IGNORED = """\
# Written by `mlserver dockerfile`: what an image that serves this folder does not need.
**/.*
**/__pycache__
**/*.pyc
**/*.egg-info
Dockerfile
Dockerfile.dockerignore
"""
# Lines of a requirements file: another file that it includes, and what needs the whole folder.
_INCLUDED = re.compile(r"(?:-r|-c|--requirement|--constraint)[ =]*(?P<file>\S+)")
_LOCAL = re.compile(r"(?:-e|--editable)\b|\.{0,2}/|file:")
_PYTHON = re.compile(r"python[ =:'\"]*=*\s*['\"]?(?P<major>3)\.(?P<minor>\d+)")
_SYSTEM_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")


@dataclass
class Image:
    """What goes into an image.

    Attributes:
        folder: What is served; the build's context.
        requirements: Arguments of `pip install` beside mlserver's own, other than files.
        files: Requirements files, relative to the folder, that pip is given.
        included: Further files that those include.
        whole_folder: A requirement is part of the folder, so all of it is copied before pip runs.
        tls: The server's setting of that name.
        remarks: What the user should know.
        wheels: Where pip looks for packages first: a folder of the build's context, or WHEELS for a context of its own.
        has_models: The folder's content is copied into the image.
    """

    folder: Path
    python: str = ""
    mlflow: bool = False
    requirements: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    included: list[str] = field(default_factory=list)
    whole_folder: bool = False
    ports: list[int] = field(default_factory=list)
    tls: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    wheels: str = ""
    has_models: bool = True


def generic(folder: Path, runtime: str, python: str | None = None) -> Image:
    """An image without models, for those that are mounted at MODELS.

    Args:
        runtime: One of RUNTIMES.
    """
    _check_python(python)
    image = Image(folder, python or _own_python(), has_models=False, ports=list(PORTS.values()))
    image.mlflow = runtime == "mlflow"
    return image


def add_wheels(image: Image, wheels: Path) -> None:
    """Let pip take packages from a folder with wheels, such as those of a server that is not published.

    Raises:
        Failed: there are no wheels.
    """
    if not any(wheels.glob("*.whl")):
        raise CommandError(f"{wheels}: expected a folder with .whl files")
    is_inside = image.has_models and wheels.resolve().is_relative_to(image.folder.resolve())
    image.wheels = _relative(image, wheels) if is_inside else WHEELS_CONTEXT


def look_at(folder: Path, python: str | None = None) -> Image:
    """Read from a folder what its image needs.

    Raises:
        Failed: No such folder, or a file in it that cannot be read.
    """
    if not folder.is_dir():
        raise CommandError(
            f"{folder}: expected a folder with models, but it {'is a file' if folder.exists() else 'does not exist'}"
        )
    _check_python(python)
    image = Image(folder, python or "")
    server = _json(folder / "settings.json")
    image.ports = [_port(server.get(name, default), default) for name, default in PORTS.items()]
    tls = server.get("tls")
    image.tls = tls if isinstance(tls, dict) else {}
    for place in model_folders(folder):
        _add_model(image, place)
    image.python = image.python or _own_python()
    return image


def _check_python(python: str | None) -> None:
    if python and not re.fullmatch(r"3\.\d{1,2}", python):
        raise click.UsageError(f"--python: expected a version such as 3.12, received '{python}'")


def _own_python() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def model_folders(folder: Path) -> Iterator[Path]:
    """The folder itself and every one below it that is a model's; hidden ones are left out, as the server does."""
    yield folder
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(place) != folder and {"model-settings.json", "MLmodel"}.intersection(files):
            yield Path(place)


def _port(value: Any, default: int) -> int:
    """A port as a settings file may write it; what is wrong there, the server says better."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(str(path)) if path.is_file() else {}
    except SettingsError as error:
        raise CommandError(error.message) from None


def _add_model(image: Image, place: Path) -> None:
    settings = _json(place / "model-settings.json")
    mlflow_here = (place / "MLmodel").is_file()
    image.mlflow |= mlflow_here or str(settings.get("implementation", "")).startswith(
        "mlserver_mlflow."
    )
    parameters = settings.get("parameters")
    uri = parameters.get("uri") if isinstance(parameters, dict) else None
    if (
        isinstance(uri, str)
        and "://" not in uri
        and not (place / uri).resolve().is_relative_to(image.folder.resolve())
    ):
        image.remarks.append(
            f"{_shown(image, place)}: uri {uri} is outside of the folder, so it is not in the image"
        )
    _choose_python(image, place / "python_env.yaml")
    requirements = place / "requirements.txt"
    if requirements.is_file():
        image.files.append(_relative(image, requirements))
        _follow(image, requirements)
        return
    for name in CONDA_FILES:
        if (place / name).is_file():
            _add_conda(image, place / name)
            return


def _choose_python(image: Image, path: Path) -> None:
    if path.is_file():
        for line in path.read_text().splitlines():
            if found := _PYTHON.match(line.strip()):
                _wish(image, int(found["major"]), int(found["minor"]), path)


def _wish(image: Image, major: int, minor: int, source: Path) -> None:
    """The first model that names a version decides."""
    if (major, minor) < OLDEST_PYTHON:
        image.remarks.append(
            f"{_shown(image, source)} asks for Python {major}.{minor}; mlserver needs 3.11 or newer"
        )
    elif not image.python:
        image.python = f"{major}.{minor}"


# -- requirements --


def _follow(image: Image, path: Path) -> None:
    """Note the files that a requirements file includes, and whether it needs the folder itself."""
    for line in _read(path).splitlines():
        text = line.strip()
        if _LOCAL.match(text):
            image.whole_folder = True
        if found := _INCLUDED.match(text):
            _include(image, path.parent / found["file"])


def _include(image: Image, path: Path) -> None:
    if "://" in str(path) or not path.is_file():
        return  # an address, or nothing: pip has the better words
    name = _relative(image, path)
    if name not in (*image.included, *image.files):
        image.included.append(name)
        _follow(image, path)


def _add_conda(image: Image, path: Path) -> None:
    """The pip section of a conda file. What only conda can install is remarked on."""
    for entry in _dependencies(path):
        if isinstance(entry, dict):
            for requirement in entry.get("pip") or []:
                _add_requirement(image, path, str(requirement).strip())
        elif found := _PYTHON.match(str(entry)):
            _wish(image, int(found["major"]), int(found["minor"]), path)
        elif not re.match(r"(?:python|pip)\b", str(entry)):
            image.remarks.append(
                f"{_shown(image, path)}: {entry} is conda's; name it under pip, or as a system package"
            )


def _dependencies(path: Path) -> list[Any]:
    try:
        yaml: Any = import_module("yaml")
    except ImportError:
        raise CommandError(
            f"{path}: reading conda files needs PyYAML: pip install pyyaml"
        ) from None
    try:
        content = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise CommandError(f"{path}: not valid YAML: {error}") from None
    found = content.get("dependencies") if isinstance(content, dict) else None
    return found if isinstance(found, list) else []


def _add_requirement(image: Image, path: Path, requirement: str) -> None:
    if found := _INCLUDED.match(requirement):
        image.files.append(_relative(image, path.parent / found["file"]))
        _include(image, path.parent / found["file"])
    elif requirement not in image.requirements:
        image.requirements += (
            shlex.split(requirement) if requirement.startswith("-") else [requirement]
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: cannot be read: {error}") from None


def _relative(image: Image, path: Path) -> str:
    """A file's path in the build's context. Docker reads `*`, `?`, `[` and `$` in such paths."""
    name = os.path.relpath(path.resolve(), image.folder.resolve()).replace(os.sep, "/")
    if name.startswith("../"):
        raise CommandError(f"{path} is outside of {image.folder}, where the image cannot get it")
    if set(name) & set("*?[$\\"):
        raise CommandError(f"{path}: a Dockerfile cannot name this file")
    return name


def _shown(image: Image, path: Path) -> str:
    return os.path.relpath(path, image.folder)


# -- the text --


def dockerfile(
    image: Image, mlserver: str | None = None, system_packages: tuple[str, ...] = ()
) -> str:
    """The Dockerfile.

    Args:
        mlserver: Requirement by which pip finds this server; None = this version.
        system_packages: Debian packages that the models' libraries need.
    """
    wanted = [mlserver or f"mlserver=={__version__}"]
    if image.mlflow:
        # Without models at hand, nobody knows what they need: all of MLflow, and what builds their environments.
        extras = "" if image.has_models else "[full,uv]"
        wanted.append(f"mlserver-mlflow{extras}=={__version__}")
    if image.wheels:
        wanted = ["--find-links", WHEELS, *wanted]
    base = MODELS if image.whole_folder else REQUIREMENTS
    for name in dict.fromkeys(image.files):
        wanted += ["--requirement", f"{base}/{name}"]
    copied = [] if image.whole_folder else [*image.files, *image.included]
    # Under OpenShift an image runs as any user of group 0, who reads what all may read.
    everything = f"COPY --chown=1000:0 --chmod=755 {_array('.', MODELS)}"
    late = [] if image.whole_folder or not image.has_models else [everything]
    lines = [
        "# Written by `mlserver dockerfile`; `mlserver build` builds it.",
        f"FROM python:{image.python}-slim",
        "ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore",
        f"RUN {_array('useradd', '--create-home', '--uid', '1000', '--gid', '0', 'mlserver')}",
        f"RUN {_array('chmod', '0775', HOME)}",
        f"ENV HOME={HOME}",
        *_system(system_packages),
        *([everything] if image.whole_folder else []),
        *(f"COPY {_array(name, f'{REQUIREMENTS}/{name}')}" for name in dict.fromkeys(copied)),
        *_wheels(image),
        f"RUN {_array('python', '-m', 'pip', 'install', *wanted, *image.requirements)}",
        *late,
        "USER 1000",
        f"WORKDIR {HOME}",
        f"EXPOSE {' '.join(str(port) for port in image.ports if port)}",
        *_health(image),
        f"CMD {_array('mlserver', 'start', MODELS)}",
    ]
    return "\n".join(lines) + "\n"


def _wheels(image: Image) -> list[str]:
    if not image.wheels:
        return []
    if image.wheels == WHEELS_CONTEXT:
        return [f"COPY --from={WHEELS_CONTEXT} {_array('.', WHEELS)}"]
    return [f"COPY {_array(image.wheels, WHEELS)}"]


def _health(image: Image) -> list[str]:
    """A server that asks its clients for certificates cannot be asked from inside without one."""
    if image.tls.get("client_ca"):
        return []
    url = f"'http{'s' if image.tls else ''}://127.0.0.1:{image.ports[0]}/v2/health/live'"
    # Nobody stands between a container and itself: its certificate is for another name.
    context = "context=ssl._create_unverified_context(), " if image.tls else ""
    ask = f"import ssl, urllib.request; urllib.request.urlopen({url}, {context}timeout=4)"
    return [
        f"HEALTHCHECK --start-period=60s --interval=10s --timeout=5s CMD {_array('python', '-c', ask)}"
    ]


def _system(packages: tuple[str, ...]) -> list[str]:
    if not packages:
        return []
    for name in packages:
        if not _SYSTEM_PACKAGE.fullmatch(name):
            raise CommandError(f"'{name}' is not the name of a Debian package")
    install = (
        f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(packages)}"
    )
    return [f"RUN {_array('sh', '-c', f'{install} && rm -rf /var/lib/apt/lists/*')}"]


def _array(*words: str) -> str:
    return json.dumps(words, ensure_ascii=False)

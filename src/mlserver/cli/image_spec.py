"""Specification of an image that serves a folder, read from the folder's files."""

from __future__ import annotations

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

from ..locations import is_address
from ..settings import SettingsError
from ..settings.sources import read_json_object
from .image_slim import GENERIC_REQUIREMENTS, NotSlim, make_slim
from .terminal import CommandError

CONDA_FILES = ("environment.yml", "environment.yaml", "conda.yml", "conda.yaml")
# Folders of the image.
MODELS = "/mnt/models"
REQUIREMENTS = "/opt/requirements"
WHEELS = "/opt/wheels"
HOME = "/home/mlserver"
PACKAGES = "/opt/mlserver"  # virtual environment of the server and the models' packages
# Name of the additional build context for wheels outside the folder.
WHEELS_CONTEXT = "wheels-of-the-server"
RUNTIMES = ("mlflow",)
MIN_PYTHON = (3, 11)
DEFAULT_PORTS = {"http_port": 8080, "grpc_port": 8081, "metrics_port": 8082}
DOCKERIGNORE = """\
# Written by `mlserver dockerfile`: files that the image does not need.
**/.*
**/__pycache__
**/*.pyc
**/*.egg-info
Dockerfile
Dockerfile.dockerignore
"""
# Lines of a requirements file: included files, and requirements that are part of the folder.
_INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)[ =]*(?P<file>\S+)")
_LOCAL_REQUIREMENT = re.compile(r"(?:-e|--editable)\b|\.{0,2}/|file:")
_IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_PYTHON = re.compile(r"python[ =:'\"]*=*\s*['\"]?(?P<major>3)\.(?P<minor>\d+)")


@dataclass
class ImageSpec:
    """Content of an image.

    Attributes:
        folder: Folder that is served; Docker's build context.
        requirements: Arguments of `pip install`, apart from the server's and from files.
        requirements_files: Requirements files for pip, relative to the folder.
        included_files: Files that the requirements files include.
        needs_whole_folder: A requirement is part of the folder, so COPY precedes pip.
        tls: Setting `tls` of the server.
        notes: Notes for the user.
        wheels: Folder of the build context where pip searches first, or WHEELS_CONTEXT.
        has_models: The folder is copied into the image.
        slim: Write mlflow-skinny in place of mlflow where the model allows it.
        base: Base image; "" = Python's official slim image.
    """

    folder: Path
    python: str = ""
    mlflow: bool = False
    requirements: list[str] = field(default_factory=list)
    requirements_files: list[str] = field(default_factory=list)
    included_files: list[str] = field(default_factory=list)
    needs_whole_folder: bool = False
    ports: list[int] = field(default_factory=list)
    tls: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    wheels: str = ""
    has_models: bool = True
    slim: bool = False
    base: str = ""

    @classmethod
    def from_runtime(
        cls, folder: Path, runtime: str, python: str | None = None, slim: bool = False
    ) -> ImageSpec:
        """Return an image without models, which are mounted at MODELS.

        Args:
            runtime: One of RUNTIMES.
            slim: Install what scikit-learn models need in place of all of MLflow.
        """
        _check_python_option(python)
        spec = cls(folder, python or _get_current_python(), has_models=False, slim=slim)
        spec.ports = list(DEFAULT_PORTS.values())
        spec.mlflow = runtime == "mlflow"
        spec.requirements = list(GENERIC_REQUIREMENTS) if slim else []
        return spec

    @classmethod
    def from_folder(cls, folder: Path, python: str | None = None, slim: bool = False) -> ImageSpec:
        """Return the image of a folder with models.

        Args:
            slim: Write mlflow-skinny in place of mlflow where the model allows it.

        Raises:
            CommandError: the folder does not exist, or one of its files cannot be read.
        """
        if not folder.is_dir():
            state = "is a file" if folder.exists() else "does not exist"
            raise CommandError(f"{folder}: expected a folder with models, but it {state}")
        _check_python_option(python)
        spec = cls(folder, python or "", slim=slim)
        settings = _read_json(folder / "settings.json")
        spec.ports = [
            _parse_port(settings.get(name, default), default)
            for name, default in DEFAULT_PORTS.items()
        ]
        tls = settings.get("tls")
        spec.tls = tls if isinstance(tls, dict) else {}
        for model_folder in find_model_folders(folder):
            _add_model(spec, model_folder)
        spec.python = spec.python or _get_current_python()
        return spec

    @property
    def base_image(self) -> str:
        """Name of the base image."""
        return self.base or f"python:{self.python}-slim"

    def set_base(self, base: str) -> None:
        """Use another base image than Python's official one. It needs Python and its venv.

        Raises:
            UsageError: not the name of an image.
        """
        if not _IMAGE_NAME.fullmatch(base):
            raise click.UsageError(f"--base: expected the name of an image, received '{base}'")
        self.base = base

    def add_wheels(self, wheels: Path) -> None:
        """Install packages from a folder of wheels, such as those of an unpublished server.

        Raises:
            CommandError: the folder has no wheels.
        """
        if not any(wheels.glob("*.whl")):
            raise CommandError(f"{wheels}: expected a folder with .whl files")
        is_inside = self.has_models and wheels.resolve().is_relative_to(self.folder.resolve())
        self.wheels = self.get_context_path(wheels) if is_inside else WHEELS_CONTEXT

    def get_context_path(self, path: Path) -> str:
        """Return a file's path in the build context.

        Raises:
            CommandError: the file is outside the context, or its name has one of `*?[$\\`, which
                Docker interprets.
        """
        name = os.path.relpath(path.resolve(), self.folder.resolve()).replace(os.sep, "/")
        if name.startswith("../"):
            raise CommandError(f"{path} is outside {self.folder}, so it cannot be copied")
        if set(name) & set("*?[$\\"):
            raise CommandError(f"{path}: a Dockerfile cannot name this file")
        return name

    def add_note(self, path: Path, text: str) -> None:
        """Add a note for the user about a file."""
        self.notes.append(f"{os.path.relpath(path, self.folder)}{text}")


def find_model_folders(folder: Path) -> Iterator[Path]:
    """Yield the folder, and every model folder below it that is not hidden."""
    yield folder
    for name, folders, files in os.walk(folder):
        folders[:] = sorted(child for child in folders if not child.startswith("."))
        if Path(name) != folder and {"model-settings.json", "MLmodel"}.intersection(files):
            yield Path(name)


def _check_python_option(python: str | None) -> None:
    if python and not re.fullmatch(r"3\.\d{1,2}", python):
        raise click.UsageError(f"--python: expected a version such as 3.12, received '{python}'")


def _get_current_python() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def _parse_port(value: Any, default: int) -> int:
    """Return a port of the settings file; the server reports an invalid value when it starts."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(str(path)) if path.is_file() else {}
    except SettingsError as error:
        raise CommandError(error.message) from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: cannot be read: {error}") from None


# -- one model --


def _add_model(spec: ImageSpec, folder: Path) -> None:
    settings = _read_json(folder / "model-settings.json")
    implementation = str(settings.get("implementation", ""))
    is_mlflow = (folder / "MLmodel").is_file() or implementation.startswith("mlserver_mlflow.")
    spec.mlflow = spec.mlflow or is_mlflow
    _check_uri(spec, folder, settings.get("parameters"))
    _read_python_env(spec, folder / "python_env.yaml")
    requirements = folder / "requirements.txt"
    if requirements.is_file():
        _add_requirements_file(spec, requirements)
        return
    for name in CONDA_FILES:
        if (folder / name).is_file():
            _add_conda_file(spec, folder / name)
            return


def _add_requirements_file(spec: ImageSpec, path: Path) -> None:
    slim = _read_slim_requirements(spec, path, _read_requirements(path)) if spec.slim else None
    if slim is None:
        spec.requirements_files.append(spec.get_context_path(path))
        _add_included_files(spec, path)
        return
    for requirement in slim:
        _add_requirement(spec, path, requirement)


def _read_requirements(path: Path) -> list[str]:
    lines = (line.partition(" #")[0].strip() for line in _read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _read_slim_requirements(
    spec: ImageSpec, path: Path, requirements: list[str]
) -> list[str] | None:
    """Return the requirements for mlflow-skinny, or None and a note if the model forbids it."""
    model = path.parent / "MLmodel"
    if not model.is_file():
        return None
    try:
        return make_slim(_read_yaml(model), requirements)
    except NotSlim as reason:
        spec.add_note(path, f": all of MLflow is installed in spite of --slim: {reason}")
        return None


def _check_uri(spec: ImageSpec, folder: Path, parameters: Any) -> None:
    uri = parameters.get("uri") if isinstance(parameters, dict) else None
    if not isinstance(uri, str):
        return
    if is_address(uri):
        if not (folder / "requirements.txt").is_file():
            spec.add_note(
                folder,
                f": {uri} is downloaded at the start, so its requirements are not known here: put "
                "them into a requirements.txt beside model-settings.json, or use the generic image "
                "(--runtime)",
            )
        return
    if not (folder / uri).resolve().is_relative_to(spec.folder.resolve()):
        spec.add_note(folder, f": uri {uri} is outside of the folder, so it is not in the image")


def _read_python_env(spec: ImageSpec, path: Path) -> None:
    if path.is_file():
        for line in path.read_text().splitlines():
            if match := _PYTHON.match(line.strip()):
                _select_python(spec, match, path)


def _select_python(spec: ImageSpec, match: re.Match[str], path: Path) -> None:
    """Use the Python version of the first model that names one."""
    version = int(match["major"]), int(match["minor"])
    name = f"{version[0]}.{version[1]}"
    if version < MIN_PYTHON:
        spec.add_note(path, f" requires Python {name}; mlserver needs 3.11 or newer")
    elif not spec.python:
        spec.python = name


# -- requirements --


def _add_included_files(spec: ImageSpec, path: Path) -> None:
    """Add the files that a requirements file includes, and detect local requirements."""
    for line in _read_text(path).splitlines():
        text = line.strip()
        if _LOCAL_REQUIREMENT.match(text):
            spec.needs_whole_folder = True
        if match := _INCLUDE.match(text):
            _add_included_file(spec, path.parent / match["file"])


def _add_included_file(spec: ImageSpec, path: Path) -> None:
    if "://" in str(path) or not path.is_file():
        return  # pip downloads a URL, and reports a missing file
    name = spec.get_context_path(path)
    if name not in (*spec.included_files, *spec.requirements_files):
        spec.included_files.append(name)
        _add_included_files(spec, path)


def _add_conda_file(spec: ImageSpec, path: Path) -> None:
    """Add the pip section of a conda file, and a note for each package that only conda installs."""
    for entry in _read_conda_dependencies(path):
        if isinstance(entry, dict):
            pip = [str(requirement).strip() for requirement in entry.get("pip") or []]
            slim = _read_slim_requirements(spec, path, pip) if spec.slim else None
            for requirement in pip if slim is None else slim:
                _add_requirement(spec, path, requirement)
        elif match := _PYTHON.match(str(entry)):
            _select_python(spec, match, path)
        elif not re.match(r"(?:python|pip)\b", str(entry)):
            spec.add_note(
                path,
                f": {entry} is a conda package: list it under pip, or use --system-package",
            )


def _read_conda_dependencies(path: Path) -> list[Any]:
    dependencies = _read_yaml(path).get("dependencies")
    return dependencies if isinstance(dependencies, list) else []


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; {} if it is none."""
    try:
        yaml: Any = import_module("yaml")
    except ImportError:
        message = f"{path}: reading YAML files needs PyYAML: pip install pyyaml"
        raise CommandError(message) from None
    try:
        content = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise CommandError(f"{path}: not valid YAML: {error}") from None
    return content if isinstance(content, dict) else {}


def _add_requirement(spec: ImageSpec, path: Path, requirement: str) -> None:
    if match := _INCLUDE.match(requirement):
        included = path.parent / match["file"]
        spec.requirements_files.append(spec.get_context_path(included))
        _add_included_file(spec, included)
    elif requirement in spec.requirements:
        return
    elif requirement.startswith("-"):
        spec.requirements += shlex.split(requirement)
    else:
        spec.requirements.append(requirement)

"""What to install when a model cannot be loaded because a Python module is missing.

Only packages that the model's own requirements or MLflow's name are suggested: a module that is part of somebody's own
code may have the name of a stranger's package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlparse

from ...settings import ModelSettings

_RUNTIME = "mlserver_mlflow"
_FULL = "pip install 'mlserver-mlflow[full]'"
_REQUIREMENTS = "requirements.txt"
# Modules whose packages have other names.
_PACKAGES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# What `mlflow` brings beside `mlflow-skinny`.
_OF_FULL_MLFLOW = frozenset(
    "alembic docker flask graphene matplotlib mlflow numpy pandas pyarrow scikit-learn scipy skops sqlalchemy".split()
)


def explain_missing(error: BaseException, settings: ModelSettings) -> str | None:
    """What to do about the missing module behind an error, in one sentence; None if the error has another reason."""
    missing = next(
        (each for each in _chain(error) if isinstance(each, ModuleNotFoundError) and each.name),
        None,
    )
    if missing is None or missing.name is None:
        return None
    module = missing.name.partition(".")[0]
    package = _PACKAGES.get(module, module).lower().replace("_", "-")
    if module == _RUNTIME:
        return "The package 'mlserver-mlflow' is not installed: pip install mlserver-mlflow"
    is_mlflow = settings.implementation_.startswith(f"{_RUNTIME}.")
    isolated = ', or set "env_manager": "uv" in parameters.extra' if is_mlflow else ""
    path = _requirements(settings)
    if path is not None and _lists(path, package):
        return f"The package '{package}' is not installed: pip install -r {path}{isolated}"
    if is_mlflow and package in _OF_FULL_MLFLOW:
        also = (
            f" (the model's requirements do not name it; install them with pip install -r {path})"
            if path
            else ""
        )
        return f"The package '{package}' is not installed: {_FULL}{also}"
    if path is not None:
        return (
            f"The module '{module}' is not installed: pip install -r {path}{isolated}; if it is part of the model's own"
            " code, it must lie beside the model"
        )
    return (
        f"The module '{module}' is not installed: install the package that has it{isolated}; if it is part of the"
        " model's own code, it must lie beside the model"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def _requirements(settings: ModelSettings) -> str | None:
    """The requirements file of a model that lies on this machine."""
    uri = settings.parameters.uri if settings.parameters else None
    folders = []
    if uri and urlparse(uri).scheme in ("", "file"):
        path = unquote(urlparse(uri).path) if uri.startswith("file:") else uri
        folders.append(os.path.normpath(os.path.join(settings.folder or "", path)))
    folders += [settings.folder] if settings.folder else []
    paths = (os.path.join(folder, _REQUIREMENTS) for folder in folders)
    return next((path for path in paths if os.path.isfile(path)), None)


def _lists(path: str, package: str) -> bool:
    """Whether a requirements file names a package."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            names = (re.split(r"[\s\[<>=!~;@#]", line.strip(), maxsplit=1)[0] for line in file)
            return any(re.sub(r"[-_.]+", "-", name).lower() == package for name in names)
    except OSError:
        return False

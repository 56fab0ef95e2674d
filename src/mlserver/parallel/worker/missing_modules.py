"""Advice about what to install when a model cannot be loaded because a Python module is missing.

Only packages that the model's requirements or the runtime's extras name are suggested: a module of
the model's own code may have the name of an unrelated public package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlparse

from ...runtime_hooks import NO_HOOKS, find_hooks
from ...settings import ModelSettings

_REQUIREMENTS = "requirements.txt"
_RUNTIME_PREFIX = "mlserver_"  # of a runtime's import package; `mlserver-` of its distribution
# Module -> package, where the names differ.
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


def advise_missing_module(error: BaseException, settings: ModelSettings) -> str | None:
    """Return how to install the module whose absence caused the error, None for other causes."""
    module = _find_missing_module(error)
    if module is None:
        return None
    if module.startswith(_RUNTIME_PREFIX) and settings.implementation_.startswith(f"{module}."):
        package = module.replace("_", "-")
        return f"The package '{package}' is not installed: pip install {package}"
    package = _PACKAGES.get(module, module).lower().replace("_", "-")
    hooks = find_hooks(settings.implementation_)
    isolated = "" if hooks is NO_HOOKS else ', or set "env_manager": "uv" in parameters.extra'
    path = _find_requirements(settings)
    if path is not None and _lists_package(path, package):
        return f"The package '{package}' is not installed: pip install -r {path}{isolated}"
    command = hooks.install_command(package)
    if command is not None:
        advice = f"The package '{package}' is not installed: {command}"
        if path is None:
            return advice
        own = f"pip install -r {path}"
        return f"{advice} (the model's requirements do not list it; to install those: {own})"
    install = "install the package that contains it" if path is None else f"pip install -r {path}"
    return (
        f"The module '{module}' is not installed: {install}{isolated}; if it is part of the model's"
        " own code, it must be stored in the model's folder"
    )


def _find_missing_module(error: BaseException) -> str | None:
    """Return the top-level name of the first missing module in the chain of an error."""
    for cause in _iterate_causes(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name.partition(".")[0]
    return None


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _find_requirements(settings: ModelSettings) -> str | None:
    """Return the path of the requirements file of a model that is stored on this machine."""
    uri = settings.parameters.uri if settings.parameters else None
    folders = []
    if uri and urlparse(uri).scheme in ("", "file"):
        path = unquote(urlparse(uri).path) if uri.startswith("file:") else uri
        folders.append(os.path.normpath(os.path.join(settings.folder or "", path)))
    if settings.folder:
        folders.append(settings.folder)
    paths = (os.path.join(folder, _REQUIREMENTS) for folder in folders)
    return next(filter(os.path.isfile, paths), None)


def _lists_package(path: str, package: str) -> bool:
    """Whether a requirements file names a package."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            names = [re.split(r"[\s\[<>=!~;@#]", line.strip(), maxsplit=1)[0] for line in file]
    except OSError:
        return False
    return package in {re.sub(r"[-_.]+", "-", name).lower() for name in names}

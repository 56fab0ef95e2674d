"""Text of a Dockerfile, rendered from an image specification.

Every instruction with arguments is in Docker's JSON form, so that no shell parses a name, a path or
a requirement.
"""

from __future__ import annotations

import json
import re

from ..version import __version__
from .image_spec import HOME, MODELS, REQUIREMENTS, WHEELS, WHEELS_CONTEXT, ImageSpec
from .terminal import CommandError

_SYSTEM_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
# Python's official images have no bytecode of the standard library, and the image's user may not
# write it: every process would compile what it imports, 0.8 s of processor time in each worker. pip
# compiles what it installs.
_COMPILE = (
    "import compileall, re, sysconfig;"
    " compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2, rx=re.compile('-packages'))"
)
_PIP_SETTINGS = "PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore"


def render_dockerfile(
    spec: ImageSpec, mlserver: str | None = None, system_packages: tuple[str, ...] = ()
) -> str:
    """Return the Dockerfile.

    Args:
        mlserver: Requirement of the server for pip; None = the current version.
        system_packages: Debian packages that the models' libraries need.
    """
    # OpenShift runs an image as any user of group 0, which may read files that are readable by all.
    copy_folder = f"COPY --chown=1000:0 --chmod=755 {_to_json(['.', MODELS])}"
    copy_before_pip = [copy_folder] if spec.needs_whole_folder else []
    copy_after_pip = [] if spec.needs_whole_folder or not spec.has_models else [copy_folder]
    pip_arguments = _get_pip_arguments(spec, mlserver)
    lines = [
        "# Written by `mlserver dockerfile`; `mlserver build` builds it.",
        f"FROM python:{spec.python}-slim",
        f"ENV PYTHONUNBUFFERED=1 {_PIP_SETTINGS}",
        f"RUN {_to_json(['useradd', '--create-home', '--uid', '1000', '--gid', '0', 'mlserver'])}",
        f"RUN {_to_json(['chmod', '0775', HOME])}",
        f"ENV HOME={HOME}",
        *_install_system_packages(system_packages),
        *copy_before_pip,
        *_copy_requirements(spec),
        *_copy_wheels(spec),
        f"RUN {_to_json(['python', '-m', 'pip', 'install', *pip_arguments])}",
        f"RUN {_to_json(['python', '-c', _COMPILE])}",
        *copy_after_pip,
        "USER 1000",
        f"WORKDIR {HOME}",
        f"EXPOSE {' '.join(str(port) for port in spec.ports if port)}",
        *_make_healthcheck(spec),
        f"CMD {_to_json(['mlserver', 'start', MODELS])}",
    ]
    return "\n".join(lines) + "\n"


def _get_pip_arguments(spec: ImageSpec, mlserver: str | None) -> list[str]:
    arguments = ["--find-links", WHEELS] if spec.wheels else []
    arguments.append(mlserver or f"mlserver=={__version__}")
    if spec.mlflow:
        # The requirements of mounted models are unknown at build time: install all of MLflow, and
        # uv, which builds their environments.
        extras = "" if spec.has_models else "[full,uv]"
        arguments.append(f"mlserver-mlflow{extras}=={__version__}")
    folder = MODELS if spec.needs_whole_folder else REQUIREMENTS
    for name in dict.fromkeys(spec.requirements_files):
        arguments += ["--requirement", f"{folder}/{name}"]
    return arguments + spec.requirements


def _copy_requirements(spec: ImageSpec) -> list[str]:
    if spec.needs_whole_folder:
        return []
    names = dict.fromkeys([*spec.requirements_files, *spec.included_files])
    return [f"COPY {_to_json([name, f'{REQUIREMENTS}/{name}'])}" for name in names]


def _copy_wheels(spec: ImageSpec) -> list[str]:
    if not spec.wheels:
        return []
    if spec.wheels == WHEELS_CONTEXT:
        return [f"COPY --from={WHEELS_CONTEXT} {_to_json(['.', WHEELS])}"]
    return [f"COPY {_to_json([spec.wheels, WHEELS])}"]


def _make_healthcheck(spec: ImageSpec) -> list[str]:
    """Return the liveness check, or nothing if the server requires client certificates."""
    if spec.tls.get("client_ca"):
        return []
    scheme = "https" if spec.tls else "http"
    url = f"'{scheme}://127.0.0.1:{spec.ports[0]}/v2/health/live'"
    # The certificate is for the server's public name, not for 127.0.0.1.
    context = "context=ssl._create_unverified_context(), " if spec.tls else ""
    script = f"import ssl, urllib.request; urllib.request.urlopen({url}, {context}timeout=4)"
    timing = "--start-period=60s --interval=10s --timeout=5s"
    return [f"HEALTHCHECK {timing} CMD {_to_json(['python', '-c', script])}"]


def _install_system_packages(names: tuple[str, ...]) -> list[str]:
    if not names:
        return []
    for name in names:
        if not _SYSTEM_PACKAGE.fullmatch(name):
            raise CommandError(f"--system-package: expected a Debian package, received '{name}'")
    install = f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(names)}"
    return [f"RUN {_to_json(['sh', '-c', f'{install} && rm -rf /var/lib/apt/lists/*'])}"]


def _to_json(arguments: list[str]) -> str:
    return json.dumps(arguments, ensure_ascii=False)

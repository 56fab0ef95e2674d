"""Text of a Dockerfile, rendered from an image specification.

Every instruction with arguments is in Docker's JSON form, so that no shell parses a name, a path or
a requirement.
"""

from __future__ import annotations

import json
import re

from ..version import __version__
from .image_spec import HOME, MODELS, PACKAGES, REQUIREMENTS, WHEELS, WHEELS_CONTEXT, ImageSpec
from .terminal import CommandError

_SYSTEM_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
# Python's official images have no bytecode of the standard library, and the image's user may not
# write it: every process would compile what it imports, 0.8 s of processor time in each worker. pip
# compiles what it installs.
_COMPILE = (
    "import compileall, re, sysconfig;"
    " compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2, rx=re.compile('-packages'))"
)
_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
# OpenShift runs an image as any user of group 0, which may read files that are readable by all.
_COPY_FOLDER = f"COPY --chown=1000:0 --chmod=755 {json.dumps(['.', MODELS])}"
_PIP_SETTINGS = "PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore"


def render_dockerfile(
    spec: ImageSpec,
    mlserver: str | None = None,
    system_packages: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
) -> str:
    """Return the Dockerfile: a stage that installs packages, and the image without its leftovers.

    Args:
        mlserver: Requirement of the server for pip; None = the current version.
        system_packages: Debian packages that the models' libraries need.
        labels: Labels of the image, `KEY=VALUE`.
    """
    lines = [
        "# Written by `mlserver dockerfile`; `mlserver build` builds it.",
        *_render_build_stage(spec, mlserver, system_packages),
        "",
        *_render_image(spec, system_packages, labels),
    ]
    return "\n".join(lines) + "\n"


def _render_build_stage(
    spec: ImageSpec, mlserver: str | None, system_packages: tuple[str, ...]
) -> list[str]:
    """Return the stage that installs into PACKAGES. Wheels and requirements files stay in it."""
    install = [
        f"{PACKAGES}/bin/python",
        "-m",
        "pip",
        "install",
        *_get_pip_arguments(spec, mlserver),
    ]
    return [
        f"FROM {spec.base_image} AS build",
        f"ENV {_PIP_SETTINGS}",
        *_install_system_packages(system_packages),
        f"RUN {_to_json(['python', '-m', 'venv', PACKAGES])}",
        *([_COPY_FOLDER] if spec.needs_whole_folder else []),
        *_copy_requirements(spec),
        *_copy_wheels(spec),
        f"RUN {_to_json(install)}",
    ]


def _render_image(
    spec: ImageSpec, system_packages: tuple[str, ...], labels: tuple[str, ...]
) -> list[str]:
    return [
        f"FROM {spec.base_image}",
        *_make_labels(spec, labels),
        f"ENV PYTHONUNBUFFERED=1 HOME={HOME} PATH={PACKAGES}/bin:$PATH",
        f"RUN {_to_json(['useradd', '--create-home', '--uid', '1000', '--gid', '0', 'mlserver'])}",
        f"RUN {_to_json(['chmod', '0775', HOME])}",
        *_install_system_packages(system_packages),
        f"RUN {_to_json(['python', '-c', _COMPILE])}",
        f"COPY --from=build {_to_json([PACKAGES, PACKAGES])}",
        *([_COPY_FOLDER] if spec.has_models else []),
        "USER 1000",
        f"WORKDIR {HOME}",
        f"EXPOSE {' '.join(str(port) for port in spec.ports if port)}",
        *_make_healthcheck(spec),
        f"CMD {_to_json(['mlserver', 'start', MODELS])}",
    ]


def _make_labels(spec: ImageSpec, labels: tuple[str, ...]) -> list[str]:
    """Return the labels of the OCI image specification, then the caller's."""
    values = {
        "title": "mlserver",
        "description": f"Inference server for the models in {MODELS}",
        "version": __version__,
        "base.name": spec.base_image,
    }
    named = {f"org.opencontainers.image.{key}": value for key, value in values.items()}
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals or not _LABEL_KEY.fullmatch(key) or not value.isprintable():
            raise CommandError(f"--label: expected KEY=VALUE, received {label!r}")
        named[key] = value
    return [f"LABEL {key}={_quote(value)}" for key, value in named.items()]


def _quote(value: str) -> str:
    """Return a value in double quotes; Docker interprets backslash, quote and dollar in it."""
    escaped = re.sub(r'(["\\$])', r"\\\1", value)
    return f'"{escaped}"'


def _get_pip_arguments(spec: ImageSpec, mlserver: str | None) -> list[str]:
    arguments = ["--find-links", WHEELS] if spec.wheels else []
    arguments.append(mlserver or f"mlserver=={__version__}")
    if spec.mlflow:
        # The requirements of mounted models are unknown at build time: install all of MLflow, and
        # uv, which builds their environments.
        generic_extras = "[uv]" if spec.slim else "[full,uv]"
        extras = "" if spec.has_models else generic_extras
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

"""`mlserver dockerfile`: write the Dockerfile of an image that serves a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .image_spec import DOCKERIGNORE, RUNTIMES, WHEELS_CONTEXT, ImageSpec
from .image_text import render_dockerfile
from .terminal import CommandError


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that define the content of the image."""
    for option in (
        click.option(
            "--python",
            metavar="3.X",
            help="Python version of the image; default: the model's, else the current one.",
        ),
        click.option(
            "--mlserver",
            metavar="REQUIREMENT",
            help="Requirement that pip installs as the server; default: the current version.",
        ),
        click.option(
            "--runtime",
            type=click.Choice(RUNTIMES),
            help="Write a generic image of this runtime without models; mount them at /mnt/models.",
        ),
        click.option(
            "--wheels",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder with wheels that pip prefers to the package index.",
        ),
        click.option(
            "--slim",
            is_flag=True,
            help="Install mlflow-skinny in place of mlflow where the models allow it.",
        ),
        click.option(
            "--base",
            metavar="IMAGE",
            help="Base image with Python and venv; default: python:3.X-slim.",
        ),
        click.option(
            "--label",
            "labels",
            metavar="KEY=VALUE",
            multiple=True,
            help="Label of the image, beside those of the OCI specification; may be repeated.",
        ),
        click.option(
            "--system-package",
            "system_packages",
            multiple=True,
            help="Debian package to install, such as libgomp1; may be repeated.",
        ),
    ):
        command = option(command)
    return command


def make_dockerfile(
    folder: Path,
    *,
    python: str | None,
    runtime: str | None,
    slim: bool,
    base: str | None,
    wheels: Path | None,
    **options: Any,
) -> str:
    """Return the Dockerfile for a folder, and print notes for the user on standard error.

    Args:
        options: Further arguments of `render_dockerfile`.
    """
    if runtime is None:
        spec = ImageSpec.from_folder(folder, python, slim)
    else:
        spec = ImageSpec.from_runtime(folder, runtime, python, slim)
    if base is not None:
        spec.set_base(base)
    if wheels is not None:
        spec.add_wheels(wheels)
    text = render_dockerfile(spec, **options)
    for note in spec.notes:
        click.echo(f"note: {note}", err=True)
    return text


@click.command(
    name="dockerfile", short_help="Write the Dockerfile of an image that serves a folder."
)
@click.argument("folder", default=".", type=click.Path())
@click.option(
    "-i", "--include-dockerignore", is_flag=True, help="Also write Dockerfile.dockerignore."
)
@image_options
def command(folder: str, include_dockerignore: bool, **options: Any) -> None:
    """Write FOLDER/Dockerfile: a slim image with Python, the server, the models and their packages.

    The packages are those of each model's requirements.txt, else of the pip section of its
    conda.yaml or environment.yml. The server in the image runs as user 1000, or any other user.
    With --runtime, the image has no models.

    \b
    Examples:
      mlserver dockerfile models --include-dockerignore
      mlserver dockerfile . --python 3.12 --system-package libgomp1
    """
    target = Path(folder)
    dockerfile = target / "Dockerfile"
    files = {dockerfile: make_dockerfile(target, **options)}
    if include_dockerignore:
        files[target / "Dockerfile.dockerignore"] = DOCKERIGNORE
    for path, text in files.items():
        try:
            path.write_text(text)
        except OSError as error:
            raise CommandError(f"{path}: cannot be written: {error.strerror}") from None
        click.echo(f"wrote {path}")
    if WHEELS_CONTEXT in files[dockerfile]:
        context = f"{WHEELS_CONTEXT}={options['wheels']}"
        click.echo(f"build it with: docker build --build-context {context} {folder}")

"""`mlserver dockerfile`: write the Dockerfile of an image that serves a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .image_spec import IGNORED, RUNTIMES, WHEELS_CONTEXT, add_wheels, dockerfile, generic, look_at
from .terminal import CommandError


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what goes into the image."""
    for option in (
        click.option(
            "--python",
            metavar="3.X",
            help="Python of the image; by default the model's, else this one.",
        ),
        click.option(
            "--mlserver",
            metavar="REQUIREMENT",
            help="What pip installs as the server; by default this version.",
        ),
        click.option(
            "--runtime",
            type=click.Choice(RUNTIMES),
            help="Make a generic image of this runtime, without models: they are mounted at /mnt/models.",
        ),
        click.option(
            "--wheels",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder with wheels that pip takes before the package index.",
        ),
        click.option(
            "--system-package",
            "system_packages",
            multiple=True,
            help="Debian package, such as libgomp1.",
        ),
    ):
        command = option(command)
    return command


def text_for(
    folder: Path,
    python: str | None,
    mlserver: str | None,
    system_packages: tuple[str, ...],
    runtime: str | None = None,
    wheels: Path | None = None,
) -> str:
    """The Dockerfile for a folder; what the user should know is said on standard error."""
    image = look_at(folder, python) if runtime is None else generic(folder, runtime, python)
    if wheels is not None:
        add_wheels(image, wheels)
    text = dockerfile(image, mlserver, system_packages)
    for remark in image.remarks:
        click.echo(f"note: {remark}", err=True)
    return text


@click.command(
    name="dockerfile", short_help="Write the Dockerfile of an image that serves a folder."
)
@click.argument("folder", default=".", type=click.Path())
@click.option(
    "-i", "--include-dockerignore", is_flag=True, help="Write a Dockerfile.dockerignore as well."
)
@image_options
def command(folder: str, include_dockerignore: bool, **options: Any) -> None:
    """Write FOLDER/Dockerfile: a slim image with Python, this server, the models' requirements and the models.

    Requirements are those of each model's requirements.txt, else of the pip section of its conda.yaml or environment.yml.
    The server in the image runs as user 1000, or as any other. With --runtime, the image holds no models.
    """
    target = Path(folder)
    files = {target / "Dockerfile": text_for(target, **options)}
    if include_dockerignore:
        files[target / "Dockerfile.dockerignore"] = IGNORED
    for path, text in files.items():
        try:
            path.write_text(text)
        except OSError as error:
            raise CommandError(f"{path}: cannot be written: {error.strerror}") from None
        click.echo(f"wrote {path}")
    if WHEELS_CONTEXT in files[target / "Dockerfile"]:
        click.echo(
            f"build it with: docker build --build-context {WHEELS_CONTEXT}={options['wheels']} {folder}"
        )

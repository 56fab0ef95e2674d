"""`mlserver build`: build the image that serves a folder, with Docker."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from .dockerfile import image_options, make_dockerfile
from .image_spec import DOCKERIGNORE, WHEELS_CONTEXT
from .terminal import CommandError


@click.command(name="build", short_help="Build the image of `mlserver dockerfile` with Docker.")
@click.argument("folder", default=".", type=click.Path())
@click.option("-t", "--tag", help="Name of the image.")
@click.option("--no-cache", is_flag=True, help="Build without cached layers.")
@click.option(
    "--engine", default="docker", show_default=True, help="Program that builds, such as podman."
)
@image_options
def command(folder: str, tag: str | None, no_cache: bool, engine: str, **options: Any) -> None:
    """Build an image that serves FOLDER, with the Dockerfile of `mlserver dockerfile`.

    \b
    Examples:
      mlserver build . -t prices:1
      mlserver build --runtime mlflow -t mlflow-server:1 --engine podman
    """
    target = Path(folder)
    text = make_dockerfile(target, **options)
    with tempfile.TemporaryDirectory(prefix="mlserver-build-") as scratch:
        file = Path(scratch) / "Dockerfile"
        file.write_text(text)
        file.with_name("Dockerfile.dockerignore").write_text(DOCKERIGNORE)
        arguments = make_arguments(engine, file, target, tag, no_cache)
        if WHEELS_CONTEXT in text:
            arguments.insert(-1, f"--build-context={WHEELS_CONTEXT}={options['wheels'].resolve()}")
        run_engine(arguments)
    click.echo(f"built {tag or 'the image'}")


def make_arguments(
    engine: str, file: Path, folder: Path, tag: str | None, no_cache: bool
) -> list[str]:
    """Return the command line; `--option=value` keeps a value from being read as an option."""
    arguments = [engine, "build", f"--file={file}"]
    if tag:
        arguments.append(f"--tag={tag}")
    if no_cache:
        arguments.append("--no-cache")
    return [*arguments, str(folder.resolve())]


def run_engine(arguments: list[str]) -> None:
    """Run the engine. Raises `CommandError` if it is not installed, or fails."""
    engine = arguments[0]
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    try:
        code = subprocess.run(arguments, env=environment, check=False).returncode
    except OSError as error:
        raise CommandError(
            f"{engine} cannot be run: {error.strerror};"
            " `mlserver dockerfile` writes the Dockerfile without it"
        ) from None
    if code:
        raise CommandError(f"{engine} build failed with exit code {code}")

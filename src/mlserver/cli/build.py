"""`mlserver build`: let Docker build the image that serves a folder."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from .dockerfile import image_options, text_for
from .image_spec import IGNORED, WHEELS_CONTEXT
from .terminal import CommandError


@click.command(name="build", short_help="Build that image with Docker.")
@click.argument("folder", default=".", type=click.Path())
@click.option("-t", "--tag", help="Name of the image.")
@click.option("--no-cache", is_flag=True, help="Build every layer anew.")
@click.option(
    "--engine", default="docker", show_default=True, help="Program that builds, such as podman."
)
@image_options
def command(folder: str, tag: str | None, no_cache: bool, engine: str, **options: Any) -> None:
    """Build an image that serves FOLDER, with the Dockerfile that `mlserver dockerfile` would write."""
    target = Path(folder)
    text = text_for(target, **options)
    with tempfile.TemporaryDirectory(prefix="mlserver-build-") as scratch:
        file = Path(scratch) / "Dockerfile"
        file.write_text(text)
        file.with_name("Dockerfile.dockerignore").write_text(IGNORED)
        words = arguments(engine, file, target, tag, no_cache)
        if WHEELS_CONTEXT in text:
            words.insert(-1, f"--build-context={WHEELS_CONTEXT}={options['wheels'].resolve()}")
        run(words)
    click.echo(f"built {tag or 'the image'}")


def arguments(engine: str, file: Path, folder: Path, tag: str | None, no_cache: bool) -> list[str]:
    """The command line; values are bound to their options, so that none can pose as an option."""
    tags = [f"--tag={tag}"] if tag else []
    return [
        engine,
        "build",
        f"--file={file}",
        *tags,
        *(["--no-cache"] if no_cache else []),
        str(folder.resolve()),
    ]


def run(words: list[str]) -> None:
    """Run the engine. Raises `CommandError` if there is none, or if it fails."""
    try:
        code = subprocess.run(
            words, env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False
        ).returncode
    except OSError as error:
        raise CommandError(
            f"{words[0]} cannot be run: {error.strerror}; `mlserver dockerfile` writes the Dockerfile alone"
        ) from None
    if code:
        raise CommandError(f"{words[0]} build failed with exit code {code}")

"""`mlserver init`: write a small working model with its settings, sample request and test."""

from __future__ import annotations

import os
import re
import shlex
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import click

from .terminal import CommandError

_SUFFIX = ".txt"  # keeps formatters and type checkers from reading templates as Python
_NAME_PLACEHOLDER = "{{name}}"


@click.command(name="init", short_help="Write a small example model with its test.")
@click.argument("folder", default="my-model", type=click.Path(file_okay=False))
@click.option(
    "-t",
    "--template",
    help="Folder or URL of a cookiecutter template, instead of the built-in model.",
)
@click.option(
    "--no-input", is_flag=True, help="Use the template's defaults instead of asking questions."
)
def command(folder: str, template: str | None, no_input: bool) -> None:
    """Write an example model into FOLDER (default: my-model), ready to test, serve and change.

    With --template, cookiecutter writes the template's folder into FOLDER (default: the current
    folder).

    \b
    Examples:
      mlserver init prices
      mlserver init --template https://github.com/me/my-template --no-input
    """
    if template:
        source = click.get_current_context().get_parameter_source("folder")
        is_default = source is click.core.ParameterSource.DEFAULT
        write_cookiecutter(template, "." if is_default else folder, no_input)
        return
    target = Path(folder)
    for path in write_model(target):
        click.echo(f"wrote {path}")
    click.echo(f"Next: cd {shlex.quote(folder)} && pytest && mlserver check && mlserver start")


def write_model(target: Path) -> list[Path]:
    """Write the built-in model, and return its files.

    Raises:
        CommandError: one of the files exists (then none is written), or cannot be written.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target.resolve().name).strip("-") or "my-model"
    templates = read_templates()
    files = {
        target / file: text.replace(_NAME_PLACEHOLDER, name) for file, text in templates.items()
    }
    existing = [path for path in files if path.exists()]
    if existing:
        raise CommandError(f"{existing[0]} already exists; no file was written")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text)
    except OSError as error:
        raise CommandError(f"{error.filename}: cannot be written: {error.strerror}") from None
    return list(files)


def read_templates() -> dict[str, str]:
    """Return the files of the built-in model: name -> text with `{{name}}` for its name."""
    folder = resources.files(__package__) / "templates"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(_SUFFIX))
    return {name.removesuffix(_SUFFIX): (folder / name).read_text() for name in names}


def write_cookiecutter(template: str, target: str, no_input: bool) -> None:
    """Write a cookiecutter template.

    Raises:
        CommandError: cookiecutter is not installed, or fails.
    """
    try:
        cookiecutter: Any = import_module("cookiecutter.main")
        errors: Any = import_module("cookiecutter.exceptions")
    except ImportError:
        raise CommandError("--template needs cookiecutter: pip install cookiecutter") from None
    try:
        os.makedirs(target, exist_ok=True)
        folder = cookiecutter.cookiecutter(template, output_dir=target, no_input=no_input)
    except (errors.CookiecutterException, OSError) as error:
        raise CommandError(f"template {template}: {error}") from None
    click.echo(f"wrote {folder}")

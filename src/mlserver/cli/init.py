"""`mlserver init`: a small model that works, with everything around it that a model needs."""

from __future__ import annotations

import os
import re
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import click

from .terminal import CommandError

_SUFFIX = ".txt"  # templates are text to the tools that look for Python files
_NAME = "{{name}}"


@click.command(name="init", short_help="Write a small working model with its test.")
@click.argument("folder", default="my-model", type=click.Path(file_okay=False))
@click.option(
    "-t",
    "--template",
    help="A folder or URL of a cookiecutter template, in place of the built-in model.",
)
@click.option(
    "--no-input", is_flag=True, help="Take the template's default for everything it would ask."
)
def command(folder: str, template: str | None, no_input: bool) -> None:
    """Write a model into FOLDER (default: my-model) that can be tested, served and changed.

    With --template, cookiecutter writes its own folder into FOLDER (default: here).
    """
    if template:
        given = click.get_current_context().get_parameter_source("folder")
        in_here = given is click.core.ParameterSource.DEFAULT
        from_cookiecutter(template, "." if in_here else folder, no_input)
        return
    target = Path(folder)
    for path in write_model(target):
        click.echo(f"wrote {path}")
    click.echo(f"Next: cd {folder} && pytest && mlserver check . && mlserver start .")


def write_model(target: Path) -> list[Path]:
    """Write the built-in model. Returns the files.

    Raises:
        Failed: One of the files is there already; then none is written.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", target.resolve().name).strip("-") or "my-model"
    files = {target / file: text.replace(_NAME, name) for file, text in templates().items()}
    there = [str(path) for path in files if path.exists()]
    if there:
        raise CommandError(f"{there[0]} is there already; nothing was written")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text)
    except OSError as error:
        raise CommandError(f"{error.filename}: cannot be written: {error.strerror}") from None
    return list(files)


def templates() -> dict[str, str]:
    """The files of the built-in model: name -> text, with a place for the model's name."""
    folder = resources.files(__package__) / "templates"
    found = sorted(
        (each for each in folder.iterdir() if each.name.endswith(_SUFFIX)),
        key=lambda each: each.name,
    )
    return {each.name.removesuffix(_SUFFIX): each.read_text() for each in found}


def from_cookiecutter(template: str, target: str, no_input: bool) -> None:
    """Let cookiecutter write a template of the user's choice.

    Raises:
        Failed: cookiecutter is not installed, or refuses.
    """
    try:
        cookiecutter: Any = import_module("cookiecutter.main")
        errors: Any = import_module("cookiecutter.exceptions")
    except ImportError:
        raise CommandError(
            "templates of your own need cookiecutter: pip install cookiecutter"
        ) from None
    try:
        os.makedirs(target, exist_ok=True)
        made = cookiecutter.cookiecutter(template, output_dir=target, no_input=no_input)
    except (errors.CookiecutterException, OSError) as error:
        raise CommandError(f"template {template}: {error}") from None
    click.echo(f"wrote {made}")

"""`mlserver settings`: the reference of all settings, effective values, and JSON schemas."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Iterable

import click

from ..repository import ModelRepositoryFactory
from ..settings import BaseSettings, Settings
from ..settings.effective import EffectiveSetting, list_effective_settings
from ..settings.json_schema import make_schema
from ..settings.reference import FILES, SettingReference, list_settings, render_markdown
from ..startup_report import CLOSING_SECONDS, get_shutdown_seconds
from .serve import DEFAULT_SETTINGS_FILENAME, prepare_settings
from .text_table import format_table, get_width

_PRECEDENCE = (
    "Precedence: options of `mlserver start`, the file, environment variables, `.env` in the"
    " current folder, defaults."
)


@click.command(name="settings", short_help="Print all settings, and the values in effect.")
@click.option(
    "--show",
    "folder",
    metavar="FOLDER",
    type=click.Path(),
    help="Print the values for FOLDER and its models, and where each is from.",
)
@click.option("--markdown", is_flag=True, help="Print the reference as Markdown.")
@click.option(
    "--json-schema",
    "schema",
    type=click.Choice(list(FILES)),
    is_flag=False,
    flag_value=DEFAULT_SETTINGS_FILENAME,
    help=f"Print the JSON schema of a settings file.  [default file: {DEFAULT_SETTINGS_FILENAME}]",
)
def command(folder: str | None, markdown: bool, schema: str | None) -> None:
    """Print every setting of settings.json and model-settings.json: type, default, unit, variable.

    With --show, the values in effect for FOLDER: each with its default, and its origin (file,
    variable, default). Secrets are masked. Environment variables that have no effect, because a
    file sets the same setting, are named.

    \b
    Examples:
      mlserver settings --show .
      mlserver settings --json-schema model-settings.json > model-settings.schema.json
    """
    selected = [bool(folder), markdown, bool(schema)]
    if sum(selected) > 1:
        raise click.UsageError("Use one of --show, --markdown and --json-schema.")
    if schema:
        click.echo(json.dumps(make_schema(FILES[schema]), indent=2))
    elif markdown:
        click.echo(make_markdown(), nl=False)
    elif folder:
        show(folder)
    else:
        click.echo(_format_reference(get_width()))


def make_markdown() -> str:
    """Return the reference of all settings as Markdown, a section for each file."""
    sections = [
        f"## {file}\n\n{inspect.cleandoc(cls.__doc__ or '')}\n\n"
        + render_markdown(list_settings(cls))
        for file, cls in FILES.items()
    ]
    return "\n".join([_PRECEDENCE + "\n", *sections])


def _format_reference(width: int | None) -> str:
    parts = [_PRECEDENCE]
    for file, cls in FILES.items():
        blocks = [_format_setting(item, width) for item in list_settings(cls)]
        parts.append("\n".join([f"{file}", *blocks]))
    return "\n\n".join(parts)


def _format_setting(item: SettingReference, width: int | None) -> str:
    default = f"default {item.default}" if item.default else "required"
    facts = [item.type, " ".join([default, item.unit]).strip(), item.variable]
    head = f"  {item.name}: {', '.join(fact for fact in facts if fact)}"
    return "\n".join([head, format_table([("   ", item.description)], width)])


def show(folder: str) -> None:
    """Print the effective settings of the server and of the folder's models."""
    settings = prepare_settings(folder, may_be_empty=True)
    repository = ModelRepositoryFactory.resolve_model_repository(settings)
    models = asyncio.run(repository.list())
    width = get_width()
    click.echo(_format_effective("Server", settings, width))
    click.echo(f"\n{_describe_shutdown(settings)}")
    for model in models:
        version = f" version {model.version}" if model.version else ""
        click.echo(f"\n{_format_effective(f'Model {model.name}{version}', model, width)}")
    for name, reason in repository.problems.items():
        click.echo(f"\nModel {name}: not valid: {reason}")


def _describe_shutdown(settings: Settings) -> str:
    return (
        f"A shutdown takes up to {get_shutdown_seconds(settings):g} s: shutdown_delay,"
        f" drain_timeout, parallel_workers_timeout, and {CLOSING_SECONDS} s to close. An"
        " orchestrator must wait as long before SIGKILL (terminationGracePeriodSeconds)."
    )


def _format_effective(title: str, settings: BaseSettings, width: int | None) -> str:
    items = list_effective_settings(settings)
    rows = [("setting", "value", "from"), *(_make_row(item) for item in items)]
    lines = [title, format_table(rows, width, max_column=38), *_describe_unused(items)]
    return "\n".join(lines)


def _make_row(item: EffectiveSetting) -> tuple[str, str, str]:
    reference, value = item.reference, item.value
    if isinstance(value, str) and value.startswith(os.getcwd() + os.sep):
        value = os.path.join(".", os.path.relpath(value))
    text = json.dumps(value, ensure_ascii=False)
    if reference.unit and value is not None:
        text += f" {reference.unit}"
    if item.is_default or not reference.default:
        return reference.name, text, item.origin
    return reference.name, text, f"{item.origin} (default {reference.default})"


def _describe_unused(items: Iterable[EffectiveSetting]) -> list[str]:
    return [
        f"{name} is not used: {item.origin} sets '{item.reference.name}'"
        for item in items
        for name in item.unused_variables
    ]

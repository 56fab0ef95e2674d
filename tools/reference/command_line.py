"""Options of every command, from click."""

from __future__ import annotations

import inspect
import re

import click

from mlserver.cli import main

from .markdown import code, start_page, table


def page() -> str:
    lines = start_page(
        "Command line: options",
        "the commands of click",
        "What each command is for, with examples: [command line](cli.md).",
    )
    context = click.Context(main, info_name="mlserver")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        if command is not None:
            lines += _describe(command, click.Context(command, context, info_name=name))
    return "\n".join(lines).rstrip() + "\n"


def _describe(command: click.Command, context: click.Context) -> list[str]:
    usage = command.get_usage(context).removeprefix("Usage: ")
    lines = [f"## {context.info_name}", "", "```text", " ".join(usage.split()), "```", ""]
    for paragraph in inspect.cleandoc(command.help or "").replace("\f", "").split("\n\n"):
        lines += _paragraph(paragraph)
    options = [param for param in command.params if isinstance(param, click.Option)]
    shown = [option for option in options if not option.hidden]
    if shown:
        headings = ("option", "value", "default", "meaning")
        lines += table(headings, [_option(option, context) for option in shown])
    return lines


def _paragraph(text: str) -> list[str]:
    """Return a paragraph of a help text; click's mark \\b keeps its lines as they are."""
    if text.startswith("\b"):
        return ["```text", *text.removeprefix("\b").strip("\n").splitlines(), "```", ""]
    escaped = re.sub(r"([<>*_])", r"\\\1", " ".join(text.split()))
    return [escaped, ""]


def _option(option: click.Option, context: click.Context) -> tuple[str, str, str, str]:
    names = [*option.opts, *option.secondary_opts]
    value = "" if option.is_flag else option.make_metavar(context).lower().removesuffix(" range")
    info = option.get_help_extra(context)
    default = info.get("default", "")
    variables = ", ".join(code(name) for name in info.get("envvars", ()))
    text = re.sub(r"([<>*_])", r"\\\1", option.help or "")
    if variables:
        text += f" Variable: {variables}."
    if "required" in info:
        default = "required"
    return ", ".join(code(name) for name in names), code(value), str(default), text

"""The `mlserver` command. Each subcommand is imported when it is called, so that `--help` is quick.

Errors are one line on standard error. Exit codes: 0 done, 1 failed, 2 called or configured wrongly, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from ..errors import MLServerError
from ..version import __version__

# Name -> module of this package, and what `mlserver --help` says of it.
_COMMANDS = {
    "start": ("serve", "Serve the models of a folder, or one MLflow model from anywhere."),
    "check": ("check", "Try every model of a folder without serving it."),
    "infer": ("infer", "Score a file of requests or rows against a running server."),
    "init": ("init", "Write a small working model with its test."),
    "dockerfile": ("dockerfile", "Write the Dockerfile of an image that serves a folder."),
    "build": ("build", "Build that image with Docker."),
    "key": ("key", "Make an API key."),
    "trust": ("trust", "Print the digest of a model's files."),
    "completion": ("completion", "Print what makes your shell complete these commands."),
    "version": ("version", "Print the versions that matter in a bug report."),
}


class _LateGroup(click.Group):
    """Finds subcommands by name, imports them late, and ends with one line if something is wrong."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        from importlib import import_module

        module, _ = _COMMANDS[cmd_name]
        command: click.Command = import_module(f".{module}", __name__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            os.getcwd()
        except OSError:
            end("the current folder does not exist any more: change to another one", 2)
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "mlserver"
            end(f"{error.format_message()} See '{path} --help'.", 2, path)
        except click.ClickException as error:
            end(error.format_message(), error.exit_code)
        except click.Abort:
            end("interrupted", 130)
        except MLServerError as error:
            from ..settings import SettingsError

            end(error.message, 2 if isinstance(error, SettingsError) else 1)
        sys.exit(code if isinstance(code, int) else 0)


def end(message: str, code: int, name: str = "mlserver") -> NoReturn:
    """One line on standard error, and the process's exit code."""
    sys.stdout.flush()
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    raise SystemExit(code)


@click.group(cls=_LateGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlserver")
def main() -> None:
    """Serve machine-learning models over the Open Inference Protocol and MLflow's scoring protocol."""


__all__ = ["main"]

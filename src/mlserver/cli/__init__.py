"""Command line `mlserver`. Subcommands are imported when called, which keeps `--help` fast.

Errors are one line on standard error. Exit codes: 0 success, 1 failure, 2 wrong usage or settings,
3 drift (`drift --fail-above`), 130 interrupted.
"""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from ..errors import MLServerError
from ..version import __version__

# Name of the subcommand -> module of this package, and its line in `mlserver --help`.
_COMMANDS = {
    "start": ("serve", "Serve the models of a folder, or one MLflow model by its URI."),
    "demo": ("demo", "Train a small model with MLflow, and serve it."),
    "check": ("check", "Load every model of a folder and run inference, without a server."),
    "infer": ("infer", "Score a file of requests or rows with a running server."),
    "drift": ("drift", "Compare a payload log with a reference table."),
    "init": ("init", "Write a small example model with its test."),
    "settings": ("settings", "Print all settings, and the values in effect."),
    "dockerfile": ("dockerfile", "Write the Dockerfile of an image that serves a folder."),
    "build": ("build", "Build the image of `mlserver dockerfile` with Docker."),
    "key": ("key", "Create an API key."),
    "trust": ("trust", "Print the digest of a model's files."),
    "completion": ("completion", "Print the shell completion script."),
    "version": ("version", "Print the versions for a bug report."),
}


class _LazyGroup(click.Group):
    """Group that imports subcommands on use and reports every error in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command: click.Command = import_module(f".{module}", __name__).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            similar = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f" Did you mean '{similar[0]}'?" if similar else ""
            ctx.fail(f"No such command '{name}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            os.getcwd()
        except OSError:
            exit_with_error("the current folder was deleted: change to another folder", 2)
        from .terminal import interrupt_on_sigterm

        try:
            # Process 1 of a container has no default action for a signal: without a handler, a
            # SIGTERM during the start has no effect, and the container is killed after its grace
            # period. The server replaces the handler (`mlserver.server`).
            with interrupt_on_sigterm():
                code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "mlserver"
            exit_with_error(f"{error.format_message()} See '{path} --help'.", 2, path)
        except click.ClickException as error:
            exit_with_error(error.format_message(), error.exit_code)
        except click.Abort:
            exit_with_error("interrupted", 130)
        except MLServerError as error:
            from ..settings import SettingsError

            exit_with_error(error.message, 2 if isinstance(error, SettingsError) else 1)
        sys.exit(code if isinstance(code, int) else 0)


def exit_with_error(message: str, code: int, name: str = "mlserver") -> NoReturn:
    """Print one line on standard error, and exit with a code."""
    sys.stdout.flush()
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    raise SystemExit(code)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlserver")
def main() -> None:
    """Serve machine-learning models over the Open Inference Protocol and MLflow's protocol."""


__all__ = ["main"]

"""The `mlserver` command. Each subcommand is imported when it is called, so that `--help` is quick."""

from __future__ import annotations

import click

from ..version import __version__

_COMMANDS = {
    "start": ("serve", "Serve the models of a folder."),
}


class _LateGroup(click.Group):
    """Finds subcommands by name and imports them late."""

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


@click.group(cls=_LateGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlserver")
def main() -> None:
    """Serve machine-learning models over the Open Inference Protocol and MLflow's scoring protocol."""


__all__ = ["main"]

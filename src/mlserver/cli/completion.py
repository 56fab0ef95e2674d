"""`mlserver completion`: shell scripts that complete commands, options and file names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_MLSERVER_COMPLETE"


@click.command(name="completion", short_help="Print the shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: put   eval "$(mlserver completion bash)"    into ~/.bashrc
    zsh:  put   eval "$(mlserver completion zsh)"     into ~/.zshrc
    fish: run   mlserver completion fish > ~/.config/fish/completions/mlserver.fish

    \b
    Examples:
      eval "$(mlserver completion bash)"
      mlserver completion fish > ~/.config/fish/completions/mlserver.fish
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None
    root = click.get_current_context().find_root().command
    click.echo(completion_class(root, {}, "mlserver", _VARIABLE).source())

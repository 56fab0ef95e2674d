"""What the commands share in talking to the terminal."""

from __future__ import annotations

import click


class CommandError(click.ClickException):
    """The command could not do what it was asked: one line, exit code 1."""

    exit_code = 1

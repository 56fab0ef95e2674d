"""Error class shared by the commands."""

from __future__ import annotations

import click


class CommandError(click.ClickException):
    """The command failed: its message is printed in one line, exit code 1."""

    exit_code = 1

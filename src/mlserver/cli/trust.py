"""`mlserver trust`: print the digest of a model's files, for the setting `trusted_models`."""

from __future__ import annotations

import click


@click.command(name="trust", short_help="Print the digest of a model's files.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
def command(folder: str) -> None:
    """Print the digest of all files of FOLDER, for the setting `trusted_models`.

    A change of any file changes the digest.

    \b
    Examples:
      mlserver trust models/wine
      mlserver trust .  # the current folder
    """
    from ..security.code_policy import compute_digest

    click.echo(compute_digest(folder))

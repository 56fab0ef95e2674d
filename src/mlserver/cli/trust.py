"""`mlserver trust`: the digest that names the files of a model, for the setting `trusted_models`."""

from __future__ import annotations

import click


@click.command(name="trust", short_help="Print the digest of a model's files.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
def command(folder: str) -> None:
    """Print the digest of all files of FOLDER, as the setting `trusted_models` takes it. Any change gives another one."""
    from ..security.code_policy import compute_digest

    click.echo(compute_digest(folder))

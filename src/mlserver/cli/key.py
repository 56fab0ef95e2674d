"""`mlserver key`: a new API key, and the line of the server's file that lets it in."""

from __future__ import annotations

import secrets

import click


@click.command(name="key", short_help="Make an API key.")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("infer",),
    type=click.Choice(["infer", "admin", "metrics"]),
    help="What the key is for; may be given several times.",
)
def command(name: str, scopes: tuple[str, ...]) -> None:
    """Print a new API key for NAME on standard error, and on standard output the line to add to the file of `auth.keys`.

    The file holds no key, only its digest: whoever reads it cannot use it.

    mlserver key team-a --scope infer >> keys.txt
    """
    from ..security.credentials import hash_key

    if not name.isprintable() or any(character.isspace() or character == "#" for character in name):
        raise click.UsageError("NAME: expected a word without blanks and '#'")
    key = secrets.token_urlsafe(32)
    click.echo(key, err=True)
    click.echo(f"{name} {','.join(scopes)} {hash_key(key)}")

"""`mlserver key`: create an API key, and the line of the `auth.keys` file that accepts it."""

from __future__ import annotations

import secrets

import click


@click.command(name="key", short_help="Create an API key.")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("infer",),
    type=click.Choice(["infer", "admin", "metrics"]),
    help="Permission of the key; may be repeated.",
)
def command(name: str, scopes: tuple[str, ...]) -> None:
    """Print a new API key for NAME on standard error, and on standard output the line to add to
    the file of the setting `auth.keys`.

    The file contains the SHA-256 digest of the key, from which the key cannot be computed.

    \b
    Examples:
      mlserver key team-a --scope infer >> keys.txt
      mlserver key operator --scope admin --scope metrics >> keys.txt
    """
    from ..security.credentials import hash_key

    if not name.isprintable() or any(character.isspace() or character == "#" for character in name):
        raise click.UsageError(f"NAME: expected a word without spaces and '#', received {name!r}")
    key = secrets.token_urlsafe(32)
    click.echo(key, err=True)
    click.echo(f"{name} {','.join(scopes)} {hash_key(key)}")

"""`mlserver version`: what a bug report should say."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from ..version import __version__

_COMPANIONS = ("mlserver-mlflow", "mlflow", "pydantic", "numpy", "pandas", "grpcio", "uvloop")


@click.command(name="version", short_help="Print the versions that matter in a bug report.")
def command() -> None:
    """Print the version of mlserver, of its companions that are installed, and of Python."""
    click.echo(f"mlserver {__version__}")
    for name in _COMPANIONS:
        try:
            click.echo(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    click.echo(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}"
    )

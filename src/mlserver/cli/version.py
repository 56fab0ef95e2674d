"""`mlserver version`: print the versions for a bug report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from ..version import __version__

_PACKAGES = ("mlserver-mlflow", "mlflow", "pydantic", "numpy", "pandas", "grpcio", "uvloop")


@click.command(name="version", short_help="Print the versions for a bug report.")
def command() -> None:
    """Print the versions of mlserver, installed related packages, Python and the system.

    \b
    Examples:
      mlserver version
      mlserver --version  # of mlserver alone
    """
    click.echo(f"mlserver {__version__}")
    for name in _PACKAGES:
        try:
            click.echo(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    implementation = platform.python_implementation()
    click.echo(f"{implementation} {platform.python_version()}, {platform.platform()}")

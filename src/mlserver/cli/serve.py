"""`mlserver start`: settings from the folder, then the server until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any

import click

from ..errors import MLServerError
from ..settings import Settings, SettingsError

DEFAULT_SETTINGS_FILENAME = "settings.json"


@click.command(name="start")
@click.argument("folder", nargs=1)
def command(folder: str) -> None:
    """Serve the models of FOLDER.

    FOLDER holds a settings.json, model-settings.json files at any depth, or is itself an MLflow model.
    """
    try:
        settings, models = prepare(folder)
        from ..server import MLServer

        async def serve() -> None:
            await MLServer(settings).start(models)

        run(serve())
    except SettingsError as problem:
        fail(problem.message, 2)
    except MLServerError as problem:
        fail(problem.message, 1)


def prepare(folder: str) -> tuple[Settings, list[Any]]:
    """The server's settings for a folder, with the folder first among the places that models import from.

    Raises:
        SettingsError: no such folder, or a settings file that is wrong.
    """
    if not os.path.isdir(folder):
        what = "is a file" if os.path.exists(folder) else "does not exist"
        raise SettingsError(f"{folder}: expected a folder with models, but it {what}")
    settings = load_settings(folder)
    for path in (os.path.abspath(folder), os.getcwd()):
        if path not in sys.path:
            sys.path.insert(0, path)
    return settings, []


def load_settings(folder: str) -> Settings:
    """`settings.json` of the folder over the environment; the repository is the folder itself unless the file says."""
    path = os.path.join(folder, DEFAULT_SETTINGS_FILENAME)
    settings = Settings.parse_file(path) if os.path.isfile(path) else Settings.load()
    settings.model_repository_root = folder
    return settings


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where there is one, else on asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def fail(message: str, code: int) -> None:
    """One line on standard error, and the process's exit code."""
    click.echo(f"mlserver: {' '.join(message.split())}", err=True)
    sys.stdout.flush()
    raise SystemExit(code)

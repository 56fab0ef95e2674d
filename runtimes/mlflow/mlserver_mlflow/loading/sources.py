"""Where an MLflow model comes from: folders, and every address that MLflow can fetch (`models:/`, `runs:/`, stores).

An address that may point elsewhere tomorrow (`models:/wine@champion`, or `models:/wine`, the newest version) is turned into
one that says the version; what lies there is fetched into a cache (`downloads`).
"""

from __future__ import annotations

import asyncio
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlserver.errors import InvalidModelURI, MLServerError
from mlserver.locations import is_address, is_below, resolve_links
from mlserver.logging import get_logger
from mlserver.utils import get_model_uri

from . import artifact_cache

if TYPE_CHECKING:
    from mlserver.settings import ModelSettings

logger = get_logger()

MLMODEL = "MLmodel"
LATEST = "latest"
_LOGGED = re.compile(r"models:/m-[0-9a-f]{32}/*")
_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))?/*")
# What the registry says for good; anything else may be a registry that cannot be reached just now.
_DEFINITE = frozenset(
    "RESOURCE_DOES_NOT_EXIST INVALID_PARAMETER_VALUE INVALID_STATE PERMISSION_DENIED UNAUTHENTICATED NOT_FOUND".split()
)
# MLflow itself would try for two minutes, with every start and every look at an alias.
_RETRIES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


class Unreachable(MLServerError):
    """The registry or the store did not answer."""

    def __init__(self, address: str, error: Exception) -> None:
        super().__init__(f"'{address}' cannot be reached: {type(error).__name__}: {error}", 503)


@dataclass(frozen=True)
class Source:
    """A model's folder on this machine.

    Attributes:
        address: Where it was fetched from, with the version said outright; None = it lies here.
        version: Its version in the registry, if it came from one.
    """

    folder: str
    address: str | None = None
    version: str | None = None


async def resolve(settings: ModelSettings) -> Source:
    """Find the model, and fetch it if it is not on this machine.

    Raises:
        InvalidModelURI: no `uri`, or nothing there.
        MLServerError: the folder is not an MLflow model, or the address cannot be fetched.
    """
    uri = await get_model_uri(settings)
    return await asyncio.to_thread(_resolve, settings, uri)


def _resolve(settings: ModelSettings, uri: str) -> Source:
    if not is_address(uri):
        return Source(_folder(settings, uri))
    extra = settings.parameters.extra if settings.parameters else {}
    return fetch(uri, artifact_cache.Cache.at(extra.get("cache_dir")), settings.name)


def _folder(settings: ModelSettings, uri: str) -> str:
    if os.path.isfile(uri) and os.path.basename(uri) == MLMODEL:
        uri = os.path.dirname(uri)
    if os.path.isfile(uri):
        raise InvalidModelURI(
            settings.name, f"{uri} is a file; expected the folder that holds '{MLMODEL}'"
        )
    if not os.path.isfile(os.path.join(uri, MLMODEL)):
        raise MLServerError(
            f"Model {settings.name}: the folder {uri} is not an MLflow model, it has no file '{MLMODEL}'",
            422,
        )
    folder = resolve_links(uri)
    if not is_below(os.path.join(folder, MLMODEL), folder):
        text = f"'{MLMODEL}' in {uri} is a link out of its folder, which MLflow does not follow: copy the file there"
        raise MLServerError(f"Model {settings.name}: {text}", 422)
    return folder


def fetch(uri: str, cache: artifact_cache.Cache, name: str) -> Source:
    """The model of an address, from the cache where it is there already. Blocks.

    If the registry or the store does not answer, what the address meant the last time is taken from the cache.
    """
    try:
        address, version = fixed(uri)
        with _asking(address):
            key = cache.fetch(address)
    except Unreachable as error:
        known = cache.recall(_place(uri))
        if known is None:
            raise MLServerError(f"Model {name} cannot be loaded: {error.message}", 503) from None
        logger.warning("Model '%s': %s; it is loaded as it was fetched before", name, error.message)
        return Source(known["folder"], known["address"], known["version"])
    except MLServerError as error:
        text = f"Model {name} cannot be loaded from '{uri}': {error.message}"
        raise MLServerError(text, error.status_code) from None
    cache.remember(_place(uri), key, address, version)
    cache.remember(_place(address), key, address, version)
    return Source(cache.folder(key), address, version)


def fixed(uri: str) -> tuple[str, str | None]:
    """The address that names the version outright, and that version; other addresses stay as they are.

    Raises:
        MLServerError: the registry has no such model, version or alias.
        Unreachable: it does not answer.
    """
    found = None if _LOGGED.fullmatch(uri) else _REGISTERED.fullmatch(uri)
    if found is None:
        return uri, None
    name, version = found["name"], found["version"]
    if version is None or not version.isdigit():
        with _asking(uri):
            version = _version(name, found["alias"], version)
    return f"models:/{name}/{version}", version


def _version(name: str, alias: str | None, stage: str | None) -> str:
    from mlflow import MlflowClient

    client = MlflowClient()
    if alias is not None:
        return str(client.get_model_version_by_alias(name, alias).version)
    if stage is not None and stage.lower() != LATEST:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are on their way out of MLflow
            versions = client.get_latest_versions(name, [stage])
    else:
        versions = _all_versions(client, name)
    if not versions:
        raise MLServerError(
            f"The registry has no version of model '{name}'"
            + (f" in stage '{stage}'" if stage else "")
        )
    return str(max(int(version.version) for version in versions))


def _all_versions(client: Any, name: str) -> list[Any]:
    quote = '"' if "'" in name else "'"
    versions: list[Any] = []
    token: str | None = None
    while page := client.search_model_versions(f"name={quote}{name}{quote}", page_token=token):
        versions += page
        token = page.token
        if not token:
            break
    return versions


def _place(uri: str) -> str:
    """An address together with the registry that it is looked up in."""
    import mlflow

    return "\n".join([uri, mlflow.get_registry_uri(), mlflow.get_tracking_uri()])


@contextmanager
def _asking(address: str) -> Iterator[None]:
    """Ask a registry or a store; what goes wrong is `Unreachable` unless it was an answer."""
    from mlflow.exceptions import MlflowException  # not for models that lie in a folder here

    name, retries = _RETRIES
    chosen = os.environ.get(name)
    os.environ.setdefault(name, retries)
    try:
        yield
    except MLServerError:
        raise
    except MlflowException as error:
        if error.error_code in _DEFINITE:
            raise MLServerError(error.message, 422) from None
        raise Unreachable(address, error) from None
    except ModuleNotFoundError as error:
        raise MLServerError(f"no module named '{error.name}'", 422) from None
    except Exception as error:
        raise Unreachable(address, error) from None
    finally:
        if chosen is None:
            os.environ.pop(name, None)

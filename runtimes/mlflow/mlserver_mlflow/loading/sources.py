"""Resolution of a model's address to a local folder: paths, `models:/`, `runs:/`, artifact stores.

A mutable address (`models:/wine@champion`, or `models:/wine`, the newest version) is resolved to a
fixed version, and the model is downloaded into the cache (`artifact_cache`).
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
_LOGGED_MODEL = re.compile(r"models:/m-[0-9a-f]{32}/*")
_REGISTERED_MODEL = re.compile(
    r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))?/*"
)
# Error codes of a definite response; others may be those of a registry that is down.
_PERMANENT_ERRORS = frozenset(
    (
        "RESOURCE_DOES_NOT_EXIST",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "NOT_FOUND",
    )
)
# MLflow's default retries for two minutes, at every load and every poll of an alias.
_RETRIES_VARIABLE, _DEFAULT_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"


class Unreachable(MLServerError):
    """The registry or the artifact store did not respond."""

    def __init__(self, address: str, error: Exception) -> None:
        super().__init__(f"'{address}' cannot be reached: {type(error).__name__}: {error}", 503)


@dataclass(frozen=True)
class Source:
    """A model's folder on this machine.

    Attributes:
        address: The address it was downloaded from, with a fixed version; None for a local folder.
        version: Its version in the registry, if it has one.
    """

    folder: str
    address: str | None = None
    version: str | None = None


async def resolve(settings: ModelSettings) -> Source:
    """Return the model's folder, downloading the model if it is not cached.

    Raises:
        InvalidModelURI: the settings have no `uri`, or the path does not exist.
        MLServerError: the folder is not an MLflow model, or the download failed.
    """
    uri = await get_model_uri(settings)
    return await asyncio.to_thread(_resolve, settings, uri)


def _resolve(settings: ModelSettings, uri: str) -> Source:
    if not is_address(uri):
        return Source(_check_folder(settings, uri))
    extra = settings.parameters.extra if settings.parameters else {}
    return fetch(uri, artifact_cache.ArtifactCache.open(extra.get("cache_dir")), settings.name)


def _check_folder(settings: ModelSettings, uri: str) -> str:
    if os.path.isfile(uri) and os.path.basename(uri) == MLMODEL:
        uri = os.path.dirname(uri)
    if os.path.isfile(uri):
        raise InvalidModelURI(
            settings.name, f"{uri} is a file: expected the folder that contains '{MLMODEL}'"
        )
    if not os.path.isfile(os.path.join(uri, MLMODEL)):
        raise MLServerError(
            f"Model {settings.name}: the folder {uri} is not an MLflow model, it has no file"
            f" '{MLMODEL}'",
            422,
        )
    folder = resolve_links(uri)
    if not is_below(os.path.join(folder, MLMODEL), folder):
        raise MLServerError(
            f"Model {settings.name}: '{MLMODEL}' in {uri} is a link out of its folder, which MLflow"
            " does not follow: copy the file into the folder",
            422,
        )
    return folder


def fetch(uri: str, cache: artifact_cache.ArtifactCache, name: str) -> Source:
    """Return the model of an address from the cache, downloading it if necessary. Blocks.

    If the registry or the store is unreachable, the address resolves to its last known model.
    """
    try:
        address, version = resolve_version(uri)
        with _translate_errors(address):
            key = cache.fetch(address)
    except Unreachable as error:
        entry = cache.find(_get_lookup(uri))
        if entry is None:
            raise MLServerError(f"Model {name} cannot be loaded: {error.message}", 503) from None
        logger.warning("Model '%s': %s; loading the cached copy", name, error.message)
        return Source(entry["folder"], entry["address"], entry["version"])
    except MLServerError as error:
        text = f"Model {name} cannot be loaded from '{uri}': {error.message}{_advise_store(uri)}"
        raise MLServerError(text, error.status_code) from None
    cache.record(_get_lookup(uri), key, address, version)
    cache.record(_get_lookup(address), key, address, version)
    return Source(cache.folder(key), address, version)


def _advise_store(uri: str) -> str:
    """Return the end of an error's text if MLflow has looked in its default store."""
    from mlflow.tracking import is_tracking_uri_set

    is_configured = is_tracking_uri_set() or os.environ.get("MLFLOW_REGISTRY_URI")
    if is_configured or not uri.startswith(("models:/", "runs:/")):
        return ""
    return "; MLFLOW_TRACKING_URI is not set: MLflow's store in the current folder was used"


def resolve_version(uri: str) -> tuple[str, str | None]:
    """Return the address with a fixed version, and the version; (uri, None) for other addresses.

    Raises:
        MLServerError: the registry has no such model, version or alias.
        Unreachable: the registry does not respond.
    """
    match = None if _LOGGED_MODEL.fullmatch(uri) else _REGISTERED_MODEL.fullmatch(uri)
    if match is None:
        return uri, None
    name, version = match["name"], match["version"]
    if version is None or not version.isdigit():
        with _translate_errors(uri):
            version = _query_version(name, match["alias"], version)
    return f"models:/{name}/{version}", version


def _query_version(name: str, alias: str | None, stage: str | None) -> str:
    from mlflow import MlflowClient

    client = MlflowClient()
    if alias is not None:
        return str(client.get_model_version_by_alias(name, alias).version)
    if stage is not None and stage.lower() != LATEST:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MLflow has deprecated stages
            versions = client.get_latest_versions(name, [stage])
    else:
        versions = _list_versions(client, name)
    if not versions:
        where = f" in stage '{stage}'" if stage else ""
        raise MLServerError(f"The registry has no version of model '{name}'{where}")
    return str(max(int(version.version) for version in versions))


def _list_versions(client: Any, name: str) -> list[Any]:
    quote = '"' if "'" in name else "'"
    versions: list[Any] = []
    token: str | None = None
    while page := client.search_model_versions(f"name={quote}{name}{quote}", page_token=token):
        versions += page
        token = page.token
        if not token:
            break
    return versions


def _get_lookup(uri: str) -> str:
    """Return an address together with the registry that resolves it."""
    import mlflow

    return "\n".join([uri, mlflow.get_registry_uri(), mlflow.get_tracking_uri()])


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Limit MLflow's retries, and raise `Unreachable` for all but permanent errors."""
    from mlflow.exceptions import MlflowException  # late: local folders need no MLflow here

    is_configured = _RETRIES_VARIABLE in os.environ
    os.environ.setdefault(_RETRIES_VARIABLE, _DEFAULT_RETRIES)
    try:
        yield
    except MLServerError:
        raise
    except MlflowException as error:
        if error.error_code in _PERMANENT_ERRORS:
            raise MLServerError(error.message, 422) from None
        raise Unreachable(address, error) from None
    except ModuleNotFoundError as error:
        raise MLServerError(f"no module named '{error.name}'", 422) from None
    except Exception as error:
        raise Unreachable(address, error) from None
    finally:
        if not is_configured:
            os.environ.pop(_RETRIES_VARIABLE, None)

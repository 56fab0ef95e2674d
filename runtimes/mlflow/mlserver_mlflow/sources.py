"""Where an MLflow model comes from: folders, and every address that MLflow can fetch (`models:/`, `runs:/`, stores)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mlserver.errors import InvalidModelURI, MLServerError
from mlserver.utils import get_model_uri

if TYPE_CHECKING:
    from mlserver.settings import ModelSettings

MLMODEL = "MLmodel"


async def resolve(settings: ModelSettings) -> str:
    """The folder of the model, or the address that MLflow downloads it from.

    Raises:
        InvalidModelURI: no `uri`, or nothing there.
        MLServerError: the folder is not an MLflow model.
    """
    return _folder(settings, await get_model_uri(settings))


def _folder(settings: ModelSettings, uri: str) -> str:
    if os.path.isfile(uri) and os.path.basename(uri) == MLMODEL:
        uri = os.path.dirname(uri)
    if os.path.isfile(uri):
        raise InvalidModelURI(settings.name, f"{uri} is a file; expected the folder that holds '{MLMODEL}'")
    if os.path.isdir(uri) and not os.path.isfile(os.path.join(uri, MLMODEL)):
        raise MLServerError(
            f"Model {settings.name}: the folder {uri} is not an MLflow model, it has no file '{MLMODEL}'", 422
        )
    return uri

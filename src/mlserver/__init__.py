"""MLServer: an inference server for machine learning models.

The public names below are imported on first use. `types` has the protocol's messages, `model` and
`codecs` are for custom runtimes, `settings` and `repository` say what to serve, `server` runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy_names import create_getattr
from .version import __version__

if TYPE_CHECKING:
    from .metrics import log, register
    from .model import MLModel
    from .server import MLServer
    from .settings import ModelSettings, Settings

_LATE = {
    "MLModel": ".model",
    "MLServer": ".server",
    "ModelSettings": ".settings",
    "Settings": ".settings",
    "log": ".metrics",
    "register": ".metrics",
}

__all__ = ["MLModel", "MLServer", "ModelSettings", "Settings", "__version__", "log", "register"]


__getattr__ = create_getattr(__name__, _LATE)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

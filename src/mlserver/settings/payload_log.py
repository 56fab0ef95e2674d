"""Settings of the payload log: a sample of requests and responses in a file or as CloudEvents."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer

from ..errors import SettingsError
from .security import SettingsGroup

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _validate_destination(value: str) -> str:
    """Check that an address is one of HTTP, without credentials, which would be in logs."""
    if not value:
        raise ValueError("the path of a file, or an http:// or https:// address")
    if "://" not in value:
        return value
    try:
        address = urlsplit(value)
        is_valid = address.port != 0 and bool(address.hostname)
    except ValueError:
        is_valid = False
    if not is_valid or address.scheme not in ("http", "https"):
        raise ValueError("the path of a file, or an http:// or https:// address with a host")
    if address.username is not None:
        raise ValueError("an address without a user name and a password")
    return value


Destination = Annotated[str, AfterValidator(_validate_destination)]


class PayloadLogSettings(SettingsGroup):
    """A log of requests and responses. Keys that a model's settings omit are the server's."""

    _paths: ClassVar[tuple[str, ...]] = ("to",)

    to: Destination | None = None
    """File of JSON lines (relative paths start at the folder of the settings file), or address
    `http://...` or `https://...` that receives CloudEvents. Required, by the server or the
    model."""
    sample: Share = 0.01
    """Share of the requests that are logged, 0 to 1; 0 = none."""
    what: Literal["request", "response", "both"] = "both"
    """What is logged of a request."""
    max_bytes: Count = 65536
    """Bytes of the tensors of one request or response; larger ones are logged without data."""
    mask: list[str] = Field(default=[])
    """Names of inputs and columns whose values are never logged, nor those of outputs with these
    names; a model's names are added to the server's."""
    max_file_bytes: Count = 128 * 1024 * 1024
    """Bytes of one file; it is then renamed to `.1` and a new one begins."""
    max_files: Count = 8
    """Files that are kept, the current one included; the oldest is deleted."""

    @model_serializer(mode="wrap")
    def _serialize_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit keys that are not set: a process that receives the settings merges them again."""
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if key in self.model_fields_set}

    @property
    def is_address(self) -> bool:
        """Whether events are sent to an address."""
        return self.to is not None and "://" in self.to


def merge_payload_logs(
    server: PayloadLogSettings | None, model: PayloadLogSettings | None, name: str
) -> PayloadLogSettings | None:
    """Return the payload log of a model; None = nothing is logged.

    Args:
        server: Setting of the server.
        model: Setting of the model; its keys override the server's, its masks are added.
        name: Name of the model, for errors.

    Raises:
        SettingsError: neither names a destination.
    """
    if server is None and model is None:
        return None
    values: dict[str, Any] = {}
    masks: list[str] = []
    for settings in (server, model):
        if settings is not None:
            values |= settings.model_dump()
            masks += settings.mask
    merged = PayloadLogSettings(**values | {"mask": list(dict.fromkeys(masks))})
    if not merged.sample:
        return None
    if merged.to is None:
        raise SettingsError(
            f"Model '{name}': field 'payload_log.to': expected the path of a file, or an http:// or"
            " https:// address, received nothing; set it in settings.json or model-settings.json",
            ("payload_log.to",),
        )
    return merged

"""TLS certificates of the front ends, reloaded when their files change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..errors import MLServerError
from ..logging import get_logger
from ..settings.security import TLSSettings

logger = get_logger()
T = TypeVar("T")


class Certificates(Generic[T]):
    """An object built from the certificate files, rebuilt when one of them has changed.

    If changed files are not valid, the previous object remains in use.

    Args:
        build: Builds the object from the settings.

    Raises:
        MLServerError: the files are missing or not valid.
    """

    def __init__(self, settings: TLSSettings, build: Callable[[TLSSettings], T]) -> None:
        self._settings = settings
        self._build = build
        self._stamps = self._read_stamps()
        try:
            self.current = build(settings)
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors
            raise MLServerError(f"TLS (setting 'tls'): {_format_error(error)}", 500) from None

    def refresh(self) -> bool:
        """Rebuild `current` if the files have changed; return whether it is new."""
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self.current = self._build(self._settings)
        except (OSError, ValueError) as error:
            logger.error("TLS: the changed certificate files are ignored: %s", _format_error(error))
            return False
        logger.info("TLS: reloaded the changed certificate files")
        return True

    def _read_stamps(self) -> list[tuple[int, int, int] | None]:
        return [
            _read_stamp(path)
            for path in (self._settings.certificate, self._settings.key, self._settings.client_ca)
        ]


def _read_stamp(path: str | None) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path) if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status else None


def _format_error(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def create_ssl_context(settings: TLSSettings) -> ssl.SSLContext:
    """Return a context that reloads the certificates on handshake if the files have changed."""
    certificates = Certificates(settings, _build_context)
    outer = _build_context(settings)

    def use_current(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        certificates.refresh()
        connection.context = certificates.current

    outer.sni_callback = use_current
    return outer


def _build_context(settings: TLSSettings) -> ssl.SSLContext:
    for path in filter(None, (settings.certificate, settings.key, settings.client_ca)):
        _read(path)  # the errors of ssl do not name the file
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.certificate, settings.key, password=_reject_password)
    if settings.client_ca:
        context.load_verify_locations(settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _reject_password() -> str:
    raise ValueError("private key: expected one without a password, received an encrypted one")


def create_grpc_credentials(settings: TLSSettings) -> Any:
    """Return gRPC server credentials (TLS 1.2 and newer) that reload changed files on handshake."""
    import grpc

    certificates = Certificates(settings, _build_grpc_configuration)

    def fetch() -> Any:
        return certificates.current if certificates.refresh() else None

    return grpc.dynamic_ssl_server_credentials(
        certificates.current, fetch, require_client_authentication=settings.client_ca is not None
    )


def _build_grpc_configuration(settings: TLSSettings) -> Any:
    import grpc

    _build_context(settings)  # raises for invalid files; gRPC fails at the first handshake only
    pair = _read(settings.key), _read(settings.certificate)
    roots = _read(settings.client_ca) if settings.client_ca else None
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()

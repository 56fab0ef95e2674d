"""Certificates of the server, read again when their files change, in the forms that the front ends need."""

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
    """What is made from the certificate files; made again when one of them has changed.

    Args:
        build: Makes it from the settings.

    Raises:
        MLServerError: the files are missing or wrong. Later, when they change into something wrong, the old ones stay.
    """

    def __init__(self, settings: TLSSettings, build: Callable[[TLSSettings], T]) -> None:
        self._settings = settings
        self._build = build
        self._seen = self._look()
        try:
            self.current = build(settings)
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors
            raise MLServerError(f"TLS (setting 'tls'): {_reason(error)}", 500) from None

    def refresh(self) -> bool:
        """Read the files if they have changed since the last time. Returns whether `current` is new."""
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.current = self._build(self._settings)
        except (OSError, ValueError) as error:
            logger.error("TLS: the changed certificate files are not used: %s", _reason(error))
            return False
        logger.info("TLS: the certificate files have changed and are used from now on")
        return True

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [
            _stamp(path)
            for path in (self._settings.certificate, self._settings.key, self._settings.client_ca)
        ]


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path) if path else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found else None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def server_context(settings: TLSSettings) -> ssl.SSLContext:
    """A context for `asyncio` that looks at the files anew at every handshake."""
    certificates = Certificates(settings, _context)
    outer = _context(settings)

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        certificates.refresh()
        connection.context = certificates.current

    outer.sni_callback = choose
    return outer


def _context(settings: TLSSettings) -> ssl.SSLContext:
    for path in filter(None, (settings.certificate, settings.key, settings.client_ca)):
        _read(path)  # ssl's own errors do not say which file
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
    if settings.client_ca:
        context.load_verify_locations(settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key has a password; expected one without")


def grpc_credentials(settings: TLSSettings) -> Any:
    """Server credentials for gRPC that look at the files anew at every handshake. gRPC speaks TLS 1.2 and newer."""
    import grpc

    certificates = Certificates(settings, _grpc_configuration)

    def fetch() -> Any:
        return certificates.current if certificates.refresh() else None

    return grpc.dynamic_ssl_server_credentials(
        certificates.current, fetch, require_client_authentication=settings.client_ca is not None
    )


def _grpc_configuration(settings: TLSSettings) -> Any:
    import grpc

    _context(settings)  # says what is wrong with the files; gRPC only would at the first handshake
    pair = _read(settings.key), _read(settings.certificate)
    roots = _read(settings.client_ca) if settings.client_ca else None
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()

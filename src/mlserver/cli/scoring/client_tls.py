"""Whom the client believes, and how it shows who it is, over TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..terminal import CommandError


@dataclass(frozen=True)
class Trust:
    """Files in PEM.

    Attributes:
        ca: Authorities that servers are believed by; None = those that the machine knows.
        certificate: The client's own, with those between it and its authority.
        key: Its key; None = it stands in the same file.
        verify: False = any server is believed.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """For HTTP."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # those of TLS too
            raise CommandError(
                f"the certificates cannot be used: {getattr(error, 'reason', None) or error}"
            ) from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def credentials(self) -> Any:
        """For gRPC."""
        import grpc

        self.context()  # says what is wrong with the files: gRPC only fails to connect
        key = self.key or self.certificate
        parts = [
            None if path is None else path.read_bytes() for path in (self.ca, key, self.certificate)
        ]
        return grpc.ssl_channel_credentials(*parts)

"""TLS settings of the client: certificate authorities, client certificate and key."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..terminal import CommandError


@dataclass(frozen=True)
class ClientTLS:
    """Paths of PEM files, and whether the server's certificate is verified.

    Attributes:
        ca: Certificate authorities; None = those of the operating system.
        certificate: Client certificate with its intermediate certificates.
        key: Private key of the client certificate; None = in the file `certificate`.
        verify: False = accept any server certificate.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    verify: bool = True

    def create_ssl_context(self) -> ssl.SSLContext:
        """Return the context for HTTPS. Raises `CommandError` for unusable files."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "reason", None) or error
            raise CommandError(f"the certificates cannot be used: {reason}") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def create_grpc_credentials(self) -> Any:
        """Return the channel credentials for gRPC. Raises `CommandError` for unusable files."""
        import grpc

        self.create_ssl_context()  # reports invalid files; gRPC would only fail to connect
        key = self.key or self.certificate
        paths = (self.ca, key, self.certificate)
        contents = [None if path is None else path.read_bytes() for path in paths]
        return grpc.ssl_channel_credentials(*contents)

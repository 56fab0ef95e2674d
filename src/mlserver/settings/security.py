"""The groups of settings about who may connect: certificates, API keys and tokens. The plain ones stand in `settings`.

Paths are those of files on the server; relative ones start at the folder of `settings.json`, else at the current folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

AdminAccess = Literal["loopback", "credential", "any"]
# Signatures that only the issuer can make: with the symmetric ones, whoever checks a token could also issue it.
_ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)


def _known_algorithms(value: list[str]) -> list[str]:
    if not value or not set(value) <= set(_ALGORITHMS):
        raise ValueError(f"some of {', '.join(_ALGORITHMS)}")
    return value


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid")
    _paths: ClassVar[tuple[str, ...]] = ()

    def place(self, folder: str) -> None:
        """Let relative paths start at `folder`."""
        for name in self._paths:
            path = getattr(self, name)
            if path and "://" not in path:
                setattr(self, name, os.path.join(folder, path))


def place_groups(values: Iterable[object], source: str | None) -> None:
    """Let the paths of all groups among `values` start at the folder of the settings file, if there is one."""
    if source is not None:
        for value in values:
            if isinstance(value, _Group):
                value.place(os.path.dirname(os.path.abspath(source)))


class TLSSettings(_Group):
    """Certificates of REST, gRPC and metrics. TLS 1.2 is the oldest version spoken. Files that change are read again."""

    _paths: ClassVar[tuple[str, ...]] = ("certificate", "key", "client_ca")

    certificate: str
    """PEM file: the server's certificate, then those that lead to its issuer."""
    key: str
    """PEM file: the certificate's private key, without a password."""
    client_ca: str | None = None
    """PEM file: who issues the certificates of clients. If set, nobody connects without one (mutual TLS)."""


class JWTSettings(_Group):
    """Tokens that somebody else issues (OpenID Connect and the like). Needs `pip install 'mlserver[auth]'`."""

    _paths: ClassVar[tuple[str, ...]] = ("jwks",)

    jwks: str
    """File, or https:// address, of the issuer's public keys."""
    issuer: str | None = None
    """What `iss` must be; None = anything."""
    audience: str | None = None
    """What `aud` must hold; None = tokens with an audience are refused."""
    algorithms: Annotated[list[str], AfterValidator(_known_algorithms)] = [
        "RS256",
        "ES256",
        "EdDSA",
    ]
    scopes_claim: str = "scope"
    """Claim with the scopes: a list, or names with blanks between them."""
    leeway: Annotated[float, Field(ge=0, le=300)] = 30
    """Seconds by which clocks may differ."""


class AuthSettings(_Group):
    """Who is known here. If set, every caller of everything but health needs a credential with the scope for it."""

    _paths: ClassVar[tuple[str, ...]] = ("keys",)

    keys: str | None = None
    """File of API keys: lines `NAME SCOPES SHA256`; `mlserver key` makes them."""
    jwt: JWTSettings | None = None

    def place(self, folder: str) -> None:
        super().place(folder)
        if self.jwt is not None:
            self.jwt.place(folder)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.keys is None and self.jwt is None:
            raise ValueError("'keys', 'jwt' or both")
        return self

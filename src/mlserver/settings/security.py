"""Groups of settings for TLS and authentication: certificates, API keys and tokens.

Paths are those of files on the server; relative ones start at the folder of `settings.json`, or at
the current folder for settings from code and the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

AdminAccess = Literal["loopback", "credential", "any"]
# Asymmetric only: a server that verifies a symmetric signature has the key to issue tokens.
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


def _validate_algorithms(value: list[str]) -> list[str]:
    if not value or not set(value) <= set(_ALGORITHMS):
        raise ValueError(f"some of {', '.join(_ALGORITHMS)}")
    return value


class SettingsGroup(BaseModel):
    """Base class of groups: unknown keys are errors, paths start at the settings file."""

    model_config = ConfigDict(extra="forbid")
    # Names of the fields that hold paths.
    _paths: ClassVar[tuple[str, ...]] = ()

    def resolve_paths(self, folder: str) -> None:
        """Make relative paths start at `folder`."""
        for name in self._paths:
            path = getattr(self, name)
            if path and "://" not in path:
                setattr(self, name, os.path.join(folder, path))


def resolve_group_paths(values: Iterable[object], source: str | None) -> None:
    """Make the paths of all groups among `values` start at the folder of the settings file."""
    if source is None:
        return
    folder = os.path.dirname(os.path.abspath(source))
    for value in values:
        if isinstance(value, SettingsGroup):
            value.resolve_paths(folder)


class TLSSettings(SettingsGroup):
    """Certificates of REST, gRPC and metrics, for TLS 1.2 and newer. Changed files are reloaded."""

    _paths: ClassVar[tuple[str, ...]] = ("certificate", "key", "client_ca")

    certificate: str
    """PEM file with the server's certificate, followed by the intermediate certificates."""
    key: str
    """PEM file with the private key of the certificate, without a password."""
    client_ca: str | None = None
    """PEM file with the certificate authority of client certificates. If set, every client needs a
    certificate (mutual TLS)."""


class JWTSettings(SettingsGroup):
    """Tokens (JWT) of an external issuer, such as an OpenID provider. Needs the extra `auth`."""

    _paths: ClassVar[tuple[str, ...]] = ("jwks",)

    jwks: str
    """File or https:// URL with the issuer's public keys (JWKS)."""
    issuer: str | None = None
    """Required value of the claim `iss`; None = any."""
    audience: str | None = None
    """Required member of the claim `aud`; None = tokens with an audience are rejected."""
    algorithms: Annotated[list[str], AfterValidator(_validate_algorithms)] = [
        "RS256",
        "ES256",
        "EdDSA",
    ]
    """Accepted signature algorithms, asymmetric ones only."""
    scopes_claim: str = "scope"
    """Claim with the scopes: a list, or names separated by spaces."""
    leeway: Annotated[float, Field(ge=0, le=300)] = 30
    """Seconds of clock skew to tolerate, 0 to 300."""


class AuthSettings(SettingsGroup):
    """Accepted credentials. If set, all requests but health checks need one with the right
    scope."""

    _paths: ClassVar[tuple[str, ...]] = ("keys",)

    keys: str | None = None
    """File of API keys with lines `NAME SCOPES SHA256`, which `mlserver key` prints; None = no
    keys."""
    jwt: JWTSettings | None = None
    """Tokens of an external issuer; None = no tokens."""

    def resolve_paths(self, folder: str) -> None:
        super().resolve_paths(folder)
        if self.jwt is not None:
            self.jwt.resolve_paths(folder)

    @model_validator(mode="after")
    def _validate_credentials(self) -> Self:
        if self.keys is None and self.jwt is None:
            raise ValueError("'keys', 'jwt' or both")
        return self

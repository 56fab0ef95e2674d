"""Authorization of callers, checked by every front end before it serves a request.

- Health checks need no credential.
- Without the setting `auth` everything else is open, except `admin` (load and unload), which is
  limited to clients on this machine unless `admin_access` says otherwise.
- With `auth` every caller needs a credential with the scope of the operation, for `admin` unless
  `admin_access` says otherwise.
- A request with a credential is judged by the credential alone.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import MLServerError
from ..logging import get_logger
from ..settings import Settings
from .credentials import Authenticator, Identity, KeyFile, TokenAuthenticator, Unauthenticated

logger = get_logger()

# Scopes of operations; OPEN needs no credential.
OPEN, INFER, ADMIN, METRICS = "", "infer", "admin", "metrics"

_LOOPBACK = frozenset(("127.0.0.1", "::1", "::ffff:127.0.0.1"))
# Headers of proxies, and of pages in a browser on this machine: the client is not the connection's
# peer.
_FORWARDING_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via", "origin")


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request, with the data that a front end has of it.

    Attributes:
        address: IP address of the connection's peer; "" = unknown.
        headers: HTTP headers or gRPC metadata, names in lower case.
    """

    address: str
    headers: Mapping[str, Any]

    @property
    def credential(self) -> str | None:
        """The bearer token or API key of the request."""
        scheme, _, rest = str(self.headers.get("authorization", "")).partition(" ")
        if scheme.lower() == "bearer" and rest.strip():
            return rest.strip()
        key = self.headers.get("x-api-key")
        return str(key) if key else None

    @property
    def is_local(self) -> bool:
        """Whether the caller is a program on this machine that sends its own requests."""
        is_direct = self.has_loopback_address and self.forwarding_header is None
        return is_direct and self.foreign_host is None

    @property
    def has_loopback_address(self) -> bool:
        """Whether the connection's peer is on this machine."""
        return self.address in _LOOPBACK

    @property
    def foreign_host(self) -> str | None:
        """The host of the request's address, if it is a public domain name.

        A page of another site reaches this machine by a name of its own that resolves to 127.0.0.1
        (DNS rebinding), and its GET requests have no `Origin`.
        """
        host = str(self.headers.get("host", "")).strip().lower()
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        if "." not in name or name == socket.gethostname().lower():
            return None
        if name.endswith((".localhost", ".localdomain")) or _is_ip_address(name):
            return None
        return name

    @property
    def forwarding_header(self) -> str | None:
        """A proxy's header, or a browser's `Origin`: the peer forwards another client's request."""
        return next((name for name in _FORWARDING_HEADERS if name in self.headers), None)


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class Forbidden(MLServerError):
    """The caller lacks the permission; the text names the deciding setting or scope."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 403)


class MissingScope(Forbidden):
    """The credential lacks a scope."""

    def __init__(self, scope: str, identity: str) -> None:
        super().__init__(f"Credential: expected scope '{scope}', received none of that name")
        self.identity = identity


class Authorizer:
    """Access rules of one listening address.

    Args:
        settings: `auth`, `admin_access` and `admin_port`.
        is_admin_address: Whether this is the address of `admin_port`, whose clients may load and
            unload models without a credential, unless `admin_access` is `credential`.
    """

    def __init__(self, settings: Settings, is_admin_address: bool = False) -> None:
        self._authenticators: list[Authenticator] = []
        if settings.auth is not None:
            if settings.auth.keys is not None:
                self._authenticators.append(KeyFile(settings.auth.keys))
            if settings.auth.jwt is not None:
                self._authenticators.append(TokenAuthenticator(settings.auth.jwt))
        default_access = "credential" if self._authenticators else "loopback"
        self._admin_access = settings.admin_access or default_access
        self._has_other_admin_address = settings.admin_port is not None and not is_admin_address
        self._is_admin_address = is_admin_address

    @property
    def requires_credentials(self) -> bool:
        """Whether scopes other than `admin` need a check; if not, front ends skip it."""
        return bool(self._authenticators)

    async def check(self, scope: str, caller: Caller) -> None:
        """Return if the caller has the scope.

        Raises:
            Unauthenticated: the credential is missing or not valid.
            Forbidden: the credential lacks the scope, or `admin_access` excludes the caller.
        """
        if scope == OPEN or (scope != ADMIN and not self._authenticators):
            return
        refusal = await self.find_refusal(scope, caller)
        if isinstance(refusal, MissingScope):
            logger.warning("Credential '%s' rejected: no scope '%s'", refusal.identity, scope)
        if refusal is not None:
            raise refusal

    async def find_refusal(self, scope: str, caller: Caller) -> MLServerError | None:
        """Return the error that `check` raises; None if the caller has the scope."""
        if scope != ADMIN and not self._authenticators:
            return None
        if scope == ADMIN and self._has_other_admin_address:
            return Forbidden(
                "Administration, such as loading and unloading models, is limited to the address "
                "of the setting 'admin_port'"
            )
        try:
            identity = await self._identify(caller) if self._authenticators else None
        except Unauthenticated as error:
            return error
        if identity is not None:
            return None if scope in identity.scopes else MissingScope(scope, identity.name)
        if scope == ADMIN and self._is_admin_without_credential(caller):
            return None
        if self._authenticators:
            return Unauthenticated(
                "Credential missing: send 'Authorization: Bearer ...' or 'X-API-Key: ...'"
            )
        return Forbidden(_explain_rejection(caller))

    async def _identify(self, caller: Caller) -> Identity | None:
        credential = caller.credential
        if credential is None:
            return None
        for authenticator in self._authenticators:
            identity = await authenticator.identify(credential)
            if identity is not None:
                return identity
        raise Unauthenticated("Credential not valid")

    def _is_admin_without_credential(self, caller: Caller) -> bool:
        if self._admin_access == "any":
            return True
        if self._admin_access == "credential":
            return False
        return self._is_admin_address or caller.is_local


def _explain_rejection(caller: Caller) -> str:
    """Return why administration is rejected on a server without `auth`, and what to do."""
    cure = "a credential (settings 'admin_access' and 'auth')"
    header = caller.forwarding_header
    if not caller.has_loopback_address:
        return (
            "Loading and unloading models and other administration is limited to clients on the "
            f"server's own machine: run the client there, or use {cure}"
        )
    if header == "origin":
        return (
            "Loading and unloading models is not allowed from web pages (header 'Origin'): use a "
            f"program such as curl, or {cure}"
        )
    if header is not None:
        return (
            "Loading and unloading models and other administration is not allowed through a proxy "
            f"(header '{header}'): connect directly from the server's own machine, or use {cure}"
        )
    return (
        "Administration of a server without credentials is limited to local addresses: expected an "
        f"IP address or 'localhost' as the host, received '{caller.foreign_host}'; or use {cure}"
    )

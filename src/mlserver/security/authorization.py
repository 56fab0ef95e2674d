"""May this caller do this? Every front end asks here before it does anything for a caller, and nowhere else.

Health needs nothing. Without `auth` all else is open, except what changes the server (`admin`): that is for clients on
this machine, unless `admin_access` says otherwise. With `auth` every caller shows a credential with the scope of what it
asks, `admin` included unless `admin_access` says otherwise; a request that shows a credential is judged by it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import MLServerError
from ..logging import get_logger
from ..settings import Settings
from .credentials import Credentials, Identity, KeyFile, Tokens, Unauthenticated

logger = get_logger()

# What can be asked for. OPEN needs no credential.
OPEN, INFER, ADMIN, METRICS = "", "infer", "admin", "metrics"

_LOOPBACK = frozenset(("127.0.0.1", "::1", "::ffff:127.0.0.1"))
# Who comes through a proxy, or from a page in a browser on this machine, is somebody else than who connects.
_ON_BEHALF = ("forwarded", "x-forwarded-for", "x-real-ip", "via", "origin")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as a front end sees it.

    Attributes:
        address: IP address of the other end of the connection; "" = unknown.
        headers: Lower-case names; HTTP headers or gRPC metadata.
    """

    address: str
    headers: Mapping[str, Any]

    @property
    def credential(self) -> str | None:
        """The bearer token or API key that it shows."""
        kind, _, rest = str(self.headers.get("authorization", "")).partition(" ")
        if kind.lower() == "bearer" and rest.strip():
            return rest.strip()
        key = self.headers.get("x-api-key")
        return str(key) if key else None

    @property
    def is_local(self) -> bool:
        """Whether it is a program on this machine that speaks for itself."""
        return self.has_loopback_address and self.forwarding_header is None

    @property
    def has_loopback_address(self) -> bool:
        """Whether the connection comes from this machine."""
        return self.address in _LOOPBACK

    @property
    def forwarding_header(self) -> str | None:
        """The header which says that the connection serves another client: a proxy's, or a browser's `Origin`."""
        return next((name for name in _ON_BEHALF if name in self.headers), None)


class Forbidden(MLServerError):
    """The caller may not do this; the text names the setting or the scope that decides."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 403)


class Authorizer:
    """The rules of one listening address.

    Args:
        settings: `auth`, `admin_access` and `admin_port`.
        admin_address: Whether this is the address that `admin_port` opens: who can reach it may change the server.
    """

    def __init__(self, settings: Settings, admin_address: bool = False) -> None:
        self._ways: list[Credentials] = []
        if settings.auth is not None:
            if settings.auth.keys is not None:
                self._ways.append(KeyFile(settings.auth.keys))
            if settings.auth.jwt is not None:
                self._ways.append(Tokens(settings.auth.jwt))
        default_access = "credential" if self._ways else "loopback"
        self._admin_access = settings.admin_access or default_access
        self._admin_elsewhere = settings.admin_port is not None and not admin_address
        self._admin_address = admin_address

    @property
    def asks_everybody(self) -> bool:
        """Whether more than `admin` needs a check: if not, front ends save themselves the question."""
        return bool(self._ways)

    async def check(self, scope: str, caller: Caller) -> None:
        """Return if the caller may.

        Raises:
            Unauthenticated: it is not known.
            Forbidden: it is known, or nobody is, and it may not.
        """
        if scope == OPEN or (scope != ADMIN and not self._ways):
            return
        if scope == ADMIN and self._admin_elsewhere:
            raise Forbidden(
                "Models are loaded and unloaded at the address of the setting 'admin_port' only"
            )
        identity = await self._identify(caller) if self._ways else None
        if identity is not None:
            if scope in identity.scopes:
                return
            logger.warning("Refused: '%s' has no scope '%s'", identity.name, scope)
            raise Forbidden(f"This credential has no scope '{scope}'")
        if scope == ADMIN and self._may_without_credential(caller):
            return
        if self._ways:
            raise Unauthenticated(
                "A credential is needed: 'Authorization: Bearer ...' or 'X-API-Key: ...'"
            )
        raise Forbidden(_explain_refusal(caller))

    async def _identify(self, caller: Caller) -> Identity | None:
        credential = caller.credential
        if credential is None:
            return None
        for way in self._ways:
            identity = await way.identify(credential)
            if identity is not None:
                return identity
        raise Unauthenticated("The credential is not valid")

    def _may_without_credential(self, caller: Caller) -> bool:
        if self._admin_access == "any":
            return True
        if self._admin_access == "credential":
            return False
        return self._admin_address or caller.is_local


def _explain_refusal(caller: Caller) -> str:
    """Why a request to load or unload a model is refused where no credential is known, and what to do."""
    header = caller.forwarding_header
    if not caller.has_loopback_address or header is None:
        return (
            "Models are loaded and unloaded by clients on the server's own machine, or with a "
            "credential (settings 'admin_access' and 'auth')"
        )
    if header == "origin":
        return (
            "Models are not loaded and unloaded from web pages (header 'Origin'), on the server's "
            "own machine either: use a program such as curl, or a credential (settings "
            "'admin_access' and 'auth')"
        )
    return (
        f"Models are not loaded and unloaded through a proxy (header '{header}'): ask the server "
        "directly, from its own machine, or use a credential (settings 'admin_access' and 'auth')"
    )

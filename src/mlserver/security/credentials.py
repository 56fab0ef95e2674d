"""Authentication of callers by API keys from a file and by signed tokens (JWT)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .._optional import import_optional
from ..errors import MLServerError, Unavailable
from ..logging import get_logger
from ..settings import SettingsError
from ..settings.security import JWTSettings

logger = get_logger()

SCOPES = ("infer", "admin", "metrics")
CREDENTIAL_HEADERS = frozenset(("authorization", "x-api-key"))
_KEY_FILE_CHECK_SECONDS = 1.0  # interval of checks whether the key file has changed
_MIN_JWKS_AGE_SECONDS = 30.0  # between two fetches, whatever key ids clients send
_MAX_JWKS_AGE_SECONDS = 300.0  # the issuer may revoke keys, so older ones are not used
_JWKS_TIMEOUT_SECONDS = 10.0  # of a fetch, and of a request that waits for it
_JWKS_RETRY_SECONDS = 5.0  # between two fetches after one that failed
_MAX_JWKS_BYTES = 1024 * 1024
_MAX_TOKEN_BYTES = 16 * 1024
_MAX_CACHED_TOKENS = 1024
_KEY_LINE = re.compile(r"(?P<name>\S+)\s+(?P<scopes>[a-z,]+)\s+(?P<digest>[0-9a-fA-F]{64})")


class Unauthenticated(MLServerError):
    """The credential is missing or not valid; the text has no hint at the reason."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 401)


@dataclass(frozen=True)
class Identity:
    """An authenticated caller.

    Attributes:
        name: Name for the log.
        scopes: Some of `SCOPES`.
    """

    name: str
    scopes: frozenset[str]


class Authenticator(Protocol):
    """Maps credentials to identities."""

    async def identify(self, credential: str) -> Identity | None:
        """Return the identity of a credential; None = unknown or not valid."""
        ...


def hash_key(key: str) -> str:
    """Return the digest of an API key for the key file.

    One round of SHA-256 is enough: `mlserver key` generates keys with too much entropy to guess.
    """
    return hashlib.sha256(key.encode()).hexdigest()


class KeyFile:
    """API keys from a file, which is reloaded when it changes.

    Each line is `NAME SCOPES SHA256`, with scopes separated by commas; `#` starts a comment. If a
    changed file is not valid, the previous keys remain in use.

    Raises:
        SettingsError: the file is missing or not valid.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._keys: list[tuple[bytes, Identity]] = []
        self._stamp: tuple[int, int, int] | None = None
        self._checked_at = time.monotonic()
        self._read()

    def _read(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = status.st_mtime_ns, status.st_size, status.st_ino
            if stamp == self._stamp:
                return
            with open(self._path, encoding="utf-8") as file:
                self._keys = parse_keys(file.read(), self._path)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise SettingsError(f"{self._path} (setting 'auth.keys'): {reason}") from None
        self._stamp = stamp

    async def identify(self, credential: str) -> Identity | None:
        self._refresh()
        digest = hash_key(credential).encode()
        matching = None
        # No early exit: the duration must not depend on the position of the key.
        for known_digest, identity in self._keys:
            if hmac.compare_digest(known_digest, digest):
                matching = identity
        return matching

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < _KEY_FILE_CHECK_SECONDS:
            return
        self._checked_at = now
        try:
            self._read()
        except SettingsError as error:
            logger.error("The changed API key file is ignored: %s", error.message)


def parse_keys(text: str, path: str) -> list[tuple[bytes, Identity]]:
    """Parse a key file. Raises `SettingsError` with the line number."""
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _KEY_LINE.fullmatch(content)
        if match is None:
            raise SettingsError(
                f"{path} line {number}: expected NAME SCOPES SHA256, as 'mlserver key' prints it"
            )
        scopes = frozenset(match["scopes"].split(","))
        if not scopes <= set(SCOPES):
            raise SettingsError(f"{path} line {number}: expected scopes among {','.join(SCOPES)}")
        keys.append((match["digest"].lower().encode(), Identity(match["name"], scopes)))
    return keys


class TokenAuthenticator:
    """Verifies tokens (JWT) of one issuer.

    Args:
        settings: Location of the issuer's public keys, and required claims.

    Raises:
        SettingsError: the key set is missing or not valid, or PyJWT is not installed.
    """

    def __init__(self, settings: JWTSettings) -> None:
        try:
            self._jwt: Any = import_optional(
                "jwt", "Authentication by tokens (setting 'auth.jwt')", "auth"
            )
        except MLServerError as error:
            raise SettingsError(error.message) from None
        self._settings = settings
        self._is_remote = settings.jwks.startswith("https://")
        if "://" in settings.jwks and not self._is_remote:
            raise SettingsError("auth.jwt.jwks: expected a file or an https:// URL")
        self._keys: dict[str | None, Any] = {}
        # Start of the last fetch, and of the last one that succeeded.
        self._attempted_at = self._fetched_at = float("-inf")
        self._fetching: asyncio.Future[None] | None = None
        self._cached_tokens: dict[str, tuple[float, Identity]] = {}
        if not self._is_remote:
            self._attempted_at = time.monotonic()
            self._fetch()

    async def identify(self, credential: str) -> Identity | None:
        if credential.count(".") != 2 or len(credential) > _MAX_TOKEN_BYTES:
            return None
        if self._keys and self._get_age() > _MAX_JWKS_AGE_SECONDS / 2:
            await self._refresh()
        cached_tokens = self._cached_tokens
        cached = cached_tokens.get(credential)
        if cached is not None:
            expires_at, identity = cached
            return identity if time.time() < expires_at else None
        key = await self._find_key(credential)
        return self._verify(credential, key, cached_tokens) if key is not None else None

    def _get_age(self) -> float:
        """Return the seconds since the keys were fetched."""
        return time.monotonic() - self._fetched_at

    async def _refresh(self) -> None:
        """Fetch the key set in the background; wait for it if the keys are too old to be used.

        Raises:
            Unavailable: the keys are too old, and cannot be fetched.
        """
        self._start_fetch()
        if self._get_age() > _MAX_JWKS_AGE_SECONDS:
            await self._wait_fetched()
        if self._get_age() > _MAX_JWKS_AGE_SECONDS:
            raise Unavailable(
                "The issuer's keys (setting 'auth.jwt.jwks') are older than "
                f"{_MAX_JWKS_AGE_SECONDS:g} s and could not be fetched; the server's log has the "
                "reason"
            )

    def _start_fetch(self) -> None:
        """Start a fetch in a thread, unless one is running or has just ended."""
        if self._fetching is not None and not self._fetching.done():
            return
        now, has_failed = time.monotonic(), self._attempted_at != self._fetched_at
        interval = _MIN_JWKS_AGE_SECONDS
        if has_failed:
            interval = min(interval, _JWKS_RETRY_SECONDS)
        if now - self._attempted_at > interval:
            self._attempted_at = now
            self._fetching = asyncio.get_running_loop().run_in_executor(None, self._refetch)

    async def _wait_fetched(self) -> None:
        """Wait for the fetch that is running, if any, up to its time limit."""
        if self._fetching is not None:
            await asyncio.wait((self._fetching,), timeout=_JWKS_TIMEOUT_SECONDS)

    async def _find_key(self, token: str) -> Any:
        """Return the key with the token's key id, fetching the key set again for an unknown id."""
        try:
            header = self._jwt.get_unverified_header(token)
        except self._jwt.PyJWTError:
            return None
        key_id = header.get("kid")
        if key_id not in self._keys:
            self._start_fetch()
            await self._wait_fetched()
        return self._keys.get(key_id)

    def _verify(
        self, token: str, key: Any, cached_tokens: dict[str, tuple[float, Identity]]
    ) -> Identity | None:
        """Return the identity of a token, None if it is not valid.

        Args:
            cached_tokens: The cache as it was before the key was looked up: `_fetch` replaces the
                cache, so a token verified with a revoked key is not stored in the new one.
        """
        settings = self._settings
        try:
            claims: Mapping[str, Any] = self._jwt.decode(
                token,
                key.key,
                algorithms=settings.algorithms,
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway,
                options={"require": ["exp"]},
            )
            expires_at = float(claims["exp"]) + settings.leeway
        except (self._jwt.PyJWTError, TypeError, ValueError, OverflowError):
            return None
        scopes = _read_scopes(claims.get(settings.scopes_claim, ""))
        identity = Identity(str(claims.get("sub", "")), scopes)
        if len(cached_tokens) >= _MAX_CACHED_TOKENS:
            cached_tokens.clear()
        cached_tokens[token] = expires_at, identity
        return identity

    def _refetch(self) -> None:
        try:
            self._fetch()
        except (SettingsError, OSError, ValueError) as error:
            logger.error("Fetching the issuer's keys (setting 'auth.jwt.jwks') failed: %s", error)

    def _fetch(self) -> None:
        try:
            key_set = self._jwt.PyJWKSet.from_json(self._read_text())
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
            self._jwt.PyJWTError,
        ) as error:
            raise SettingsError(
                f"auth.jwt.jwks: expected a JWKS document: {type(error).__name__}: {error}"
            ) from None
        keys = {key.key_id: key for key in key_set.keys if key.key_type != "oct"}
        if not keys:
            raise SettingsError("auth.jwt.jwks: expected at least one public key, received none")
        self._keys = keys
        self._cached_tokens = {}  # the issuer may have revoked a key
        self._fetched_at = self._attempted_at

    def _read_text(self) -> str:
        if not self._is_remote:
            with open(self._settings.jwks, encoding="utf-8") as file:
                return file.read(_MAX_JWKS_BYTES)
        from .jwks import download  # imports urllib and ssl, which other servers do not need

        return download(self._settings.jwks, _MAX_JWKS_BYTES, _JWKS_TIMEOUT_SECONDS)


def _read_scopes(claim: object) -> frozenset[str]:
    """Return the known scopes of a claim: a list, or names separated by spaces."""
    names = claim.split() if isinstance(claim, str) else claim
    if not isinstance(names, list):
        return frozenset()
    return frozenset(map(str, names)) & set(SCOPES)

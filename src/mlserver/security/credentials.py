"""What callers show to prove who they are: API keys from a file, and tokens (JWT) that an issuer signed. No policy."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .._optional import load
from ..errors import MLServerError
from ..logging import get_logger
from ..settings import SettingsError
from ..settings.security import JWTSettings

logger = get_logger()

SCOPES = ("infer", "admin", "metrics")
CREDENTIALS = frozenset(("authorization", "x-api-key"))  # headers that carry them
_LOOK_AGAIN = 1.0  # seconds between two looks at the keys' file
_FETCH_AGAIN = 30.0  # seconds between two questions for the issuer's keys
_KEEP = 300.0  # seconds after which they are asked for anyway: it may have taken one back
_FETCH_LIMIT = 10.0
_LARGEST_JWKS = 1024 * 1024
_LARGEST_TOKEN = 16 * 1024
_REMEMBERED = 1024
_LINE = re.compile(r"(?P<name>\S+)\s+(?P<scopes>[a-z,]+)\s+(?P<digest>[0-9a-fA-F]{64})")


class Unauthenticated(MLServerError):
    """No credential, or one that is not valid. The text never says how close it was."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg, 401)


@dataclass(frozen=True)
class Identity:
    """A caller who is known.

    Attributes:
        name: For the log.
        scopes: Some of `SCOPES`.
    """

    name: str
    scopes: frozenset[str]


class Credentials(Protocol):
    """A way to tell who shows a credential."""

    async def identify(self, credential: str) -> Identity | None:
        """Who that is; None = not one of these credentials, or not valid."""
        ...


def digest_of(key: str) -> str:
    """What the file holds of a key. Keys are random and long, so that one round of SHA-256 cannot be undone by trying."""
    return hashlib.sha256(key.encode()).hexdigest()


class KeyFile:
    """API keys: a line `NAME SCOPES SHA256` each (scopes with commas), `#` begins a comment. Read again when it changes.

    Raises:
        SettingsError: the file is missing or a line is wrong. Later, when it changes into something wrong, the old keys stay.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._keys: list[tuple[bytes, Identity]] = []
        self._stamp: tuple[int, int, int] | None = None
        self._looked = time.monotonic()
        self._read()

    def _read(self) -> None:
        try:
            found = os.stat(self._path)
            stamp = found.st_mtime_ns, found.st_size, found.st_ino
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
        digest = digest_of(credential).encode()
        found = None
        for (
            known,
            identity,
        ) in self._keys:  # all of them, whichever fits: the time taken tells nothing
            if hmac.compare_digest(known, digest):
                found = identity
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        try:
            self._read()
        except SettingsError as error:
            logger.error("The changed file of API keys is not used: %s", error.message)


def parse_keys(text: str, where: str) -> list[tuple[bytes, Identity]]:
    """The keys of a file's text. Raises `SettingsError` that names the line."""
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            raise SettingsError(
                f"{where} line {number}: expected NAME SCOPES SHA256, as 'mlserver key' prints it"
            )
        scopes = frozenset(match["scopes"].split(","))
        if not scopes <= set(SCOPES):
            raise SettingsError(f"{where} line {number}: expected scopes among {','.join(SCOPES)}")
        keys.append((match["digest"].lower().encode(), Identity(match["name"], scopes)))
    return keys


class Tokens:
    """Tokens (JWT) of one issuer.

    Args:
        settings: Where its public keys are, and what its tokens must say.

    Raises:
        SettingsError: the file of keys is missing or wrong, or the library is not installed.
    """

    def __init__(self, settings: JWTSettings) -> None:
        try:
            self._jwt: Any = load("jwt", "Authentication by tokens (setting 'auth.jwt')", "auth")
        except MLServerError as error:
            raise SettingsError(error.message) from None
        self._settings = settings
        self._remote = settings.jwks.startswith("https://")
        if "://" in settings.jwks and not self._remote:
            raise SettingsError("auth.jwt.jwks: expected a file or an https:// address")
        self._keys: dict[str | None, Any] = {}
        self._fetched = float("-inf")
        self._fetching = threading.Lock()
        self._renewal: asyncio.Future[None] | None = None
        self._remembered: dict[str, tuple[float, Identity]] = {}
        if not self._remote:
            self._fetch()

    async def identify(self, credential: str) -> Identity | None:
        if credential.count(".") != 2 or len(credential) > _LARGEST_TOKEN:
            return None
        self._renew()
        remembered = self._remembered
        known = remembered.get(credential)
        if known is not None:
            until, identity = known
            return identity if time.time() < until else None
        key = await self._key_of(credential)
        return self._checked(credential, key, remembered) if key is not None else None

    def _renew(self) -> None:
        """See to it that keys do not outlive their issuer's trust in them. Nobody waits: until then the old ones hold."""
        due = self._keys and time.monotonic() - self._fetched > _KEEP
        if due and (self._renewal is None or self._renewal.done()):
            self._renewal = asyncio.get_running_loop().run_in_executor(None, self._fetch_again)

    async def _key_of(self, token: str) -> Any:
        """The issuer's key that the token names; its keys are asked for again if it has new ones."""
        try:
            header = self._jwt.get_unverified_header(token)
        except self._jwt.PyJWTError:
            return None
        name = header.get("kid")
        if name not in self._keys and time.monotonic() - self._fetched > _FETCH_AGAIN:
            await asyncio.to_thread(self._fetch_again)
        return self._keys.get(name)

    def _checked(
        self, token: str, key: Any, remembered: dict[str, tuple[float, Identity]]
    ) -> Identity | None:
        """Whose token that is. `remembered` is from before the key was: what an old key has opened is forgotten with it."""
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
            until = float(claims["exp"]) + settings.leeway
        except (self._jwt.PyJWTError, TypeError, ValueError, OverflowError):
            return None
        given = claims.get(settings.scopes_claim, "")
        names = (
            given.split() if isinstance(given, str) else given if isinstance(given, list) else []
        )
        identity = Identity(
            str(claims.get("sub", "")), frozenset(str(name) for name in names) & set(SCOPES)
        )
        if len(remembered) >= _REMEMBERED:
            remembered.clear()
        remembered[token] = until, identity
        return identity

    def _fetch_again(self) -> None:
        with self._fetching:
            if time.monotonic() - self._fetched <= _FETCH_AGAIN:
                return  # another request has just done it
            try:
                self._fetch()
            except (SettingsError, OSError, ValueError) as error:
                logger.error(
                    "The issuer's keys (setting 'auth.jwt.jwks') cannot be read: %s", error
                )
            self._fetched = time.monotonic()

    def _fetch(self) -> None:
        try:
            found = self._jwt.PyJWKSet.from_json(self._text())
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
                f"auth.jwt.jwks: cannot be used: {type(error).__name__}: {error}"
            ) from None
        keys = {key.key_id: key for key in found.keys if key.key_type != "oct"}
        if not keys:
            raise SettingsError("auth.jwt.jwks: holds no public key")
        self._keys = keys
        self._remembered = {}  # a key that its issuer took back
        self._fetched = time.monotonic()

    def _text(self) -> str:
        if not self._remote:
            with open(self._settings.jwks, encoding="utf-8") as file:
                return file.read(_LARGEST_JWKS)
        from http.client import HTTPException
        from urllib.request import Request, build_opener

        opener = build_opener(_NoRedirects())
        asked = Request(self._settings.jwks, headers={"accept": "application/json"})
        try:
            with opener.open(asked, timeout=_FETCH_LIMIT) as answer:
                content: bytes = answer.read(_LARGEST_JWKS)
        except HTTPException as error:
            raise OSError(f"{type(error).__name__}: {error}") from None
        return content.decode()


def _NoRedirects() -> Any:  # noqa: N802 - stands for a class that needs a late import
    from urllib.request import HTTPRedirectHandler

    class NoRedirects(HTTPRedirectHandler):
        """The address in the settings is the one that was meant."""

        def redirect_request(self, *arguments: Any) -> None:
            return None

    return NoRedirects()

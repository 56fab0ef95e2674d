"""API keys and tokens: accepted and rejected credentials, changed files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mlserver.errors import Unavailable
from mlserver.security import credentials
from mlserver.security.credentials import (
    Identity,
    KeyFile,
    TokenAuthenticator,
    hash_key,
    parse_keys,
)
from mlserver.settings import SettingsError
from mlserver.settings.security import JWTSettings
from support.certificates import Authority

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


# -- keys --


@pytest.mark.parametrize(
    "line",
    ["a", "a infer", "a infer 12", f"a root {hash_key('k')}", f"a infer {hash_key('k')} x"],
)
def test_invalid_lines_are_named(line: str) -> None:
    with pytest.raises(SettingsError, match="keys.txt line 2"):
        parse_keys(f"# keys\n{line}\n", "keys.txt")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"auth\.keys"):
        KeyFile(str(tmp_path / "keys.txt"))


async def test_changed_files_are_reloaded_unless_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_KEY_FILE_CHECK_SECONDS", 0.0)
    path = tmp_path / "keys.txt"
    path.write_text(f"one infer {hash_key('k1')}\n")
    file = KeyFile(str(path))
    assert await file.identify("k1") == Identity("one", frozenset({"infer"}))
    path.write_text(f"two infer,metrics {hash_key('k2')}\n")
    assert await file.identify("k1") is None
    assert await file.identify("k2") == Identity("two", frozenset({"infer", "metrics"}))
    path.write_text("nonsense\n")
    assert await file.identify("k2") is not None
    path.unlink()
    assert await file.identify("k2") is not None


# -- tokens --


KEYS = json.dumps(
    {
        "keys": [
            json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
            | {"kid": "rsa", "alg": "RS256"},
            json.loads(jwt.algorithms.ECAlgorithm.to_jwk(CURVE.public_key())) | {"kid": "ec"},
        ]
    }
).encode()


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(KEYS)
    return path


def create_authenticator(jwks: Path, **settings: Any) -> TokenAuthenticator:
    values = {"issuer": "https://issuer", "audience": "mlserver"} | settings
    return TokenAuthenticator(JWTSettings(jwks=str(jwks), **values))


def token(key: Any = KEY, kid: str | None = "rsa", algorithm: str = "RS256", **claims: Any) -> str:
    payload = {
        "sub": "me",
        "iss": "https://issuer",
        "aud": "mlserver",
        "exp": time.time() + 60,
        "scope": "infer admin x",
    }
    payload = {name: value for name, value in (payload | claims).items() if value is not None}
    return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": kid} if kid else {})


async def test_valid_tokens(jwks: Path) -> None:
    authenticator = create_authenticator(jwks)
    expected = Identity("me", frozenset({"infer", "admin"}))
    valid = token()
    assert await authenticator.identify(valid) == expected
    assert await authenticator.identify(valid) == expected, (
        "the second call is served from the cache"
    )
    assert await authenticator.identify(token(CURVE, "ec", "ES256")) == expected
    listed = await create_authenticator(jwks, scopes_claim="scp").identify(token(scp=["metrics"]))
    assert listed == Identity("me", frozenset({"metrics"}))


PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def sign_with_public_key() -> str:
    """Return an HS256 token signed with the public key, without PyJWT, which refuses to sign it."""
    import base64
    import hashlib
    import hmac

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "kid": "rsa", "typ": "JWT"}).encode())
    payload = {
        "sub": "me",
        "iss": "https://issuer",
        "aud": "mlserver",
        "exp": time.time() + 60,
        "scope": "infer",
    }
    body = head + b"." + part(json.dumps(payload).encode())
    return (body + b"." + part(hmac.new(PUBLIC, body, hashlib.sha256).digest())).decode()


INVALID_TOKENS: dict[str, Any] = {
    "expired": lambda: token(exp=time.time() - 3600),
    "without expiry": lambda: token(exp=None),
    "not yet valid": lambda: token(nbf=time.time() + 3600),
    "other issuer": lambda: token(iss="https://other"),
    "other audience": lambda: token(aud="other"),
    "without audience": lambda: token(aud=None),
    "other key": lambda: token(OTHER),
    "unknown key id": lambda: token(OTHER, "other"),
    "without key id": lambda: token(kid=None),
    "not signed": lambda: token("", "rsa", "none"),
    "signed with the public key": sign_with_public_key,
    "truncated": lambda: token()[:-10],
    "changed": lambda: token().replace(".", ".e", 1),
    "expiry that is text": lambda: token(exp="soon"),
    "expiry that overflows": lambda: token(exp=10**400),
    "three dots": lambda: "...",
    "two dots": lambda: "..",
    "random text": lambda: "a.b.c",
    "long": lambda: "a" * 100_000 + ".b.c",
}


@pytest.mark.parametrize("case", INVALID_TOKENS)
async def test_invalid_tokens(jwks: Path, case: str) -> None:
    try:
        invalid = INVALID_TOKENS[case]()
    except TypeError:
        pytest.skip("this version of PyJWT does not build such a token")
    assert await create_authenticator(jwks).identify(invalid) is None


async def test_cached_tokens_expire(jwks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = create_authenticator(jwks, leeway=0)
    valid = token(exp=time.time() + 60)
    assert await authenticator.identify(valid) is not None
    later = time.time() + 61
    monkeypatch.setattr("mlserver.security.credentials.time.time", lambda: later)
    assert await authenticator.identify(valid) is None


async def test_new_keys_of_the_issuer(jwks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_MIN_JWKS_AGE_SECONDS", 0.0)
    authenticator = create_authenticator(jwks)
    fresh = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER.public_key())) | {"kid": "new"}
    replace(jwks, json.dumps({"keys": [fresh]}))
    assert await authenticator.identify(token(OTHER, "new")) is not None
    assert await authenticator.identify(token()) is None, "the issuer revoked the old key"


async def test_revoked_key(jwks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request after an hour of silence does not use the keys of that time."""
    authenticator = create_authenticator(jwks)
    valid = token()
    assert await authenticator.identify(valid) is not None
    advance(monkeypatch, authenticator, 3600)
    other = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER.public_key())) | {"kid": "new"}
    replace(jwks, json.dumps({"keys": [other]}))
    assert await authenticator.identify(valid) is None
    assert await authenticator.identify(token(OTHER, "new")) is not None


async def test_old_keys_are_not_used_while_the_issuer_fails(
    jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = create_authenticator(jwks)
    valid = token()
    replace(jwks, "{")
    advance(monkeypatch, authenticator, 299)
    assert await authenticator.identify(valid) is not None
    advance(monkeypatch, authenticator, 301)
    for _ in range(2):
        with pytest.raises(Unavailable, match="older than 300 s and could not be fetched"):
            await authenticator.identify(valid)
    replace(jwks, KEYS.decode())
    advance(monkeypatch, authenticator, 320)
    assert await authenticator.identify(valid) is not None


async def test_keys_are_refreshed_before_they_are_too_old(
    jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens are accepted meanwhile: requests wait for a fetch only after silence."""
    authenticator = create_authenticator(jwks)
    valid = token()
    advance(monkeypatch, authenticator, 200)
    assert await authenticator.identify(valid) is not None
    assert authenticator._fetching is not None
    await authenticator._fetching
    advance(monkeypatch, authenticator, 200)
    replace(jwks, "{")
    assert await authenticator.identify(valid) is not None


def advance(
    monkeypatch: pytest.MonkeyPatch, authenticator: TokenAuthenticator, seconds: float
) -> None:
    """Set the clock so many seconds after the last fetch that succeeded."""
    now = authenticator._fetched_at + seconds
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr(credentials, "time", clock)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AA", "kid": "x"}]}']
)
def test_invalid_key_sets(jwks: Path, text: str) -> None:
    replace(jwks, text)
    with pytest.raises(SettingsError, match=r"auth\.jwt\.jwks"):
        create_authenticator(jwks)


def replace(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize("url", ["http://issuer/keys", "file:///etc/keys", "ftp://issuer/keys"])
def test_urls_must_be_https(url: str) -> None:
    with pytest.raises(SettingsError, match="https"):
        TokenAuthenticator(JWTSettings(jwks=url))


@pytest.mark.parametrize("algorithm", ["HS256", "none"])
def test_symmetric_algorithms_are_rejected(algorithm: str) -> None:
    with pytest.raises(ValueError, match="RS256"):
        JWTSettings(jwks="keys.json", algorithms=[algorithm])


# -- an issuer on the network --


class Issuer(socketserver.ThreadingTCPServer):
    """TLS server that answers every request with `response`."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder, "issuer")
        self.trusted = authority.path
        self.response = b""
        self.is_endless = False
        self.request_count = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*authority.issue("keys"))
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"https://127.0.0.1:{self.server_address[1]}/keys"

    def get_request(self) -> tuple[ssl.SSLSocket, Any]:
        plain, address = super().get_request()
        return self._context.wrap_socket(plain, server_side=True), address


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        assert isinstance(self.server, Issuer)
        self.server.request_count += 1
        self.wfile.write(self.server.response)
        with contextlib.suppress(OSError):
            while self.server.is_endless:
                self.wfile.write(b" ")
                time.sleep(0.05)


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    with Issuer(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def build_response(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\ncontent-length: {size}\r\n\r\n".encode() + body


async def test_keys_from_a_url(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are rejected until the issuer's response is a key set."""
    monkeypatch.setattr(credentials, "_MIN_JWKS_AGE_SECONDS", 0.0)
    monkeypatch.setenv("SSL_CERT_FILE", str(issuer.trusted))
    authenticator = TokenAuthenticator(
        JWTSettings(jwks=issuer.url, issuer="https://issuer", audience="mlserver")
    )
    for issuer.response in (
        b"",
        b"nonsense\r\n\r\n",
        build_response(KEYS, "500 No"),
        build_response(b"{"),
        build_response(b"[" * 100_000),
        build_response(KEYS[:-5], length=len(KEYS)),
        b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n",
    ):
        assert await authenticator.identify(token()) is None
    issuer.response = build_response(KEYS)
    assert await authenticator.identify(token()) is not None


async def test_issuer_with_an_untrusted_certificate(issuer: Issuer) -> None:
    issuer.response = build_response(KEYS)
    authenticator = TokenAuthenticator(
        JWTSettings(jwks=issuer.url, issuer="https://issuer", audience="mlserver")
    )
    assert await authenticator.identify(token()) is None


async def test_an_issuer_that_never_ends_its_response(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte restarts the time limit of a read; the limit of the fetch ends it.

    Requests with unknown key ids wait for one fetch, not each for one of its own.
    """
    monkeypatch.setattr(credentials, "_JWKS_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(credentials, "_JWKS_RETRY_SECONDS", 1e9)
    monkeypatch.setattr(credentials, "_MIN_JWKS_AGE_SECONDS", 1e9)
    monkeypatch.setenv("SSL_CERT_FILE", str(issuer.trusted))
    issuer.response, issuer.is_endless = build_response(b"", length=10**6), True
    authenticator = TokenAuthenticator(JWTSettings(jwks=issuer.url))
    async with asyncio.timeout(30):
        assert await asyncio.gather(*map(authenticator.identify, [token()] * 20)) == [None] * 20
        assert authenticator._fetching is not None
        await authenticator._fetching
    assert issuer.request_count <= 1

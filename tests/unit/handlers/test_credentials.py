"""API keys and tokens: who is let in, who is not, and what happens when files change."""

from __future__ import annotations

import asyncio
import json
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mlserver.security import credentials
from mlserver.security.credentials import Identity, KeyFile, Tokens, digest_of, parse_keys
from mlserver.settings import SettingsError
from mlserver.settings.security import JWTSettings
from support.certificates import Authority

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


# -- keys --


@pytest.mark.parametrize(
    "line",
    ["a", "a infer", "a infer 12", f"a root {digest_of('k')}", f"a infer {digest_of('k')} x"],
)
def test_wrong_lines_are_named(line: str) -> None:
    with pytest.raises(SettingsError, match="keys.txt line 2"):
        parse_keys(f"# keys\n{line}\n", "keys.txt")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"auth\.keys"):
        KeyFile(str(tmp_path / "keys.txt"))


async def test_a_changed_file_is_read_and_a_wrong_one_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_LOOK_AGAIN", 0.0)
    path = tmp_path / "keys.txt"
    path.write_text(f"one infer {digest_of('k1')}\n")
    file = KeyFile(str(path))
    assert await file.identify("k1") == Identity("one", frozenset({"infer"}))
    path.write_text(f"two infer,metrics {digest_of('k2')}\n")
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


def tokens(jwks: Path, **settings: Any) -> Tokens:
    given = {"issuer": "https://issuer", "audience": "mlserver"} | settings
    return Tokens(JWTSettings(jwks=str(jwks), **given))


def token(key: Any = KEY, kid: str | None = "rsa", algorithm: str = "RS256", **claims: Any) -> str:
    told = {
        "sub": "me",
        "iss": "https://issuer",
        "aud": "mlserver",
        "exp": time.time() + 60,
        "scope": "infer admin x",
    }
    told = {name: value for name, value in (told | claims).items() if value is not None}
    return jwt.encode(told, key, algorithm=algorithm, headers={"kid": kid} if kid else {})


async def test_a_good_token(jwks: Path) -> None:
    known = tokens(jwks)
    expected = Identity("me", frozenset({"infer", "admin"}))
    given = token()
    assert await known.identify(given) == expected
    assert await known.identify(given) == expected, "the second time, from memory"
    assert await known.identify(token(CURVE, "ec", "ES256")) == expected
    listed = await tokens(jwks, scopes_claim="scp").identify(token(scp=["metrics"]))
    assert listed == Identity("me", frozenset({"metrics"}))


PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def confused() -> str:
    """HS256 with the public key as the secret; put together by hand, for the library refuses to make it."""
    import base64
    import hashlib
    import hmac

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "kid": "rsa", "typ": "JWT"}).encode())
    told = {
        "sub": "me",
        "iss": "https://issuer",
        "aud": "mlserver",
        "exp": time.time() + 60,
        "scope": "infer",
    }
    body = head + b"." + part(json.dumps(told).encode())
    return (body + b"." + part(hmac.new(PUBLIC, body, hashlib.sha256).digest())).decode()


BAD_TOKENS: dict[str, Any] = {
    "expired": lambda: token(exp=time.time() - 3600),
    "without an end": lambda: token(exp=None),
    "not yet valid": lambda: token(nbf=time.time() + 3600),
    "of another issuer": lambda: token(iss="https://other"),
    "for somebody else": lambda: token(aud="other"),
    "for nobody": lambda: token(aud=None),
    "signed by another key": lambda: token(OTHER),
    "of an unknown key": lambda: token(OTHER, "other"),
    "without a key's name": lambda: token(kid=None),
    "not signed": lambda: token("", "rsa", "none"),
    "signed with the public key": confused,
    "cut": lambda: token()[:-10],
    "changed": lambda: token().replace(".", ".e", 1),
    "an end that is text": lambda: token(exp="soon"),
    "an end that no clock reaches": lambda: token(exp=10**400),
    "three dots": lambda: "...",
    "two dots": lambda: "..",
    "noise": lambda: "a.b.c",
    "long": lambda: "a" * 100_000 + ".b.c",
}


@pytest.mark.parametrize("case", BAD_TOKENS)
async def test_bad_tokens(jwks: Path, case: str) -> None:
    try:
        bad = BAD_TOKENS[case]()
    except TypeError:
        pytest.skip("this version of the library does not even make such a token")
    assert await tokens(jwks).identify(bad) is None


async def test_a_remembered_token_ends(jwks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = tokens(jwks, leeway=0)
    given = token(exp=time.time() + 60)
    assert await known.identify(given) is not None
    later = time.time() + 61
    monkeypatch.setattr("mlserver.security.credentials.time.time", lambda: later)
    assert await known.identify(given) is None


async def test_new_keys_of_the_issuer(jwks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_FETCH_AGAIN", 0.0)
    known = tokens(jwks)
    fresh = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER.public_key())) | {"kid": "new"}
    replace(jwks, json.dumps({"keys": [fresh]}))
    assert await known.identify(token(OTHER, "new")) is not None
    assert await known.identify(token()) is None, "the old key was taken back"


async def test_a_key_that_is_taken_back(jwks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody shows a token of a new key, and still the old one is forgotten; a file that is wrong changes nothing."""
    monkeypatch.setattr(credentials, "_FETCH_AGAIN", 0.0)
    monkeypatch.setattr(credentials, "_KEEP", 0.0)
    known = tokens(jwks)
    given = token()
    replace(jwks, "{")
    for _ in range(3):
        assert await known.identify(given) is not None
    other = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER.public_key())) | {"kid": "new"}
    replace(jwks, json.dumps({"keys": [other]}))
    for _ in range(100_000):  # each asks for the keys again, in a thread
        if await known.identify(given) is None:
            return
        await asyncio.sleep(0)
    pytest.fail("the token is still taken")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AA", "kid": "x"}]}']
)
def test_wrong_key_sets(jwks: Path, text: str) -> None:
    replace(jwks, text)
    with pytest.raises(SettingsError, match=r"auth\.jwt\.jwks"):
        tokens(jwks)


def replace(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize("place", ["http://issuer/keys", "file:///etc/keys", "ftp://issuer/keys"])
def test_addresses_are_https(place: str) -> None:
    with pytest.raises(SettingsError, match="https"):
        Tokens(JWTSettings(jwks=place))


@pytest.mark.parametrize("algorithm", ["HS256", "none"])
def test_symmetric_algorithms_cannot_be_allowed(algorithm: str) -> None:
    with pytest.raises(ValueError, match="RS256"):
        JWTSettings(jwks="keys.json", algorithms=[algorithm])


# -- an issuer on the network --


class Issuer(socketserver.ThreadingTCPServer):
    """Answers whatever it is asked over TLS with the bytes that it holds."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder, "issuer")
        self.trusted = authority.path
        self.answer = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*authority.issue("keys"))
        super().__init__(("127.0.0.1", 0), Answering)
        self.url = f"https://127.0.0.1:{self.server_address[1]}/keys"

    def get_request(self) -> tuple[ssl.SSLSocket, Any]:
        plain, address = super().get_request()
        return self._context.wrap_socket(plain, server_side=True), address


class Answering(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        assert isinstance(self.server, Issuer)
        self.wfile.write(self.server.answer)


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    with Issuer(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answered(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    return (
        f"HTTP/1.1 {status}\r\ncontent-length: {len(body) if length is None else length}\r\n\r\n".encode()
        + body
    )


async def test_keys_from_an_address(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the issuer answers, callers get a plain no until it answers with keys."""
    monkeypatch.setattr(credentials, "_FETCH_AGAIN", 0.0)
    monkeypatch.setenv("SSL_CERT_FILE", str(issuer.trusted))
    known = Tokens(JWTSettings(jwks=issuer.url, issuer="https://issuer", audience="mlserver"))
    for issuer.answer in (
        b"",
        b"nonsense\r\n\r\n",
        answered(KEYS, "500 No"),
        answered(b"{"),
        answered(b"[" * 100_000),
        answered(KEYS[:-5], length=len(KEYS)),
        b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n",
    ):
        assert await known.identify(token()) is None
    issuer.answer = answered(KEYS)
    assert await known.identify(token()) is not None


async def test_an_issuer_that_is_not_trusted(issuer: Issuer) -> None:
    issuer.answer = answered(KEYS)
    known = Tokens(JWTSettings(jwks=issuer.url, issuer="https://issuer", audience="mlserver"))
    assert await known.identify(token()) is None

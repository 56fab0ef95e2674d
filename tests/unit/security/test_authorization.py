"""Authorization rules, without a server."""

from __future__ import annotations

import socket

import pytest

from mlserver.errors import MLServerError
from mlserver.security.authorization import ADMIN, INFER, METRICS, OPEN, Authorizer, Caller
from mlserver.security.credentials import hash_key
from mlserver.settings import Settings
from mlserver.settings.security import AdminAccess, AuthSettings

KEYS = {"i": "infer", "a": "admin", "m": "metrics", "all": "infer,admin,metrics"}
LOCAL, REMOTE = "127.0.0.1", "192.0.2.7"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text(
        "# scopes\n" + "".join(f"{key} {scopes} {hash_key(key)}\n" for key, scopes in KEYS.items())
    )
    return str(path)


async def status(access: Authorizer, scope: str, address: str = REMOTE, **headers: str) -> int:
    """Return 200, or the status of the rejection."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        await access.check(scope, Caller(address, sent))
    except MLServerError as error:
        return error.status_code
    return 200


async def test_without_auth_all_scopes_but_admin_are_open() -> None:
    access = Authorizer(Settings())
    assert not access.requires_credentials
    for scope in (OPEN, INFER, METRICS):
        assert await status(access, scope) == 200


@pytest.mark.parametrize(
    "address, headers, expected",
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("192.0.2.7", {}, 403),
        ("", {}, 403),
        ("127.0.0.6", {}, 403),  # a service mesh's proxy on this machine
        ("127.0.0.1", {"x_forwarded_for": "192.0.2.7"}, 403),
        ("127.0.0.1", {"forwarded": "for=192.0.2.7"}, 403),
        ("127.0.0.1", {"via": "1.1 proxy"}, 403),
        (
            "127.0.0.1",
            {"origin": "https://evil.example"},
            403,
        ),  # a page in a local browser
    ],
)
async def test_admin_is_limited_to_local_programs(
    address: str, headers: dict[str, str], expected: int
) -> None:
    assert await status(Authorizer(Settings()), ADMIN, address, **headers) == expected


@pytest.mark.parametrize(
    "rule, local, remote", [("loopback", 200, 403), ("credential", 403, 403), ("any", 200, 200)]
)
async def test_admin_access(rule: str, local: int, remote: int) -> None:
    access = Authorizer(Settings(admin_access=rule))
    assert (await status(access, ADMIN, LOCAL), await status(access, ADMIN, REMOTE)) == (
        local,
        remote,
    )


@pytest.mark.parametrize("rule", ["loopback", "credential", "any", None])
@pytest.mark.parametrize("address", [LOCAL, REMOTE])
async def test_requests_with_a_credential_are_judged_by_it(
    keys: str, rule: AdminAccess | None, address: str
) -> None:
    access = Authorizer(Settings(auth=AuthSettings(keys=keys), admin_access=rule))
    expected = {"a": 200, "i": 403, "m": 403, "wrong": 401}
    assert {
        key: await status(access, ADMIN, address, x_api_key=key) for key in expected
    } == expected


@pytest.mark.parametrize(
    "rule, local, remote",
    [("loopback", 200, 401), ("credential", 401, 401), ("any", 200, 200), (None, 401, 401)],
)
async def test_admin_access_with_auth_and_no_credential(
    keys: str, rule: AdminAccess | None, local: int, remote: int
) -> None:
    access = Authorizer(Settings(auth=AuthSettings(keys=keys), admin_access=rule))
    assert (await status(access, ADMIN, LOCAL), await status(access, ADMIN, REMOTE)) == (
        local,
        remote,
    )


@pytest.mark.parametrize(
    "address, header, text",
    [
        (REMOTE, "", "the server's own machine"),
        (LOCAL, "origin", "web pages"),
        (LOCAL, "via", "through a proxy (header 'via')"),
        (LOCAL, "x-forwarded-for", "through a proxy (header 'x-forwarded-for')"),
    ],
)
async def test_rejection_names_the_reason_and_the_setting(
    address: str, header: str, text: str
) -> None:
    with pytest.raises(MLServerError, match="admin_access") as caught:
        await Authorizer(Settings()).check(ADMIN, Caller(address, {header: "1"} if header else {}))
    assert text in caught.value.message


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scope", [INFER, ADMIN, METRICS])
async def test_keys_have_their_scopes_only(keys: str, key: str, scope: str) -> None:
    access = Authorizer(Settings(auth=AuthSettings(keys=keys)))
    expected = 200 if scope in KEYS[key].split(",") else 403
    assert await status(access, scope, authorization=f"Bearer {key}") == expected
    assert await status(access, scope, x_api_key=key) == expected


async def test_another_scheme_is_no_credential(keys: str) -> None:
    """A proxy may check a password of its own, in the same header."""
    access = Authorizer(Settings(auth=AuthSettings(keys=keys)))
    assert access.requires_credentials is True
    for other in ("Basic aTppCg==", "Basic i", "Bearer ", "Bearer", "i"):
        assert await status(access, INFER, authorization=other) == 401
        assert await status(access, INFER, authorization=other, x_api_key="i") == 200
        assert await status(access, ADMIN, authorization=other, x_api_key="i") == 403
    assert await status(access, INFER, authorization="Bearer wrong", x_api_key="i") == 401


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Basic aTppCg=="}, {"authorization": "Bearer "}]
)
async def test_no_credential(keys: str, headers: dict[str, str]) -> None:
    access = Authorizer(Settings(auth=AuthSettings(keys=keys)))
    assert [await status(access, scope, **headers) for scope in (OPEN, INFER, METRICS, ADMIN)] == [
        200,
        401,
        401,
        401,
    ]
    assert await status(access, ADMIN, LOCAL, **headers) == 401


@pytest.mark.parametrize(
    "key", ["wrong", "I", "i ", "i\0", "é", "i" * 100_000, hash_key("i"), "a.b.c"]
)
async def test_unknown_keys(keys: str, key: str) -> None:
    access = Authorizer(Settings(auth=AuthSettings(keys=keys)))
    assert [
        await status(access, scope, x_api_key=key) for scope in (OPEN, INFER, METRICS, ADMIN)
    ] == [
        200,
        401,
        401,
        401,
    ]
    assert await status(access, ADMIN, LOCAL, x_api_key=key) == 401


async def test_admin_port(keys: str) -> None:
    settings = Settings(auth=AuthSettings(keys=keys), admin_port=1)
    assert await status(Authorizer(settings), ADMIN, x_api_key="a") == 403
    assert await status(Authorizer(settings, is_admin_address=True), ADMIN, x_api_key="a") == 200
    assert await status(Authorizer(settings, is_admin_address=True), ADMIN) == 401
    settings = Settings(admin_port=1)
    assert await status(Authorizer(settings, is_admin_address=True), ADMIN) == 200
    settings = Settings(admin_port=1, admin_access="credential")
    assert await status(Authorizer(settings, is_admin_address=True), ADMIN, LOCAL) == 403


@pytest.mark.parametrize(
    "host, foreign",
    [
        ("evil.example.com", "evil.example.com"),
        ("Evil.Example.com:8080", "evil.example.com"),
        ("localhost:8080", None),
        ("console.localhost", None),
        ("localhost.localdomain", None),
        ("127.0.0.1:8080", None),
        ("[::1]:8080", None),
        ("[::1]", None),
        ("myhost:8080", None),
        ("", None),
        (socket.gethostname(), None),
    ],
)
def test_a_public_name_for_this_machine_is_foreign(host: str, foreign: str | None) -> None:
    """A page of another site may reach this machine by such a name (DNS rebinding)."""
    caller = Caller("127.0.0.1", {"host": host})
    assert caller.foreign_host == foreign
    assert caller.is_local == (foreign is None)

"""The rules of who may do what, without a server."""

from __future__ import annotations

import pytest

from mlserver.errors import MLServerError
from mlserver.security.authorization import ADMIN, INFER, METRICS, OPEN, Authorizer, Caller
from mlserver.security.credentials import digest_of
from mlserver.settings import Settings
from mlserver.settings.security import AdminAccess, AuthSettings

KEYS = {"i": "infer", "a": "admin", "m": "metrics", "all": "infer,admin,metrics"}
LOCAL, REMOTE = "127.0.0.1", "192.0.2.7"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text(
        "# who may what\n"
        + "".join(f"{key} {scopes} {digest_of(key)}\n" for key, scopes in KEYS.items())
    )
    return str(path)


async def status(access: Authorizer, scope: str, address: str = REMOTE, **headers: str) -> int:
    """200, or the status of the refusal."""
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        await access.check(scope, Caller(address, shown))
    except MLServerError as error:
        return error.status_code
    return 200


async def test_without_auth_all_but_administration_is_open() -> None:
    access = Authorizer(Settings())
    assert not access.asks_everybody
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
        ("127.0.0.6", {}, 403),  # what a mesh's proxy on this machine shows as the caller
        ("127.0.0.1", {"x_forwarded_for": "192.0.2.7"}, 403),
        ("127.0.0.1", {"forwarded": "for=192.0.2.7"}, 403),
        ("127.0.0.1", {"via": "1.1 proxy"}, 403),
        (
            "127.0.0.1",
            {"origin": "https://evil.example"},
            403,
        ),  # a page in a browser on this machine
    ],
)
async def test_administration_is_for_programs_on_this_machine(
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
async def test_a_shown_credential_decides(
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
async def test_the_refusal_says_why_and_names_the_setting(
    address: str, header: str, text: str
) -> None:
    with pytest.raises(MLServerError, match="admin_access") as caught:
        await Authorizer(Settings()).check(ADMIN, Caller(address, {header: "1"} if header else {}))
    assert text in caught.value.message


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scope", [INFER, ADMIN, METRICS])
async def test_a_key_opens_its_scopes_and_no_other(keys: str, key: str, scope: str) -> None:
    access = Authorizer(Settings(auth=AuthSettings(keys=keys)))
    expected = 200 if scope in KEYS[key].split(",") else 403
    assert await status(access, scope, authorization=f"Bearer {key}") == expected
    assert await status(access, scope, x_api_key=key) == expected


@pytest.mark.parametrize(
    "shown", [{}, {"authorization": "Basic aTppCg=="}, {"authorization": "Bearer "}]
)
async def test_no_credential(keys: str, shown: dict[str, str]) -> None:
    access = Authorizer(Settings(auth=AuthSettings(keys=keys)))
    assert [await status(access, scope, **shown) for scope in (OPEN, INFER, METRICS, ADMIN)] == [
        200,
        401,
        401,
        401,
    ]
    assert await status(access, ADMIN, LOCAL, **shown) == 401


@pytest.mark.parametrize(
    "key", ["wrong", "I", "i ", "i\0", "é", "i" * 100_000, digest_of("i"), "a.b.c"]
)
async def test_a_wrong_key(keys: str, key: str) -> None:
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


async def test_an_address_for_administration(keys: str) -> None:
    settings = Settings(auth=AuthSettings(keys=keys), admin_port=1)
    assert await status(Authorizer(settings), ADMIN, x_api_key="a") == 403
    assert await status(Authorizer(settings, admin_address=True), ADMIN, x_api_key="a") == 200
    assert await status(Authorizer(settings, admin_address=True), ADMIN) == 401
    settings = Settings(admin_port=1)
    assert await status(Authorizer(settings, admin_address=True), ADMIN) == 200
    settings = Settings(admin_port=1, admin_access="credential")
    assert await status(Authorizer(settings, admin_address=True), ADMIN, LOCAL) == 403

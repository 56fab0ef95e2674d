"""The directory of a Ray cluster: leases of replicas and servers, current applications."""

from __future__ import annotations

import pytest

from mlserver.parallel.ray.directory import (
    LOAD_LEASE,
    PENDING_LEASE,
    REPLICA_LEASE,
    SERVER_LEASE,
    Directory,
)
from support.virtual_time import Clock

WINE = "wine\0"
DETAILS = {"info": {"ready": True}, "source": None}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(clock: Clock) -> Directory:
    return Directory("secret", clock)


def load(directory: Directory, digest: str = "d1", is_new: bool = False) -> str:
    """Begin and commit a load; return the application."""
    answer = directory.begin(WINE, digest, b"settings", f"mlserver/s/wine/-/{digest}", is_new)
    application: str = answer["application"]
    directory.commit(WINE, application, digest, b"settings")
    return application


def test_the_first_load_deploys_and_an_equal_one_adopts(directory: Directory) -> None:
    first = directory.begin(WINE, "d1", b"settings", "mlserver/s/wine/-/d1", False)
    assert first == {"application": "mlserver/s/wine/-/d1~1", "is_new": True}
    directory.commit(WINE, first["application"], "d1", b"settings")
    again = directory.begin(WINE, "d1", b"settings", "mlserver/s/wine/-/d1", False)
    assert again == {"application": first["application"], "is_new": False}


def test_a_reload_and_other_settings_deploy_beside(directory: Directory) -> None:
    first = load(directory)
    assert load(directory, is_new=True) != first
    assert load(directory, digest="d2") == "mlserver/s/wine/-/d2~1"


def test_a_server_that_loads_at_the_same_time_uses_the_pending_application(
    directory: Directory, clock: Clock
) -> None:
    first = directory.begin(WINE, "d1", b"", "p/d1", False)
    assert not directory.begin(WINE, "d1", b"", "p/d1", False)["is_new"]
    clock.now += PENDING_LEASE + 1
    later = directory.begin(WINE, "d1", b"", "p/d1", False)
    assert later["is_new"]
    assert later["application"] != first["application"]


def test_replicas_expire_unless_renewed(directory: Directory, clock: Clock) -> None:
    application = load(directory)
    assert directory.register(application, "r1", ("10.0.0.1", 4000))  # details are missing
    assert not directory.register(application, "r1", ("10.0.0.1", 4000), DETAILS)
    state = directory.poll("server", [application])["applications"][application]
    assert state == {
        "replicas": {"r1": ["10.0.0.1", 4000]},
        "details": DETAILS,
        "error": None,
        "missing": [],
    }
    clock.now += REPLICA_LEASE + 1
    state = directory.poll("server", [application])["applications"][application]
    assert state["replicas"] == {}
    assert state["details"] == DETAILS  # a model without a replica keeps its metadata


def test_one_replica_loads_first_and_its_error_passes_the_turn(
    directory: Directory, clock: Clock
) -> None:
    assert directory.claim_load("app", "r1") == {"may_load": True, "details": None}
    assert not directory.claim_load("app", "r2")["may_load"]
    assert directory.claim_load("app", "r1")["may_load"]  # renews
    directory.report_error("app", "r1", {"message": "no file"})
    assert directory.claim_load("app", "r2")["may_load"]
    clock.now += LOAD_LEASE + 1  # r2 died
    assert directory.claim_load("app", "r3")["may_load"]
    directory.register("app", "r3", ("h", 1), DETAILS)
    assert directory.claim_load("app", "r4") == {"may_load": True, "details": DETAILS}


def test_the_last_server_deletes(directory: Directory, clock: Clock) -> None:
    application = load(directory)
    directory.poll("a", [application])
    directory.poll("b", [application])
    assert directory.is_shared("a", application)
    assert not directory.release("a", application)  # b uses it
    assert not directory.release("b", application)  # it is the model's current one
    directory.drop(WINE, application)
    assert directory.release("b", application)


def test_a_server_that_was_killed_is_no_user_after_its_lease(
    directory: Directory, clock: Clock
) -> None:
    application = load(directory)
    directory.poll("killed", [application])
    clock.now += SERVER_LEASE + 1
    assert not directory.is_shared("a", application)
    assert directory.list_unused([application]) == []  # its next start adopts the current one
    directory.drop(WINE, application)
    assert directory.list_unused([application]) == [application]


def test_drop_keeps_a_newer_application(directory: Directory) -> None:
    first, second = load(directory), load(directory, is_new=True)
    directory.drop(WINE, first)
    assert directory.poll("a", [])["models"] == {WINE: [second, b"settings"]}


def test_a_restarted_directory_is_restored_and_has_another_epoch(clock: Clock) -> None:
    before, after = Directory("s", clock), Directory("s", clock)
    assert before.poll("a", [])["epoch"] != after.poll("a", [])["epoch"]
    after.restore({WINE: ("app", "d1", b"settings")})
    assert after.poll("a", [])["models"] == {WINE: ["app", b"settings"]}
    assert not after.begin(WINE, "d1", b"settings", "p", False)["is_new"]


def test_an_adoption_takes_no_newer_applications_place(directory: Directory) -> None:
    """A server that adopts slowly commits after another one has reloaded the model."""
    first = load(directory)
    second = load(directory, is_new=True)
    directory.commit(WINE, first, "d1", b"settings", False)
    assert directory.poll("a", [])["models"] == {WINE: [second, b"settings"]}


def test_an_adopted_application_that_is_pending_becomes_the_current_one(
    directory: Directory,
) -> None:
    load(directory)
    pending = directory.begin(WINE, "d2", b"settings", "p/d2", False)["application"]
    directory.commit(WINE, pending, "d2", b"settings", False)
    assert directory.poll("a", [])["models"] == {WINE: [pending, b"settings"]}


def test_an_abandoned_load_is_pending_no_more_and_a_committed_one_stays(
    directory: Directory,
) -> None:
    current = load(directory)
    pending = directory.begin(WINE, "d1", b"settings", "p/d1", True)["application"]
    directory.abandon(pending)
    directory.abandon(current)
    assert directory.poll("a", [])["models"] == {WINE: [current, b"settings"]}
    assert directory.release("a", pending)

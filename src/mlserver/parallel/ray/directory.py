"""The directory of a server's applications in a Ray cluster: a detached actor without I/O.

It lists the addresses of replicas, the current application of each model, and the servers that use
an application. Replicas and servers renew their entries; an entry that is not renewed expires.
After a restart of the actor, they add their entries again.

Only the standard library is imported, because the actor may run on a node without this package's
dependencies.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Seconds after which an entry expires that is not renewed.
REPLICA_LEASE = 10.0
SERVER_LEASE = 15.0
# Seconds after which a first replica's claim to load expires, so that another replica may load.
LOAD_LEASE = 10.0
# Seconds after which a deployment that was begun and not committed counts as abandoned, unless its
# server is alive.
PENDING_LEASE = 60.0


@dataclass
class Application:
    """State of one Serve application.

    Attributes:
        replicas: Replica -> its host, port and expiry.
        servers: Server -> expiry of its use.
        details: Report of the first replica: the model's info, its resolved address.
        error: The error of the last load that failed, as plain values; None = none.
        loader: The replica that loads first, and the expiry of its claim.
        packages: Digests of files that its replicas have requested.
    """

    replicas: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    servers: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    loader: tuple[str, float] | None = None
    packages: set[str] = field(default_factory=set)


@dataclass
class Package:
    """A model's files for nodes that do not have them.

    Attributes:
        parts: The parts that have arrived, by their numbers.
        count: Number of all parts; None = some are missing.
        error: Why no server sends them; None = one may.
        is_awaited: Whether a replica waits for them.
    """

    parts: dict[int, bytes] = field(default_factory=dict)
    count: int | None = None
    error: str | None = None
    is_awaited: bool = False


@dataclass(frozen=True)
class CurrentApplication:
    """The application that serves a model, with the digest and the frame of its settings."""

    application: str
    digest: str
    settings: bytes


class Directory:
    """Applications, replicas and servers.

    Args:
        secret: Shared secret of servers and replicas (`handshake`).
        clock: Monotonic seconds.
    """

    def __init__(self, secret: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._secret = secret
        self._clock = clock
        self._epoch = uuid.uuid4().hex
        self._applications: dict[str, Application] = {}
        self._current: dict[str, CurrentApplication] = {}
        self._pending: dict[str, tuple[CurrentApplication, float]] = {}
        self._packages: dict[str, Package] = {}

    def get_secret(self) -> str:
        return self._secret

    # -- calls of replicas --

    def claim_load(self, application: str, replica: str) -> dict[str, Any]:
        """Return whether a replica may load now, and the details of the first replica.

        One replica of an application loads before the others, which load the version of a mutable
        address that it has resolved.
        """
        entry, now = self._get(application), self._clock()
        is_free = entry.loader is None or entry.loader[1] < now or entry.loader[0] == replica
        may_load = entry.details is not None or is_free
        if entry.details is None and is_free:
            entry.loader = (replica, now + LOAD_LEASE)
        return {"may_load": may_load, "details": entry.details}

    def register(
        self, application: str, replica: str, address: tuple[str, int], details: Any = None
    ) -> bool:
        """Add or renew a replica; return whether the application's details are missing."""
        entry = self._get(application)
        entry.replicas[replica] = (*address, self._clock() + REPLICA_LEASE)
        if details is not None and entry.details is None:
            entry.details = details
        entry.error, entry.loader = None, None
        return entry.details is None

    def deregister(self, application: str, replica: str) -> None:
        if application in self._applications:
            self._applications[application].replicas.pop(replica, None)

    def report_error(self, application: str, replica: str, error: dict[str, Any]) -> None:
        """Record why a replica could not load the model."""
        entry = self._get(application)
        entry.error, entry.loader = error, None

    def request_files(self, application: str, digest: str) -> dict[str, Any]:
        """Return the number of parts of a package, None = not here yet, and why it will not be.

        An error is returned once: the next request makes the servers try again.
        """
        self._get(application).packages.add(digest)
        package = self._packages.setdefault(digest, Package())
        answer = {"parts": package.count, "error": package.error}
        package.is_awaited = package.count is None and package.error is None
        package.error = None
        return answer

    def read_part(self, digest: str, number: int) -> bytes:
        return self._packages[digest].parts[number]

    # -- calls of servers --

    def store_part(self, digest: str, number: int, content: bytes) -> None:
        """Add a part of a package; parts of all servers are equal."""
        self._packages.setdefault(digest, Package()).parts[number] = content

    def complete_files(self, digest: str, count: int) -> bool:
        """Offer a package to replicas; return whether all parts are here."""
        package = self._packages.setdefault(digest, Package())
        is_complete = all(number in package.parts for number in range(count))
        package.count = count if is_complete else None
        package.is_awaited = not is_complete
        return is_complete

    def refuse_files(self, digest: str, error: str) -> None:
        """Record why this server does not send a package."""
        self._packages.setdefault(digest, Package()).error = error

    def begin(self, model: str, digest: str, settings: bytes, prefix: str, is_new: bool) -> Any:
        """Return the application for a model, and whether the caller has to deploy it.

        Args:
            prefix: First part of the name of a new application.
            is_new: Whether an application with equal settings is not adopted.
        """
        if not is_new:
            current = self._current.get(model)
            if current is not None and current.digest == digest:
                return {"application": current.application, "is_new": False}
            pending = self._pending.get(model)
            if pending is not None and pending[0].digest == digest and pending[1] > self._clock():
                return {"application": pending[0].application, "is_new": False}
        number = 1
        while f"{prefix}~{number}" in self._applications:
            number += 1
        application = f"{prefix}~{number}"
        self._get(application)
        entry = CurrentApplication(application, digest, settings)
        self._pending[model] = (entry, self._clock() + PENDING_LEASE)
        return {"application": application, "is_new": True}

    def commit(
        self, model: str, application: str, digest: str, settings: bytes, is_new: bool = True
    ) -> None:
        """Make an application the current one of a model.

        Args:
            is_new: Whether the caller has deployed it. Adopted, it takes no newer one's place.
        """
        current = self._current.get(model)
        is_pending = self._discard_pending(application)
        if is_new or is_pending or current is None or current.application == application:
            self._current[model] = CurrentApplication(application, digest, settings)

    def abandon(self, application: str) -> None:
        """End a load that its server has begun and not committed; a current application stays."""
        self._discard_pending(application)

    def drop(self, model: str, application: str) -> None:
        """Remove a model, unless another application is its current one."""
        current = self._current.get(model)
        if current is not None and current.application == application:
            del self._current[model]
        self._discard_pending(application)

    def release(self, server: str, application: str) -> bool:
        """End a server's use; return whether no server uses, serves or deploys the application."""
        entry = self._get(application)
        entry.servers.pop(server, None)
        is_used = any(expiry > self._clock() for expiry in entry.servers.values())
        return not is_used and application not in self._list_needed()

    def is_shared(self, server: str, application: str) -> bool:
        """Return whether other servers use an application."""
        now = self._clock()
        servers = self._get(application).servers.items()
        return any(name != server and expiry > now for name, expiry in servers)

    def forget(self, application: str) -> None:
        """Remove a deleted application, and the packages that no other one has requested."""
        self._applications.pop(application, None)
        needed = {digest for entry in self._applications.values() for digest in entry.packages}
        self._packages = {
            digest: package for digest, package in self._packages.items() if digest in needed
        }

    def poll(self, server: str, used: Iterable[str]) -> dict[str, Any]:
        """Renew a server's use of applications; return their state and the current models."""
        now = self._clock()
        applications: dict[str, Any] = {}
        for name in used:
            entry = self._get(name)
            entry.servers[server] = now + SERVER_LEASE
            self._expire(entry, now)
            replicas = {key: list(value[:2]) for key, value in entry.replicas.items()}
            applications[name] = {
                "replicas": replicas,
                "details": entry.details,
                "error": entry.error,
                "missing": [digest for digest in entry.packages if self._is_missing(digest)],
            }
        models = {
            model: [current.application, current.settings]
            for model, current in self._current.items()
        }
        return {"epoch": self._epoch, "applications": applications, "models": models}

    def restore(self, models: Mapping[str, tuple[str, str, bytes]]) -> None:
        """Add a server's models after a restart of the directory, unless they have entries."""
        for model, (application, digest, settings) in models.items():
            self._current.setdefault(model, CurrentApplication(application, digest, settings))

    def list_unused(self, names: Iterable[str]) -> list[str]:
        """Return those applications that no server uses, serves or deploys."""
        now, needed = self._clock(), self._list_needed()
        unused = []
        for name in names:
            servers = self._get(name).servers
            if name not in needed and not any(expiry > now for expiry in servers.values()):
                unused.append(name)
        return unused

    # -- internals --

    def _get(self, application: str) -> Application:
        return self._applications.setdefault(application, Application())

    def _list_needed(self) -> set[str]:
        now = self._clock()
        pending = {entry.application for entry, expiry in self._pending.values() if expiry > now}
        return pending | {current.application for current in self._current.values()}

    def _is_missing(self, digest: str) -> bool:
        package = self._packages.get(digest)
        return package is not None and package.is_awaited and package.error is None

    def _discard_pending(self, application: str) -> bool:
        """Remove the pending entry of an application; return whether there was one."""
        for model, (entry, _) in list(self._pending.items()):
            if entry.application == application:
                del self._pending[model]
                return True
        return False

    def _expire(self, entry: Application, now: float) -> None:
        for key, (_, _, expiry) in list(entry.replicas.items()):
            if expiry < now:
                del entry.replicas[key]

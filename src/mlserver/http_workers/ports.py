"""Ports that the server's process and its HTTP workers share."""

from __future__ import annotations

import socket
import sys

from ..settings import Settings, SettingsError


def check_support(settings: Settings) -> None:
    """Raise `SettingsError` if several processes cannot share ports and models."""
    if sys.platform != "linux":
        raise SettingsError(
            "http_workers: expected 1 on this system; more need Linux, where processes share a port"
        )
    if settings.parallel_workers <= 0:
        raise SettingsError(
            "http_workers: expected 1 with parallel_workers of 0; set parallel_workers to 1 or more"
        )


def reserve_ports(settings: Settings) -> Settings:
    """Return the settings with free ports in place of port 0.

    Shared ports (SO_REUSEPORT) would also be shared with another server, so each port is bound
    once without that option. It does not listen: closing it would reset connections of clients.

    Raises:
        MLServerError: a port is in use; the message names it and its setting.
    """
    from ..sockets import bind

    hosts = {
        "http_port": settings.host,
        "grpc_port": settings.host,
        "admin_port": settings.admin_host,
    }
    sockets: dict[str, socket.socket] = {}
    try:
        for field, host in hosts.items():
            port = getattr(settings, field)
            if port is not None:
                sockets[field] = bind(host, port, field, listens=False)
        ports = {field: bound.getsockname()[1] for field, bound in sockets.items()}
        return settings.model_copy(update=ports)
    finally:
        for bound in sockets.values():
            bound.close()

"""Ports that the server's process and its HTTP workers share."""

from __future__ import annotations

import socket

from ..settings import Settings


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

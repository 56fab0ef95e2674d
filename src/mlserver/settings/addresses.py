"""Addresses to listen on, as clients on the same machine use them."""

from __future__ import annotations

_WILDCARDS = ("", "0.0.0.0", "::")


def get_client_host(host: str) -> str:
    """Return the host that a client on this machine connects to, for an address to listen on."""
    return "localhost" if host in _WILDCARDS else host

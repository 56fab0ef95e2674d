"""Mutual authentication of both ends of a connection by the directory's secret.

It precedes all frames:

    replica -> server   magic, nonce of 32 bytes
    server  -> replica  nonce of 32 bytes, HMAC-SHA256 over both nonces
    replica -> server   HMAC-SHA256 over both nonces, in the other order

The messages have fixed sizes, so that a peer without the secret can make neither end allocate
memory. The frames are not encrypted (docs/explanation/threat-model.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import socket

MAGIC = b"mlserv-1"
TIMEOUT = 5.0
_NONCE = 32
_DIGEST = 32


class HandshakeError(ConnectionError):
    """The peer does not have the secret, or uses another protocol."""


async def prove_server(end: socket.socket, secret: bytes) -> None:
    """Run the server's part on a connected socket.

    Raises:
        OSError: the peer has disconnected, does not answer in time, or does not have the secret.
    """
    async with asyncio.timeout(TIMEOUT):
        greeting = await _receive(end, len(MAGIC) + _NONCE)
        if greeting[: len(MAGIC)] != MAGIC:
            raise HandshakeError("it is no replica of this version")
        theirs, own = greeting[len(MAGIC) :], os.urandom(_NONCE)
        await _send(end, own + _sign(secret, b"server", theirs, own))
        _verify(await _receive(end, _DIGEST), secret, b"replica", own, theirs)


async def prove_replica(end: socket.socket, secret: bytes) -> None:
    """Run the replica's part. Raises as `prove_server` does."""
    async with asyncio.timeout(TIMEOUT):
        own = os.urandom(_NONCE)
        await _send(end, MAGIC + own)
        answer = await _receive(end, _NONCE + _DIGEST)
        theirs = answer[:_NONCE]
        _verify(answer[_NONCE:], secret, b"server", own, theirs)
        await _send(end, _sign(secret, b"replica", theirs, own))


def _sign(secret: bytes, role: bytes, first: bytes, second: bytes) -> bytes:
    return hmac.new(secret, role + first + second, hashlib.sha256).digest()


def _verify(digest: bytes, secret: bytes, role: bytes, first: bytes, second: bytes) -> None:
    if not hmac.compare_digest(digest, _sign(secret, role, first, second)):
        raise HandshakeError("it does not know the secret of this cluster's directory")


async def _send(end: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(end, data)


async def _receive(end: socket.socket, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size:
        part = await loop.sock_recv(end, size - len(data))
        if not part:
            raise HandshakeError("it has closed the connection")
        data += part
    return data

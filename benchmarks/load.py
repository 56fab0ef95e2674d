"""Load generators: wrk for the closed loop, wrk with due times for the open loop, h2load for gRPC.

wrk serves the open loop too: it is in Debian, and a Lua script gives it due times
(scripts/open.lua), so that both loops use the same light client. A generator in Python would use as
much CPU as the server; wrk2 is not packaged; tools that correct latencies afterwards estimate what
this one measures.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import grpc

from .cases import Exchange

SCRIPTS = Path(__file__).parent / "scripts"
OPEN_CONNECTIONS = 64
EXTRA_LIMIT = 30.0  # seconds that a load tool may exceed its duration


class LoadFailed(Exception):
    """The load tool returned no result; the text is the reason."""


@dataclass(frozen=True)
class Load:
    """Result of a load: requests, requests per second, and latencies in milliseconds."""

    requests: int
    per_second: float
    errors: int
    p50: float
    p99: float
    p999: float


@dataclass(frozen=True)
class Target:
    """Port of a server and the request for it, with its body in a file."""

    exchange: Exchange
    port: int
    body: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def missing_tools() -> dict[str, str]:
    """Return the missing tools with their Debian packages."""
    packages = {"wrk": "wrk", "h2load": "nghttp2-client"}
    return {
        tool: f"Debian package {package}"
        for tool, package in packages.items()
        if shutil.which(tool) is None
    }


def closed(target: Target, connections: int, seconds: int) -> Load:
    """Run a closed loop: each connection sends a request when it has the previous response."""
    if target.exchange.grpc:
        return _h2load(target, connections, seconds)
    script = "cycle.lua" if len(target.exchange.paths) > 1 else "closed.lua"
    return _wrk(target, script, 1, connections, seconds, [])


def opened(target: Target, rate: float, seconds: int) -> Load:
    """Run an open loop of `rate` requests per second: due times are independent of responses."""
    connections = max(1, min(OPEN_CONNECTIONS, math.floor(rate / 2)))
    return _wrk(
        target, "open.lua", connections, connections, seconds, [f"{rate / connections:.6f}"]
    )


def _wrk(
    target: Target, script: str, threads: int, connections: int, seconds: int, first: list[str]
) -> Load:
    exchange = target.exchange
    headers = [f"{name}: {value}" for name, value in exchange.headers.items()]
    options = [
        f"-t{threads}",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "20s",
        "-s",
        str(SCRIPTS / script),
    ]
    arguments = [*first, str(target.body), str(len(headers)), *headers, *exchange.paths]
    output = _run(["wrk", *options, target.url, "--", *arguments], seconds)
    words = next((line.split() for line in output.splitlines() if line.startswith("RESULT")), None)
    if words is None:
        raise LoadFailed(output[-300:])
    requests, duration, errors, *latencies = (float(word) for word in words[1:])
    if not requests:
        raise LoadFailed(f"no response within {seconds} s on {connections} connections")
    p50, p99, p999 = (latency / 1000 for latency in latencies)
    return Load(int(requests), requests / duration, int(errors), p50, p99, p999)


def _h2load(target: Target, connections: int, seconds: int) -> Load:
    """Run h2load; percentiles are computed from its log of status and microseconds per request."""
    message = target.exchange.body
    target.body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    log = target.body.with_suffix(".log")
    log.unlink(missing_ok=True)
    options = [
        f"-c{connections}",
        "-m1",
        "-t1",
        f"-D{seconds}",
        f"--log-file={log}",
        "-d",
        str(target.body),
    ]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    output = _run(["h2load", *options, *headers, target.url + target.exchange.paths[0]], seconds)
    if not log.exists():
        raise LoadFailed(output[-300:])
    rows = [line.split() for line in log.read_text().splitlines()]
    good = sorted(int(row[2]) / 1000 for row in rows if row[1] == "200")
    if not good:
        raise LoadFailed("no request succeeded")
    p50, p99, p999 = (
        good[max(0, math.ceil(len(good) * share) - 1)] for share in (0.5, 0.99, 0.999)
    )
    return Load(len(good), len(good) / seconds, len(rows) - len(good), p50, p99, p999)


def send(target: Target, timeout: float) -> bytes:
    """Send one request; return the body of the response.

    Raises:
        LoadFailed: no response, or an error response.
    """
    return _send_grpc(target, timeout) if target.exchange.grpc else _send_http(target, timeout)


def _send_http(target: Target, timeout: float) -> bytes:
    exchange = target.exchange
    request = urllib.request.Request(
        target.url + exchange.paths[-1], exchange.body, exchange.headers
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            content: bytes = response.read()
    except urllib.error.HTTPError as error:
        raise LoadFailed(f"{error.code}: {error.read(300).decode(errors='replace')}") from None
    except OSError as error:
        raise LoadFailed(str(error)) from None
    return content


def _send_grpc(target: Target, timeout: float) -> bytes:
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{target.port}", options=limits) as channel:
        call = channel.unary_unary(target.exchange.paths[0])
        try:
            content: bytes = call(target.exchange.body, timeout=timeout)
        except grpc.RpcError as error:
            raise LoadFailed(f"{error.code().name}: {error.details()}") from None
    return content


def _run(command: list[str], seconds: int) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + EXTRA_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"{command[0]} did not finish in time") from None
    if done.returncode:
        raise LoadFailed((done.stderr or done.stdout)[-300:])
    return done.stdout + done.stderr


def describe_tools() -> dict[str, str]:
    """Return the versions of the load tools."""
    versions = {}
    for tool in filter(shutil.which, ("wrk", "h2load")):
        done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
        versions[tool] = (done.stdout + done.stderr).split()[1]
    return versions

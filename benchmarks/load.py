"""Load: wrk for the closed loop, wrk with due times for the open loop, h2load for gRPC. One measurement per call.

Why wrk for the open loop too: it is in Debian, and its Lua gives it due times (scripts/open.lua), so that both loops come from
the same light client. A generator in Python would take as much of the cores as the server; wrk2 is not packaged; tools that add
corrections afterwards guess what this one measures.
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
EXTRA_LIMIT = 30.0  # seconds beyond its duration that a load tool may take


class LoadFailed(Exception):
    """The load tool did not give a result; the text is the reason."""


@dataclass(frozen=True)
class Load:
    """What a client saw: requests, requests per second, and latencies in milliseconds."""

    requests: int
    per_second: float
    errors: int
    p50: float
    p99: float
    p999: float


@dataclass(frozen=True)
class Target:
    """One server's address and one exchange with it, its body in a file."""

    exchange: Exchange
    port: int
    body: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def missing_tools() -> dict[str, str]:
    """The tools that are not installed, with what gives them."""
    packages = {"wrk": "wrk", "h2load": "nghttp2-client"}
    return {
        tool: f"Debian package {package}"
        for tool, package in packages.items()
        if shutil.which(tool) is None
    }


def closed(target: Target, connections: int, seconds: int) -> Load:
    """Closed loop: each connection asks again when it has its answer."""
    if target.exchange.grpc:
        return _h2load(target, connections, seconds)
    script = "cycle.lua" if len(target.exchange.paths) > 1 else "closed.lua"
    return _wrk(target, script, 1, connections, seconds, [])


def opened(target: Target, rate: float, seconds: int) -> Load:
    """Open loop at `rate` requests per second: due times do not wait for answers."""
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
        raise LoadFailed(f"no answer within {seconds} s on {connections} connections")
    p50, p99, p999 = (latency / 1000 for latency in latencies)
    return Load(int(requests), requests / duration, int(errors), p50, p99, p999)


def _h2load(target: Target, connections: int, seconds: int) -> Load:
    """h2load has no percentiles; its log names each request's status and microseconds."""
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


def ask(target: Target, timeout: float) -> bytes:
    """One request; the answer's body.

    Raises:
        LoadFailed: No answer, or one that is an error.
    """
    return _ask_grpc(target, timeout) if target.exchange.grpc else _ask_http(target, timeout)


def _ask_http(target: Target, timeout: float) -> bytes:
    exchange = target.exchange
    request = urllib.request.Request(
        target.url + exchange.paths[-1], exchange.body, exchange.headers
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            answer: bytes = response.read()
    except urllib.error.HTTPError as error:
        raise LoadFailed(f"{error.code}: {error.read(300).decode(errors='replace')}") from None
    except OSError as error:
        raise LoadFailed(str(error)) from None
    return answer


def _ask_grpc(target: Target, timeout: float) -> bytes:
    limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{target.port}", options=limits) as channel:
        call = channel.unary_unary(target.exchange.paths[0])
        try:
            answer: bytes = call(target.exchange.body, timeout=timeout)
        except grpc.RpcError as error:
            raise LoadFailed(f"{error.code().name}: {error.details()}") from None
    return answer


def _run(command: list[str], seconds: int) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + EXTRA_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"{command[0]} did not end") from None
    if done.returncode:
        raise LoadFailed((done.stderr or done.stdout)[-300:])
    return done.stdout + done.stderr


def describe_tools() -> dict[str, str]:
    """Tool: its version."""
    found = {}
    for tool in filter(shutil.which, ("wrk", "h2load")):
        done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
        found[tool] = (done.stdout + done.stderr).split()[1]
    return found

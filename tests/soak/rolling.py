"""Rolling restarts under load, as in Kubernetes: `python -m soak.rolling TIMES` from `tests`.

Two servers ("pods") are behind one address per protocol. For each pod in turn: SIGTERM, and the
balancer still sends new connections to it for `ENDPOINT_LAG` seconds, as kube-proxy does until it
has received the deletion. A replacement gets connections once its readiness probe has succeeded.
Clients never retry. Exit code 1: a request was lost, or its response was not 200 or OK.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.raw_http import infer
from support.repository import write_model
from support.server import START_LIMIT, STOP_LIMIT, Server

# Seconds from SIGTERM until no new connection reaches the pod. In a cluster: one or a few seconds.
ENDPOINT_LAG = 1.0
SHUTDOWN_DELAY = 1.5
PROBE_PERIOD = 0.1  # seconds
MIN_RESPONSES = 20  # of each protocol and pod, before the next step
# Seconds that a client waits for a response. Longer than any pause of the server.
CLIENT_TIMEOUT = 20.0
MODEL = "pod"
# Answers with the name of its server.
SOURCE = """
import os

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Pod(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        name = os.environ["POD_NAME"]
        output = ResponseOutput(name="pod", shape=[1], datatype="BYTES", data=[name])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


class Service:
    """One address per protocol, whose connections go to the pods in `endpoints` in turn.

    It balances connections, not requests, as a Service of Kubernetes does.
    """

    def __init__(self) -> None:
        self.endpoints: list[Server] = []
        self.rest_port = self.grpc_port = 0
        self._turns = itertools.count()
        self._listeners: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for connect in (self._connect_rest, self._connect_grpc):
            self._listeners.append(await asyncio.start_server(connect, "127.0.0.1", 0))
        ports = [listener.sockets[0].getsockname()[1] for listener in self._listeners]
        self.rest_port, self.grpc_port = ports

    async def stop(self) -> None:
        for listener in self._listeners:
            listener.close()
        while self._connections:  # of clients, which close theirs
            await asyncio.wait(self._connections)

    def _pick(self) -> Server:
        return self.endpoints[next(self._turns) % len(self.endpoints)]

    async def _connect_rest(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._relay(self._pick().http_port, reader, writer)

    async def _connect_grpc(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._relay(self._pick().grpc_port, reader, writer)

    async def _relay(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError):
                pod_reader, pod_writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    await asyncio.gather(_copy(reader, pod_writer), _copy(pod_reader, writer))
                finally:
                    pod_writer.close()
        finally:
            writer.close()
            self._connections.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes and the end of the stream."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


@dataclass
class Clients:
    """Clients of a service, each in a closed loop on connections that it keeps.

    Attributes:
        responses: Right responses by (protocol, pod).
        lost: Descriptions of requests without a right response; must stay empty.
    """

    service: Service
    responses: Counter[tuple[str, str]] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    is_over: bool = False

    def loops(self) -> list[Awaitable[None]]:
        return [
            self._use_httpx(0),
            self._use_httpx(0.02),
            self._use_socket(0),
            self._use_socket(0.02),
            self._use_socket(SHUTDOWN_DELAY),  # connections that are idle for a while
            self._use_channel(1, 0),
            self._use_channel(1, 0.02),
            self._use_channel(4, 0),  # concurrent calls on one connection
        ]

    async def have_responses(self, pod: str) -> bool:
        """Return whether each protocol has had enough responses of a pod."""
        return all(self.responses[kind, pod] >= MIN_RESPONSES for kind in ("rest", "grpc"))

    async def _use_httpx(self, pause: float) -> None:
        body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}]}
        url = f"http://127.0.0.1:{self.service.rest_port}"
        async with httpx.AsyncClient(base_url=url, timeout=CLIENT_TIMEOUT) as client:
            while not self.is_over:
                try:
                    answer = await client.post(f"/v2/models/{MODEL}/infer", json=body)
                    self._record_rest("httpx", answer.status_code, answer.content)
                except httpx.TransportError as error:
                    self.lost.append(f"httpx: {error!r}")
                await asyncio.sleep(random.uniform(0, pause))

    async def _use_socket(self, pause: float) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.is_over:
            try:
                async with asyncio.timeout(CLIENT_TIMEOUT):
                    if streams is None:
                        port = self.service.rest_port
                        streams = await asyncio.open_connection("127.0.0.1", port)
                    elif streams[0].at_eof():
                        # Closed by the server while idle: the client sees it before it sends.
                        streams[1].close()
                        streams = None
                        continue
                    streams[1].write(infer(MODEL, 1.0))
                    status, closes, body = await _read_response(streams[0])
                self._record_rest("socket", status, body)
            except (OSError, EOFError) as error:  # a timeout is an OSError
                self.lost.append(f"socket: {error!r}")
                closes = True
            if closes and streams is not None:
                streams[1].close()
                streams = None
            await asyncio.sleep(random.uniform(0, pause))
        if streams is not None:
            streams[1].close()

    async def _use_channel(self, calls: int, pause: float) -> None:
        address = f"127.0.0.1:{self.service.grpc_port}"
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            stub = GRPCInferenceServiceStub(channel)
            await asyncio.gather(*(self._call(stub, pause) for _ in range(calls)))

    async def _call(self, stub: GRPCInferenceServiceStub, pause: float) -> None:
        request = pb.ModelInferRequest(model_name=MODEL)
        request.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(1.0)
        while not self.is_over:
            try:
                answer = await stub.ModelInfer(request, timeout=CLIENT_TIMEOUT)
                (pod,) = answer.outputs[0].contents.bytes_contents
                self.responses["grpc", pod.decode()] += 1
            except grpc.RpcError as error:
                self.lost.append(f"gRPC: {error.code()} {error.details()}")
            await asyncio.sleep(random.uniform(0, pause))

    def _record_rest(self, client: str, status: int, body: bytes) -> None:
        if status != 200:
            self.lost.append(f"{client}: status {status} {body[:200]!r}")
            return
        pod = httpx.Response(200, content=body).json()["outputs"][0]["data"][0]
        self.responses["rest", pod] += 1


async def _read_response(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Return status, whether the connection ends with this response, and body."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        lines = dict(line.split(b": ", 1) for line in head.splitlines()[1:-1])
        body = await reader.readexactly(int(lines[b"content-length"]))
    except asyncio.IncompleteReadError as error:
        raise EOFError(f"the connection ended after {error.partial!r}") from None
    return int(head.split()[1]), lines.get(b"connection") == b"close", body


class Deployment:
    """Pods of one model, their readiness probes, and the service that they are in."""

    def __init__(self, folder: Path, service: Service, http_workers: int) -> None:
        self._folder = folder
        self._service = service
        self._http_workers = http_workers
        self._names = (f"pod-{number}" for number in itertools.count())
        self._stack = contextlib.ExitStack()
        self.pods: list[tuple[str, Server]] = []

    async def add_pod(self) -> str:
        """Start a pod, wait until it is ready, and add it to the service. Return its name."""
        name = next(self._names)
        env = {
            "POD_NAME": name,
            "MLSERVER_SHUTDOWN_DELAY": str(SHUTDOWN_DELAY),
            "MLSERVER_HTTP_WORKERS": str(self._http_workers),
        }
        pod = Server(self._folder, workers=1, env=env, ready=None)
        await asyncio.to_thread(self._stack.enter_context, pod)
        await wait_until(lambda: self._is_ready(pod), f"{name} was ready")
        self.pods.append((name, pod))
        self._service.endpoints.append(pod)
        return name

    async def remove_oldest_pod(self) -> None:
        """End a pod as the kubelet does, while its removal from the service takes its time."""
        name, pod = self.pods.pop(0)
        pod.process.send_signal(signal.SIGTERM)
        removal = asyncio.get_running_loop().call_later(
            ENDPOINT_LAG, self._service.endpoints.remove, pod
        )
        try:
            await wait_until(lambda: self._is_not_ready(pod), f"{name} was not ready any more")
            code = await asyncio.to_thread(pod.process.wait, STOP_LIMIT)
        finally:
            removal.cancel()
        assert code == 0, f"{name} exited with {code}:\n{pod.log}"
        assert pod not in self._service.endpoints, f"{name} ended before 'shutdown_delay' was over"

    async def _is_ready(self, pod: Server) -> bool:
        return await probe(pod) == 200

    async def _is_not_ready(self, pod: Server) -> bool:
        return await probe(pod) != 200

    def close(self) -> None:
        """End all pods, and check how they ended."""
        self._stack.close()


async def probe(pod: Server) -> int:
    """Return the status of the readiness endpoint over a new connection; 0 = no response."""
    try:
        async with httpx.AsyncClient(timeout=CLIENT_TIMEOUT) as client:
            return (await client.get(f"{pod.url}/v2/health/ready")).status_code
    except httpx.TransportError:
        return 0


async def wait_until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{START_LIMIT} s passed before {what}")
        await asyncio.sleep(PROBE_PERIOD)


@contextlib.asynccontextmanager
async def running(clients: Clients) -> AsyncIterator[None]:
    """Run the clients in the block."""
    tasks = [asyncio.ensure_future(loop) for loop in clients.loops()]
    try:
        yield
    finally:
        clients.is_over = True
        await asyncio.gather(*tasks)


async def restart_all(folder: Path, http_workers: int = 1) -> Clients:
    """Replace two pods one after the other under load; return the clients."""
    write_model(folder / MODEL, "Pod", source=SOURCE)
    service = Service()
    deployment = Deployment(folder, service, http_workers)
    clients = Clients(service)

    async def wait_used(pod: str) -> None:
        await wait_until(lambda: clients.have_responses(pod), f"{pod} was used")

    try:
        await service.start()
        first, second = await deployment.add_pod(), await deployment.add_pod()
        async with running(clients):
            await wait_used(first)
            await wait_used(second)
            await deployment.remove_oldest_pod()
            third = await deployment.add_pod()
            # Connections stay where they are: only now do those of the second pod move.
            await deployment.remove_oldest_pod()
            await wait_used(third)
            await deployment.add_pod()
    finally:
        await service.stop()
        deployment.close()
    return clients


def main() -> int:
    times = int(sys.argv[1]) if sys.argv[1:] else 1
    lost = 0
    for number in range(1, times + 1):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mlserver-rolling-") as name:
            clients = asyncio.run(restart_all(Path(name), http_workers=1 + number % 2))
        lost += len(clients.lost)
        responses = Counter({"rest": 0, "grpc": 0})
        for (protocol, _), count in clients.responses.items():
            responses[protocol] += count
        sys.stdout.write(
            f"run {number}: {responses['rest']:,} REST and {responses['grpc']:,} gRPC responses"
            f" in {time.monotonic() - started:.0f} s, {len(clients.lost)} lost {clients.lost[:3]}\n"
        )
        sys.stdout.flush()
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

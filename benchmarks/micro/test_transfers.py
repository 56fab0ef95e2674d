"""Alternatives to frames over a socket pair: pickle, and shared memory for large tensors."""

from __future__ import annotations

import pickle
import socket
import threading
from multiprocessing.shared_memory import SharedMemory

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import cases
from mlserver.types import InferenceRequest
from mlserver.wire import json

SIZES = [64 * 1024, 1024 * 1024, 16 * 1024 * 1024]


def test_pickle(benchmark: BenchmarkFixture, case: cases.Case) -> None:
    """A request of Python lists, as in MLServer 1.x. Compare with `test_pack` and `test_unpack`."""
    values = json.read_request(cases.exchange(case, "v2").body).model_dump()

    def transfer() -> InferenceRequest:
        received = pickle.loads(pickle.dumps(values, protocol=5))  # noqa: S301
        return InferenceRequest.model_validate(received)

    assert benchmark(transfer).inputs


@pytest.mark.parametrize("size", SIZES)
def test_socket(benchmark: BenchmarkFixture, size: int) -> None:
    """A buffer through a socket pair, until the receiver has all of it."""
    sender, receiver = socket.socketpair()
    data, received = bytes(size), bytearray(size)
    arrived = threading.Semaphore(0)

    def receive() -> None:
        view, count = memoryview(received), 0
        while chunk := receiver.recv_into(view[count:]):
            count += chunk
            if count == size:
                count = 0
                arrived.release()

    def transfer() -> None:
        sender.sendall(data)
        arrived.acquire()

    thread = threading.Thread(target=receive)
    thread.start()
    benchmark(transfer)
    sender.close()
    thread.join()
    receiver.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
def test_shared_memory(benchmark: BenchmarkFixture, size: int, reused: bool) -> None:
    """A buffer into a block of shared memory and out of it; without the message about the block."""
    data = bytes(size)

    def copy(block: SharedMemory) -> bytes:
        assert block.buf is not None
        block.buf[:size] = data
        return bytes(block.buf[:size])

    def transfer() -> bytes:
        block = SharedMemory(create=True, size=size)
        try:
            return copy(block)
        finally:
            block.close()
            block.unlink()

    if not reused:
        assert len(benchmark(transfer)) == size
        return
    block = SharedMemory(create=True, size=size)
    try:
        assert len(benchmark(copy, block)) == size
    finally:
        block.close()
        block.unlink()

"""Threads of numerical libraries in workers are limited by the available processors."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlserver.parallel.processors import read_quota
from support.repository import tensor, write_model
from support.server import Server
from support.slow import slow

THREADS = """
import os

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Threads(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        threads = np.array([int(os.environ[name]) for name in names])
        output = NumpyCodec.encode_output("threads", threads)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "threads", "Threads", source=THREADS)
    return tmp_path


def threads(server: Server) -> list[int]:
    actual: list[int] = server.infer("threads", [tensor("x", [1.0])]).json()["outputs"][0]["data"]
    return actual


@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs taskset")
@pytest.mark.parametrize("pinned, workers", [slow(1, 1), slow(2, 1), slow(2, 2), (2, 3)])
def test_threads_are_limited_by_the_affinity(folder: Path, pinned: int, workers: int) -> None:
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < pinned:
        pytest.skip("this machine has too few processors")

    class Pinned(Server):
        prefix = ("taskset", "-c", ",".join(map(str, processors[:pinned])))

    limit = min(pinned, read_quota() or pinned)
    with Pinned(folder, workers=workers) as server:
        assert threads(server) == [max(1, int(limit / workers))] * 3


def test_variables_of_the_user_are_kept(folder: Path) -> None:
    with Server(folder, workers=1, env={"OMP_NUM_THREADS": "7"}) as server:
        assert threads(server)[0] == 7

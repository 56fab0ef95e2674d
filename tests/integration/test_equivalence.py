"""Equal requests have bitwise equal responses, over every protocol, batched, cached, and after
worker deaths.

docs/explanation/equivalence.md describes the comparison.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from support.models import WINE, Models
from support.repository import write_model, write_server_settings, write_settings
from support.server import Server

# y = 3x + 1 per row in the input's type; texts are reversed. Where 3x + 1 does not apply,
# bit patterns are unchanged: NaN stays NaN.
AFFINE = """
import numpy as np

from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput, TensorData


class Affine(MLModel):
    row_wise = True

    async def predict(self, payload):
        return InferenceResponse(model_name=self.name, outputs=[self.answer(one) for one in payload.inputs])

    def answer(self, one):
        if one.datatype == "BYTES":
            texts = [text.encode() if isinstance(text, str) else bytes(text) for text in one.data.root]
            data = TensorData([text[::-1] for text in texts])
            return ResponseOutput(name=one.name, shape=one.shape, datatype="BYTES", data=data)
        values = one.data.to_array(one.datatype, one.shape)
        with np.errstate(all="ignore"):
            result = (values * values.dtype.type(3) + values.dtype.type(1)).astype(values.dtype)
        return ResponseOutput(name=one.name, shape=list(one.shape), datatype=one.datatype, data=TensorData.from_array(result))
"""
MODELS: dict[str, dict[str, Any]] = {
    "alone": {"max_batch_size": 1},
    "joined": {"max_batch_size": 16, "max_batch_time": 0.02},
    "adaptive": {},
    "cached": {"cache_enabled": True},
}
TYPES = {
    "FP32": "<f4",
    "FP64": "<f8",
    "INT8": "i1",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT64": "<u8",
    "UINT16": "<u2",
}
Inputs = dict[str, tuple[str, Any]]
Outputs = dict[str, tuple[str, list[int], bytes]]


@dataclass(frozen=True)
class Servers:
    """The same models in workers and in the server's process."""

    apart: Server
    inline: Server


@pytest.fixture(scope="module")
def servers(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("equivalence")
    write_server_settings(folder, cache_enabled=True, cache_size=1000)
    for name, settings in MODELS.items():
        write_model(folder / name, "Affine", source=AFFINE, **settings)
        wine = {
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": str(models["wine"])},
        }
        write_settings(folder / f"wine-{name}", name=f"wine-{name}", **wine, **settings)
    with Server(folder, workers=2) as apart, Server(folder, workers=0) as inline:
        yield Servers(apart, inline)


# -- protocols and formats --


def raw_of(datatype: str, values: Any) -> bytes:
    if datatype == "BYTES":
        return b"".join(len(text).to_bytes(4, "little") + text for text in values.ravel())
    return bytes(np.ascontiguousarray(values).tobytes())


def by_json(server: Server, model: str, inputs: Inputs) -> Outputs:
    tensors = [
        {"name": name, "shape": list(values.shape), "datatype": kind, "data": plain(kind, values)}
        for name, (kind, values) in inputs.items()
    ]
    answer = server.infer(model, tensors)
    assert answer.status_code == 200, answer.text
    return {
        one["name"]: (one["datatype"], one["shape"], from_plain(one))
        for one in answer.json()["outputs"]
    }


def plain(kind: str, values: Any) -> list[Any]:
    if kind == "BYTES":
        return [text.decode() for text in values.ravel()]
    return [None if value != value else value for value in values.ravel().tolist()]


def from_plain(one: dict[str, Any]) -> bytes:
    if one["datatype"] == "BYTES":
        return raw_of(
            "BYTES", np.array([text.encode() for text in one["data"]] + [None], dtype=object)[:-1]
        )
    dtype = TYPES[one["datatype"]]
    return np.array(
        [float("nan") if value is None else value for value in one["data"]], dtype=dtype
    ).tobytes()


def by_binary(server: Server, model: str, inputs: Inputs) -> Outputs:
    raws = {name: raw_of(kind, values) for name, (kind, values) in inputs.items()}
    tensors = [
        {
            "name": name,
            "shape": list(values.shape),
            "datatype": kind,
            "parameters": {"binary_data_size": len(raws[name])},
        }
        for name, (kind, values) in inputs.items()
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    headers = {
        "inference-header-content-length": str(len(head)),
        "content-type": "application/octet-stream",
    }
    answer = server.post(
        f"/v2/models/{model}/infer", head + b"".join(raws.values()), headers=headers
    )
    assert answer.status_code == 200, answer.text
    at = int(answer.headers["inference-header-content-length"])
    outputs = {}
    document, rest = json.loads(answer.content[:at]), answer.content[at:]
    for one in document["outputs"]:
        size = one["parameters"]["binary_data_size"]
        outputs[one["name"]] = (one["datatype"], one["shape"], rest[:size])
        rest = rest[size:]
    return outputs


_CONTENTS = {
    "FP32": "fp32",
    "FP64": "fp64",
    "UINT64": "uint64",
    "INT64": "int64",
    "UINT16": "uint",
    "BYTES": "bytes",
}


def by_grpc(server: Server, model: str, inputs: Inputs, raw: bool = True) -> Outputs:
    message = pb.ModelInferRequest(model_name=model)
    for name, (kind, values) in inputs.items():
        tensor = message.inputs.add(name=name, datatype=kind, shape=values.shape)
        if raw:
            message.raw_input_contents.append(raw_of(kind, values))
        else:
            field = getattr(tensor.contents, f"{_CONTENTS.get(kind, 'int')}_contents")
            field.extend(values.ravel().tolist())
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=30)
    if answer.raw_output_contents:
        contents = list(answer.raw_output_contents)
    else:
        contents = [typed(one) for one in answer.outputs]
    return {
        one.name: (one.datatype, list(one.shape), content)
        for one, content in zip(answer.outputs, contents, strict=True)
    }


def typed(one: Any) -> bytes:
    values = getattr(one.contents, f"{_CONTENTS.get(one.datatype, 'int')}_contents")
    if one.datatype == "BYTES":
        return raw_of("BYTES", np.array([*values, None], dtype=object)[:-1])
    return np.array(values, dtype=TYPES[one.datatype]).tobytes()


def by_typed_grpc(server: Server, model: str, inputs: Inputs) -> Outputs:
    return by_grpc(server, model, inputs, raw=False)


WAYS: dict[str, Callable[[Server, str, Inputs], Outputs]] = {
    "json": by_json,
    "binary": by_binary,
    "grpc": by_grpc,
    "typed grpc": by_typed_grpc,
}


# -- requests --


def random_request(rng: random.Random) -> Inputs:
    """One to three inputs of random types and inner shapes, with the same number of rows."""
    rows, inputs = rng.randint(1, 5), {}
    for number in range(rng.randint(1, 3)):
        shape = (rows, *(rng.randint(1, 3) for _ in range(rng.randint(0, 2))))
        kind = rng.choice([*TYPES, "BYTES"])
        inputs[f"x{number}"] = (kind, block(kind, shape, rng))
    return inputs


def block(kind: str, shape: tuple[int, ...], rng: random.Random) -> Any:
    count = int(np.prod(shape))
    if kind == "BYTES":
        words = ["", "é", "𝄞 and more", "a\0b", "x" * 300]
        texts = [rng.choice(words).encode() for _ in range(count)]
        return np.array([*texts, None], dtype=object)[:-1].reshape(shape)
    if kind.startswith("FP"):
        special = [0.0, -0.0, 1.5, -1e30, 5e-324 if kind == "FP64" else 1e-45, float("nan"), 1 / 3]
        return np.array([rng.choice(special) for _ in range(count)], dtype=TYPES[kind]).reshape(
            shape
        )
    limits = np.iinfo(TYPES[kind])
    special_ints = [0, 1, int(limits.max), int(limits.min), rng.randint(0, 100)]
    return np.array([rng.choice(special_ints) for _ in range(count)], dtype=TYPES[kind]).reshape(
        shape
    )


def expected(inputs: Inputs) -> Outputs:
    """The expected outputs, computed here."""
    outputs: Outputs = {}
    for name, (kind, values) in inputs.items():
        if kind == "BYTES":
            turned = np.array([text[::-1] for text in values.ravel()] + [None], dtype=object)[:-1]
            outputs[name] = (kind, list(values.shape), raw_of(kind, turned))
        else:
            with np.errstate(all="ignore"):
                result = (values * values.dtype.type(3) + values.dtype.type(1)).astype(values.dtype)
            outputs[name] = (kind, list(values.shape), result.tobytes())
    return outputs


def in_json(inputs: Inputs) -> bool:
    """Whether JSON can represent request and response: it cannot for texts that are not UTF-8."""
    answers = expected(inputs)
    for kind, _, raw in answers.values():
        if kind == "BYTES":
            try:
                raw.decode()
            except UnicodeDecodeError:
                return False
    return True


@pytest.mark.parametrize("seed", range(12))
def test_every_protocol_returns_the_same_bits(servers: Servers, seed: int) -> None:
    inputs = random_request(random.Random(seed))
    right = expected(inputs)
    for server in (servers.apart, servers.inline):
        for model in MODELS:
            for name, ask in WAYS.items():
                if name == "json" and not in_json(inputs):
                    continue
                for _ in range(2 if model == "cached" else 1):
                    assert ask(server, model, inputs) == right, f"{model} by {name}"


@pytest.mark.parametrize("where", ["apart", "inline"])
def test_joined_requests_get_their_own_rows(servers: Servers, where: str) -> None:
    """Sixteen concurrent requests of different sizes to every batching model over every protocol."""
    server: Server = getattr(servers, where)
    rng = random.Random(where)
    questions: list[tuple[str, str, Inputs]] = []
    for number in range(160):
        shape = (rng.randint(1, 7), 2)
        values = np.array([rng.random() for _ in range(shape[0] * 2)], dtype="<f4").reshape(shape)
        questions.append(
            (list(MODELS)[number % 4], list(WAYS)[number // 4 % 4], {"x": ("FP32", values)})
        )
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda one: WAYS[one[1]](server, one[0], one[2]), questions))
    for (model, way, inputs), answer in zip(questions, answers, strict=True):
        assert answer == expected(inputs), f"{model} by {way}"


WINE_ROWS = [
    {name: value * factor.uniform(0.8, 1.2) for name, value in WINE.items()}
    for factor in [random.Random(seed) for seed in range(5)]
]
Bits = tuple[float, ...]


def wine_predictions(server: Server, model: str, rows: list[dict[str, float]]) -> dict[str, Bits]:
    """The predictions for one request of `rows`, by protocol and body format."""
    inputs: Inputs = {name: ("FP64", np.array([[row[name]] for row in rows])) for name in WINE}
    predictions: dict[str, Bits] = {}
    for protocol, infer in WAYS.items():
        ((_, _, raw),) = infer(server, model, inputs).values()
        predictions[f"{model} by {protocol}"] = tuple(np.frombuffer(raw, dtype="<f8").tolist())
    bodies = {
        "dataframe_records": {"dataframe_records": rows},
        "dataframe_split": {
            "dataframe_split": {"columns": list(WINE), "data": [list(row.values()) for row in rows]}
        },
    }
    for form, body in bodies.items():
        values = server.post(f"/v2/models/{model}/invocations", body).json()["predictions"]
        flat = tuple(value[0] if isinstance(value, list) else value for value in values)
        predictions[f"{model} by {form}"] = flat
    return predictions


def assert_one_value(predictions: dict[str, Bits]) -> Bits:
    """Return the value that all predictions share; the error names the ones that differ."""
    assert len(set(predictions.values())) == 1, predictions
    return next(iter(predictions.values()))


def check_the_wine_model(servers: Servers) -> None:
    """Equal requests have equal responses; requests are compared with requests of the same rows.

    BLAS may differ in the last bit between a product of five rows and five products of one row
    (scikit-learn itself does, with OpenBLAS's kernel SkylakeX), so a client's split of rows over
    requests may matter. The server's batching may not: batched requests of one row must return
    what each returns alone.
    """
    alone: dict[int, Bits] = {}
    for rows in ([row] for row in WINE_ROWS):
        predictions: dict[str, Bits] = {}
        for label, server in (("apart", servers.apart), ("inline", servers.inline)):
            for name in MODELS:
                found = wine_predictions(server, f"wine-{name}", rows)
                predictions |= {f"{label}: {way}": bits for way, bits in found.items()}
        alone[WINE_ROWS.index(rows[0])] = assert_one_value(predictions)
    several: dict[str, Bits] = {}
    for label, server in (("apart", servers.apart), ("inline", servers.inline)):
        for name in MODELS:
            found = wine_predictions(server, f"wine-{name}", WINE_ROWS)
            several |= {f"{label}: {way}": bits for way, bits in found.items()}
    assert_one_value(several)
    for server in (servers.apart, servers.inline):
        check_joined_wine_requests(server, alone)


def check_joined_wine_requests(server: Server, alone: dict[int, Bits]) -> None:
    """Sixteen concurrent requests of one row, over every protocol, return what the row returns
    alone.
    """
    jobs = [(number % len(WINE_ROWS), list(WAYS)[number % len(WAYS)]) for number in range(80)]

    def infer(job: tuple[int, str]) -> Bits:
        row = WINE_ROWS[job[0]]
        inputs: Inputs = {name: ("FP64", np.array([[value]])) for name, value in row.items()}
        ((_, _, raw),) = WAYS[job[1]](server, "wine-joined", inputs).values()
        return tuple(np.frombuffer(raw, dtype="<f8").tolist())

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(infer, jobs))
    for job, answer in zip(jobs, answers, strict=True):
        assert answer == alone[job[0]], f"row {job[0]} by {job[1]}"


def test_the_wine_model_by_every_way(servers: Servers) -> None:
    """V2 and MLflow's protocol agree on equal requests, batched or not, cached or not, with and
    without workers.
    """
    check_the_wine_model(servers)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["Haswell", "SkylakeX", "Sandybridge", "Nehalem"])
def test_the_wine_model_under_other_blas_kernels(
    models: Models, tmp_path: Path, kernel: str
) -> None:
    """The same with each OpenBLAS kernel that the processor can run: they round differently."""
    if kernel not in runnable_kernels():
        pytest.skip(f"this processor cannot run OpenBLAS's kernel {kernel}")
    env = {"OPENBLAS_CORETYPE": kernel}
    write_server_settings(tmp_path, cache_enabled=True, cache_size=1000)
    for name, settings in MODELS.items():
        wine = {
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": str(models["wine"])},
        }
        write_settings(tmp_path / f"wine-{name}", name=f"wine-{name}", **wine, **settings)
    with (
        Server(tmp_path, workers=2, env=env) as apart,
        Server(tmp_path, workers=0, env=env) as inline,
    ):
        check_the_wine_model(Servers(apart, inline))


def runnable_kernels() -> set[str]:
    """The OpenBLAS kernels whose instructions this processor has.

    None outside of Linux on x86-64.
    """
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    needed = {"Nehalem": "sse4_2", "Sandybridge": "avx", "Haswell": "avx2", "SkylakeX": "avx512vl"}
    return {kernel for kernel, flag in needed.items() if flag in flags}


# -- under faults --


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_client_receives_its_own_response_under_faults(tmp_path: Path) -> None:
    """Workers are killed, models reloaded and clients disconnect.

    Each response is correct or a 503.
    """
    for name, settings in MODELS.items():
        write_model(tmp_path / name, "Affine", source=AFFINE, **settings)
    write_server_settings(tmp_path, cache_enabled=True)
    with Server(tmp_path, workers=2) as server:
        disturbance = Disturbance(server)
        with ThreadPoolExecutor(8) as threads:
            asking = [threads.submit(disturbance.send_requests, number) for number in range(6)]
            leaving = threads.submit(disturbance.disconnect)
            disturbance.cause()
            for each in (*asking, leaving):
                each.result(60)
        server.wait_until("/v2/health/ready")
    assert disturbance.right > 50
    assert not disturbance.wrong, disturbance.wrong[:3]


class Disturbance:
    """Clients of a server, and the faults it is exposed to."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self.right = 0
        self.wrong: list[str] = []

    def cause(self) -> None:
        """Eight times: kill one or all workers and reload a model."""
        for turn in range(8):
            workers = self._server.workers
            for pid in workers if turn % 2 else workers[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            name = list(MODELS)[turn % len(MODELS)]
            answer = self._server.post(f"/v2/repository/models/{name}/load")
            if answer.status_code not in (200, 500, 503):
                self.wrong.append(f"load: {answer.status_code} {answer.text}")
            enough = self.right + 20
            self._server.wait(partial(self._has_answers, enough), "callers were answered")
        self._over.set()

    def _has_answers(self, enough: int) -> bool:
        return self.right >= enough or bool(self.wrong)

    def send_requests(self, caller: int) -> None:
        rng = random.Random(caller)
        url = f"{self._server.url}/v2/models"
        with httpx.Client(timeout=30) as client:
            while not self._over.is_set():
                rows = rng.randint(1, 4)
                data = [rng.randint(-(2**40), 2**40) for _ in range(rows)]
                body = {
                    "inputs": [{"name": "x", "shape": [rows], "datatype": "INT64", "data": data}]
                }
                answer = client.post(f"{url}/{rng.choice(list(MODELS))}/infer", json=body)
                if answer.status_code == 503:
                    continue
                if answer.status_code != 200:
                    self.wrong.append(f"{answer.status_code} {answer.text}")
                elif answer.json()["outputs"][0]["data"] != [3 * value + 1 for value in data]:
                    self.wrong.append(f"{data}: {answer.text}")
                else:
                    self.right += 1

    def disconnect(self) -> None:
        """A client that disconnects before each response."""
        one = {"name": "x", "shape": [1], "datatype": "INT64", "data": [7]}
        while not self._over.is_set():
            with httpx.Client(timeout=0.002) as client, contextlib.suppress(httpx.TransportError):
                client.post(f"{self._server.url}/v2/models/joined/infer", json={"inputs": [one]})

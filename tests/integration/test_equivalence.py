"""Equal requests have bitwise equal responses, over every protocol, batched, cached, and after
worker deaths.

docs/explanation/equivalence.md describes the comparison.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.engines import RAY_ENGINE, enter_engine
from support.equal_requests import AFFINE, MODELS, TYPES, WAYS, Inputs, Outputs, raw_of
from support.models import WINE, Models
from support.repository import write_model, write_server_settings, write_settings
from support.server import Server


@dataclass(frozen=True)
class Servers:
    """The same models in workers or Ray replicas, and in the server's process."""

    apart: Server
    inline: Server


@pytest.fixture(scope="module", params=[2, RAY_ENGINE])
def servers(
    request: pytest.FixtureRequest, models: Models, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("equivalence")
    write_server_settings(folder, cache_enabled=True, cache_size=1000)
    for name, settings in MODELS.items():
        write_model(folder / name, "Affine", source=AFFINE, **settings)
        wine = {
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": str(models["wine"])},
        }
        write_settings(folder / f"wine-{name}", name=f"wine-{name}", **wine, **settings)
    enter_engine(request)
    with Server(folder, workers=request.param) as apart, Server(folder, workers=0) as inline:
        yield Servers(apart, inline)


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
    """Sixteen concurrent requests of several sizes to every batching model over every protocol."""
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
        answers = list(threads.map(lambda job: WAYS[job[1]](server, job[0], job[2]), questions))
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
                predicted = wine_predictions(server, f"wine-{name}", rows)
                predictions |= {f"{label}: {way}": bits for way, bits in predicted.items()}
        alone[WINE_ROWS.index(rows[0])] = assert_one_value(predictions)
    several: dict[str, Bits] = {}
    for label, server in (("apart", servers.apart), ("inline", servers.inline)):
        for name in MODELS:
            predicted = wine_predictions(server, f"wine-{name}", WINE_ROWS)
            several |= {f"{label}: {way}": bits for way, bits in predicted.items()}
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


def test_the_wine_model_over_every_protocol(servers: Servers) -> None:
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

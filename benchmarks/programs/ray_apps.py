"""A model in plain Ray Serve behind Serve's HTTP proxy on a given cluster, once per variant.

Variants: `default` has Serve's own settings; the others have `max_ongoing_requests` of 128, without
which most requests of 16 or 64 connections wait in the proxy. Their paths are `/VARIANT/MODEL`.
Prints READY, and ends with its input.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

COLUMNS = 100
TUNED = {"max_ongoing_requests": 128}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "tuned": TUNED,
    "throughput": TUNED,
    "haproxy": TUNED,
}


class Wine:
    """A row as MLflow's JSON."""

    def __init__(self, uri: str) -> None:
        self.wine = mlflow.pyfunc.load_model(uri)

    async def __call__(self, request: Request) -> dict[str, Any]:
        body = (await request.json())["dataframe_split"]
        frame = pd.DataFrame(body["data"], columns=body["columns"], dtype="float64")
        return {"predictions": self.wine.predict(frame).tolist()}


class Sum:
    """Sums of the rows of an FP32 matrix, as bytes in both directions: the least that it takes."""

    async def __call__(self, request: Request) -> Response:
        rows = np.frombuffer(await request.body(), np.float32).reshape(-1, COLUMNS)
        return Response(rows.sum(axis=1).tobytes(), media_type="application/octet-stream")


def deploy(variant: str) -> None:
    """Run both models with the options of a variant."""
    for name, model in {"wine": Wine, "sum": Sum}.items():
        deployment = serve.deployment(model).options(
            name=name, ray_actor_options={"num_cpus": 1}, **VARIANTS[variant]
        )
        arguments = [os.environ["BENCH_WINE"]] if name == "wine" else []
        application = f"{variant}-{name}"
        serve.run(deployment.bind(*arguments), name=application, route_prefix=f"/{variant}/{name}")


if __name__ == "__main__":
    ray.init(os.environ["BENCH_RAY"], log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    for chosen in os.environ["BENCH_VARIANTS"].split(","):
        deploy(chosen)
    print("READY", flush=True)
    sys.stdin.read()

"""The models in Ray Serve: one deployment behind its HTTP proxy, one replica.

`max_ongoing_requests` is 128: with the default of 5, most requests of 16 or 64 connections wait in
the proxy.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import mlflow.pyfunc
import pandas as pd
import ray
from ray import serve
from starlette.requests import Request
from work import as_list, run

MODEL = os.environ["BENCH_MODEL"]


@serve.deployment(max_ongoing_requests=128)
class Predict:
    def __init__(self, uri: str) -> None:
        self.wine = mlflow.pyfunc.load_model(uri) if MODEL == "wine" else None

    async def __call__(self, request: Request) -> dict[str, Any]:
        body = await request.json()
        if self.wine is None:
            return {"predictions": as_list(await run(MODEL, body["data"]))}
        frame = pd.DataFrame(body["data"], columns=body["columns"], dtype="float64")
        return {"predictions": self.wine.predict(frame).tolist()}


if __name__ == "__main__":
    ray.init("local", include_dashboard=False)  # not a cluster that happens to run
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    serve.run(Predict.bind(os.environ["BENCH_WINE"]))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()

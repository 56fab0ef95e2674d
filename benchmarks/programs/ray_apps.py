"""The wine model in plain Ray Serve, twice, behind Serve's HTTP proxy on a given cluster.

`/default` has Serve's own settings; `/tuned` has `max_ongoing_requests` of 128, without which most
requests of 16 or 64 connections wait in the proxy. Prints READY, and ends with its input.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import mlflow.pyfunc
import pandas as pd
import ray
from ray import serve
from starlette.requests import Request


class Predict:
    def __init__(self, uri: str) -> None:
        self.wine = mlflow.pyfunc.load_model(uri)

    async def __call__(self, request: Request) -> dict[str, Any]:
        body = (await request.json())["dataframe_split"]
        frame = pd.DataFrame(body["data"], columns=body["columns"], dtype="float64")
        return {"predictions": self.wine.predict(frame).tolist()}


if __name__ == "__main__":
    ray.init(os.environ["BENCH_RAY"], log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    for name, options in {"default": {}, "tuned": {"max_ongoing_requests": 128}}.items():
        deployment = serve.deployment(Predict).options(
            name="predict", ray_actor_options={"num_cpus": 1}, **options
        )
        serve.run(deployment.bind(os.environ["BENCH_WINE"]), name=name, route_prefix=f"/{name}")
    print("READY", flush=True)
    sys.stdin.read()

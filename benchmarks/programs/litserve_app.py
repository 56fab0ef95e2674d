"""The models in LitServe: decode, predict, encode; one worker, as by default."""

import os
from typing import Any

import litserve
import mlflow.pyfunc
import pandas as pd
from work import WORK, as_list, run

MODEL = os.environ["BENCH_MODEL"]


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.wine = mlflow.pyfunc.load_model(os.environ["BENCH_WINE"]) if MODEL == "wine" else None

    # Without an annotation of `request`, LitServe parses the body as JSON and validates nothing.
    def decode_request(self, request) -> Any:  # type: ignore[no-untyped-def]
        if self.wine is None:
            return request["data"]
        return pd.DataFrame(request["data"], columns=request["columns"], dtype="float64")

    def predict(self, rows: Any) -> Any:
        return WORK[MODEL](rows) if self.wine is None else self.wine.predict(rows)

    def encode_response(self, answer: Any) -> dict[str, Any]:
        return {"predictions": as_list(answer)}


class AsyncApi(litserve.LitAPI):
    """The model that waits: requests overlap, as coroutines."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    async def decode_request(self, request) -> Any:  # type: ignore[no-untyped-def]
        return request["data"]

    async def predict(self, rows: Any) -> Any:
        return await run(MODEL, rows)

    async def encode_response(self, answer: Any) -> dict[str, Any]:
        return {"predictions": as_list(answer)}


if __name__ == "__main__":
    api = AsyncApi(enable_async=True) if MODEL == "wait" else Api()
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False)

"""gRPC echo: returns each message unchanged; measures `grpc.aio` alone, on asyncio's event loop."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import grpc


async def echo(message: bytes, context: Any) -> bytes:
    return message


async def main() -> None:
    server = grpc.aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
    )
    server.add_insecure_port(f"127.0.0.1:{os.environ['BENCH_GRPC_PORT']}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())

"""Model configuration in Triton's format, which some clients request before inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..parallel.executor import ModelInfo


def build_model_config(name: str, info: ModelInfo, max_batch_size: int) -> dict[str, Any]:
    """Return a minimal configuration.

    Args:
        max_batch_size: Requests per batch at most; 1 = no batching.
    """
    metadata = info.metadata
    batch_size = max_batch_size if max_batch_size > 1 else 0
    config: dict[str, Any] = {
        "name": name,
        "platform": metadata.platform or "",
        "backend": "mlserver",
        "max_batch_size": batch_size,
        "input": _config_tensors(metadata.inputs, bool(batch_size)),
        "output": _config_tensors(metadata.outputs, bool(batch_size)),
    }
    if batch_size:
        config["dynamic_batching"] = {}
    # Of a row-wise model, a stream has exactly one response per request.
    if info.streams and not info.row_wise:
        config["model_transaction_policy"] = {"decoupled": True}
    return config


def _config_tensors(tensors: Sequence[Any] | None, is_batched: bool) -> list[dict[str, Any]]:
    return [_config_tensor(tensor, is_batched) for tensor in tensors or ()]


def _config_tensor(tensor: Any, is_batched: bool) -> dict[str, Any]:
    datatype = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    dims = tensor.shape[1:] if is_batched and len(tensor.shape) > 1 else tensor.shape
    return {"name": tensor.name, "data_type": f"TYPE_{datatype}", "dims": list(dims)}

"""V2 responses from the results of a model's `predict`.

An output has the signature's name if the signature has as many outputs as the result, else its own
name (columns, keys), else `output-1`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pydantic

from mlserver.errors import InferenceError
from mlserver.types import InferenceResponse, ResponseOutput

from .declared_outputs import DeclaredOutputs
from .output_values import (
    NP,
    STR,
    build_parameters,
    encode_array,
    encode_column,
    encode_frame,
    encode_list,
    encode_scalar,
    encode_value,
)
from .plain_values import NotEncodableError, format_label, is_dataclass, to_plain

UNNAMED = "output-1"


class ResponseEncoder:
    """Encodes the results of one model.

    Args:
        declared: The signature's outputs; None = none.
    """

    def __init__(
        self, model_name: str, model_version: str | None, declared: DeclaredOutputs | None = None
    ) -> None:
        self._name = model_name
        self._version = model_version
        self._declared = declared or DeclaredOutputs()
        names = self._declared.names
        self._single_name = names[0] if len(names) == 1 else UNNAMED
        # One array may hold all of several declared columns.
        single = self._declared.single
        self._array_type = single if single is not None else self._declared.common

    def encode(self, result: Any) -> InferenceResponse:
        """Return the response for a model's result.

        Raises:
            InferenceError: the result cannot be encoded; the text names its type.
        """
        try:
            content_type, outputs = self._encode_outputs(result)
        except NotEncodableError as error:
            reason = f"a value of type {error}, which cannot be sent as V2 outputs"
            raise InferenceError(f"Model '{self._name}' returned {reason}", 500) from None
        except RecursionError:
            reason = "a value that contains itself or is nested too deeply"
            raise InferenceError(f"Model '{self._name}' returned {reason}", 500) from None
        return InferenceResponse.build(
            {
                "model_name": self._name,
                "model_version": self._version,
                "id": None,
                "parameters": build_parameters(content_type),
                "outputs": outputs,
            }
        )

    def _encode_outputs(self, result: Any) -> tuple[str | None, list[ResponseOutput]]:
        if isinstance(result, np.ndarray):
            output = encode_array(self._single_name, result, self._array_type)
            return _get_content_type(output), [output]
        if isinstance(result, pd.DataFrame):
            return "pd", encode_frame(result, self._declared)
        if isinstance(result, pd.Series):
            return "pd", [self._encode_series(result)]
        if isinstance(result, dict):
            return _encode_dict(result, self._declared)
        if isinstance(result, list | tuple):
            output = encode_list(self._single_name, list(result), self._array_type)
        elif hasattr(result, "toarray") and hasattr(result, "nnz"):  # a sparse matrix of SciPy
            output = encode_array(self._single_name, result.toarray(), self._array_type)
        elif isinstance(result, pydantic.BaseModel) or is_dataclass(result):
            return self._encode_outputs(to_plain(result))
        elif type(result).__module__.partition(".")[0] == "polars":
            return self._encode_outputs(polars_to_pandas(result))
        else:
            output = encode_scalar(self._single_name, result, self._declared.single)
        return _get_content_type(output), [output]

    def _encode_series(self, series: pd.Series[Any]) -> ResponseOutput:
        has_declared_name = self._single_name != UNNAMED
        name = self._single_name
        if series.name is not None and not has_declared_name:
            name = str(series.name)
        return encode_column(name, series, self._declared.get_type(name) or self._declared.single)


def _encode_dict(
    result: dict[Any, Any], declared: DeclaredOutputs
) -> tuple[str | None, list[ResponseOutput]]:
    outputs = []
    for key, value in result.items():
        name = format_label(key)
        outputs.append(encode_value(name, value, declared.get_type(name)))
    has_arrays_only = all(isinstance(value, np.ndarray) for value in result.values())
    return "dict" if has_arrays_only else None, outputs


def polars_to_pandas(result: Any) -> Any:
    """Convert a polars frame, lazy frame or series to pandas, with Arrow dtypes."""
    is_series = hasattr(result, "to_frame")
    frame = result.to_frame() if is_series else result
    if hasattr(frame, "collect"):
        frame = frame.collect()
    converted = frame.to_arrow().to_pandas(types_mapper=pd.ArrowDtype)
    return converted.iloc[:, 0] if is_series else converted


def _get_content_type(output: ResponseOutput) -> str | None:
    """Return the content type of a response with this output only."""
    content_type = output.parameters.content_type if output.parameters is not None else None
    return content_type if content_type in (NP, STR) else None

"""Arrow's stream format: one column per tensor, in both directions. Pure; needs pyarrow.

The bytes of a column of numbers are not copied. Types without a V2 datatype are converted as by the
`pd` codec: missing integers to FP64 while exact, text to BYTES, datetimes to ISO 8601
(`wire.arrow.columns`).
"""

from __future__ import annotations

from typing import Any

from ... import _optional
from ...errors import InvalidPayload, MLServerError
from ...types import InferenceRequest, InferenceResponse, Parameters


def library() -> Any:
    """Import pyarrow.

    Raises:
        NotInstalled: it is missing; the text names the command that installs it.
    """
    return _optional.import_optional("pyarrow", "The Arrow format", "arrow")


def read_request(body: bytes | memoryview, limit: int) -> InferenceRequest:
    """Parse a request of content type `pd`.

    Each column is an input of shape [rows, 1]; lists of n numbers are one of shape [rows, n].

    Args:
        limit: Maximum bytes of the columns, decompressed and with repeated texts counted each time.

    Raises:
        MLServerError: the body is not an Arrow stream, is too large, or has a column of a type
            that no tensor can hold.
    """
    pa = library()
    from . import limits

    limits.check(body, limit)
    try:
        return _build_request(_read_table(pa, body, limit))
    # Elements are checked while they are read: text that is not UTF-8, dates after the year 9999.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise InvalidPayload(
            f"Invalid body: expected an Arrow stream, received one with an error: {reason}"
        ) from None


def _build_request(table: Any) -> InferenceRequest:
    from . import columns

    index = columns.index_names(table.schema)
    inputs = [
        columns.read(name, table.column(position))
        for position, name in enumerate(table.column_names)
        if name not in index
    ]
    request = InferenceRequest(inputs=inputs)
    if all(tensor.shape[1] == 1 for tensor in inputs):
        request.parameters = Parameters(content_type="pd")
    return request


def _read_table(pa: Any, body: bytes | memoryview, limit: int) -> Any:
    from . import columns, limits

    with pa.ipc.open_stream(pa.py_buffer(body)) as stream:
        columns.check_types(stream.schema)
        batches = list(stream)
        for batch in batches:
            batch.validate(full=True)
        table = pa.Table.from_batches(batches, stream.schema)
    limits.check_table(table, limit)
    return table.unify_dictionaries()


def write_response(response: InferenceResponse) -> memoryview:
    """Return a stream with one column per output; model, version and id are the schema's metadata.

    Raises:
        MLServerError: the outputs have different numbers of rows.
    """
    pa = library()
    from . import columns

    rows = {output.name: output.shape[0] if output.shape else 1 for output in response.outputs}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in rows.items())
        raise MLServerError(
            f"The outputs differ in rows ({listed}) and cannot be an Arrow table: accept JSON", 406
        )
    arrays = [columns.write(output) for output in response.outputs]
    names = [output.name for output in response.outputs]
    identity = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "id": response.id,
    }
    metadata = {name: value for name, value in identity.items() if value is not None}
    fields = [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)]
    schema = pa.schema(fields, metadata=metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.record_batch(arrays, schema=schema))
    return memoryview(sink.getvalue())

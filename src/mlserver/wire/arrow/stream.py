"""Arrow's stream format: a table of columns in, a table of columns out. Pure; needs pyarrow.

A column of numbers is passed on as the bytes it came in. What V2 has no datatype for travels as the `pd` codec would send
it: missing integers as FP64 while that is exact, text as BYTES, datetimes as ISO 8601. `arrow_columns` knows the types.
"""

from __future__ import annotations

from typing import Any

from ... import _optional
from ...errors import InvalidPayload, MLServerError
from ...types import InferenceRequest, InferenceResponse, Parameters


def library() -> Any:
    """pyarrow. Raises `NotInstalled`, which names the command that installs it."""
    return _optional.import_optional("pyarrow", "The Arrow format", "arrow")


def read_request(body: bytes | memoryview, limit: int) -> InferenceRequest:
    """One input of shape [rows, 1] per column ([rows, n] for lists of n numbers), content type `pd`.

    Args:
        limit: Bytes that the columns may take up, decompressed and with every repeated text counted.

    Raises:
        MLServerError: the body is no stream of Arrow's, is too large, or has a column that no tensor can carry.
    """
    pa = library()
    from . import limits

    limits.check(body, limit)
    try:
        return _request_of(_table(pa, body, limit))
    # What is in a column is met when it is looked at: texts that are not UTF-8, dates after the year 9999.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise InvalidPayload(
            f"Invalid body: expected an Arrow stream, received one that says: {reason}"
        ) from None


def _request_of(table: Any) -> InferenceRequest:
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


def _table(pa: Any, body: bytes | memoryview, limit: int) -> Any:
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
    """A stream with one column per output; model, version and id are in the schema's metadata.

    Raises:
        MLServerError: the outputs do not have equally many rows.
    """
    pa = library()
    from . import columns

    rows = {output.name: output.shape[0] if output.shape else 1 for output in response.outputs}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in rows.items())
        raise MLServerError(
            f"The outputs are no table, for they differ in rows ({listed}): ask for JSON", 406
        )
    arrays = [columns.write(output) for output in response.outputs]
    names = [output.name for output in response.outputs]
    facts = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "id": response.id,
    }
    metadata = {name: value for name, value in facts.items() if value is not None}
    fields = [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)]
    schema = pa.schema(fields, metadata=metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.record_batch(arrays, schema=schema))
    return memoryview(sink.getvalue())

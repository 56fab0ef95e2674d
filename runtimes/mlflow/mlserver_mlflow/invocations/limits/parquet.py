"""Size of a Parquet file once it is decoded, computed from its footer and its page headers.

No page is decompressed for that. The footer's sizes are not verified by readers, which allocate
what each page header declares, so the page headers count. Dictionary and delta encoding write a
text once and refer to it, so the bytes of a text column do not follow from its pages; a dictionary
column that might exceed the limit is read with its dictionary kept, and its lengths are summed.

PyArrow's own limits do not replace this module. Measurements:
docs/explanation/decisions/limits.md.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

from .thrift_compact import BROKEN, CompactReader, get_count, get_struct, get_structs

MAGIC = b"PAR1"
# Physical types and an encoding (parquet.thrift: Type, Encoding).
_BYTE_ARRAY, _FIXED_LEN_BYTE_ARRAY = 6, 7
_DELTA_BYTE_ARRAY = 7
# Field ids: of FileMetaData, SchemaElement, RowGroup and ColumnChunk.
_SCHEMA, _NUM_ROWS, _ROW_GROUPS = 2, 3, 4
_NUM_CHILDREN, _COLUMNS, _META_DATA = 5, 1, 3
# Field ids of ColumnMetaData.
_TYPE, _NUM_VALUES, _COMPRESSED_SIZE, _DATA_OFFSET, _DICTIONARY_OFFSET = 1, 5, 7, 9, 11
_REQUIRED_FIELDS = {1, 2, 3, 4, 5, 6, 7, 9}
# Field ids of PageHeader: sizes, and the headers of data pages (two versions) and dictionaries.
_UNCOMPRESSED_PAGE_SIZE, _COMPRESSED_PAGE_SIZE = 2, 3
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 5, 7, 8


class ParquetFooter(NamedTuple):
    """Declarations of a file about itself.

    Attributes:
        columns: Number of leaf columns; a nested column counts once per leaf.
        rows: Number of rows.
        groups: The metadata of each column, for each row group.
    """

    columns: int
    rows: int
    groups: list[list[dict[int, Any]]]


def read_footer(body: bytes) -> ParquetFooter:
    """Return the footer; an empty one if its length does not fit the body, which readers refuse.

    Raises:
        ValueError: the footer is invalid.
    """
    size = int.from_bytes(body[-8:-4], "little")
    if not 0 < size <= len(body) - 12:
        return ParquetFooter(0, 0, [])
    file = CompactReader(body, len(body) - 8 - size).read_struct()
    leaves = sum(
        not get_count(element, _NUM_CHILDREN) for element in get_structs(file, _SCHEMA)[1:]
    )
    groups = [_read_group(group, leaves) for group in get_structs(file, _ROW_GROUPS)]
    return ParquetFooter(leaves, get_count(file, _NUM_ROWS), groups)


def _read_group(group: dict[int, Any], leaves: int) -> list[dict[int, Any]]:
    columns = [get_struct(chunk, _META_DATA) for chunk in get_structs(group, _COLUMNS)]
    if len(columns) != leaves or not all(column.keys() >= _REQUIRED_FIELDS for column in columns):
        raise ValueError(BROKEN)
    return columns


def check_size(body: bytes, footer: ParquetFooter, max_values: int, max_bytes: int) -> None:
    """Raise `ValueError` for a file that exceeds a limit once it is decoded.

    Args:
        max_values: Values of all columns.
        max_bytes: Decompressed bytes, with each text counted as often as it occurs.
    """
    value_count = page_bytes = 0
    long_text_columns: set[int] = set()
    for group in footer.groups:
        for index, column in enumerate(group):
            chunk = ColumnChunk(body, column)
            value_count += chunk.values
            page_bytes += chunk.page_bytes
            if value_count > max_values:
                raise ValueError(f"it has more than {max_values} values")
            if page_bytes > max_bytes:
                raise ValueError(f"its pages have more than {max_bytes} bytes")
            if chunk.max_text_bytes > max_bytes:
                if chunk.has_prefixes or get_count(column, _TYPE) != _BYTE_ARRAY:
                    raise ValueError(f"its texts may have more than {max_bytes} bytes")
                long_text_columns.add(index)
    if not long_text_columns:
        return
    if page_bytes + _measure_texts(body, sorted(long_text_columns)) > max_bytes:
        raise ValueError(f"its texts have more than {max_bytes} bytes")


class ColumnChunk:
    """The pages of one column in one row group.

    Attributes:
        values: Number of values, by the page headers.
        page_bytes: Decompressed size of all pages.
        max_text_bytes: Upper bound for the bytes of its texts.
        has_prefixes: Whether a page has `DELTA_BYTE_ARRAY` encoding.
    """

    def __init__(self, body: bytes, column: dict[int, Any]) -> None:
        self.values = self.page_bytes = self.max_text_bytes = 0
        self.has_prefixes = False
        physical_type, max_entry_bytes = get_count(column, _TYPE), 0
        for header in _read_page_headers(body, column):
            size = get_count(header, _UNCOMPRESSED_PAGE_SIZE)
            dictionary = get_struct(header, _DICTIONARY_PAGE)
            data, data_v2 = get_struct(header, _DATA_PAGE), get_struct(header, _DATA_PAGE_V2)
            count = get_count(data or data_v2, 1)
            self.page_bytes += size
            self.values += count
            if dictionary:
                entries = max(1, get_count(dictionary, 1))
                is_text = physical_type == _BYTE_ARRAY
                max_entry_bytes = max(max_entry_bytes, size if is_text else size // entries)
            elif _DELTA_BYTE_ARRAY in (get_count(data, 2), get_count(data_v2, 4)):
                self.has_prefixes = True
                self.max_text_bytes += count * size
        if physical_type in (_BYTE_ARRAY, _FIXED_LEN_BYTE_ARRAY):
            self.max_text_bytes += self.values * max_entry_bytes


def _read_page_headers(body: bytes, column: dict[int, Any]) -> Iterator[dict[int, Any]]:
    data, dictionary = get_count(column, _DATA_OFFSET), get_count(column, _DICTIONARY_OFFSET)
    offset = dictionary if 0 < dictionary < data else data
    size = get_count(column, _COMPRESSED_SIZE) if get_count(column, _NUM_VALUES) else 0
    end = min(len(body), offset + size) if size else 0
    while offset < end:
        reader = CompactReader(body, offset)
        try:
            header = reader.read_struct()
            length = get_count(header, _COMPRESSED_PAGE_SIZE)
        except ValueError:  # every reader stops at this page
            return
        yield header
        offset = reader.offset + length


def _measure_texts(body: bytes, columns: list[int]) -> int:
    """Return the bytes of these columns' texts, read with their dictionaries kept."""
    from pyarrow.parquet import ParquetFile

    schema = ParquetFile(io.BytesIO(body)).schema
    paths = [schema.column(index).path for index in columns]
    file = ParquetFile(io.BytesIO(body), read_dictionary=paths)
    total = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=paths, use_threads=False)
        for column in table.columns:
            total += sum(_count_text_bytes(chunk) for chunk in column.chunks)
    return total


def _count_text_bytes(array: Any) -> int:
    """Return the bytes of the texts in an Arrow array of any depth."""
    import pyarrow as pa
    from pyarrow import compute

    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = compute.binary_length(array.dictionary.cast(pa.binary())).fill_null(0)
        return int(compute.sum(lengths.cast(pa.int64()).take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(_count_text_bytes(child) for child in array.flatten())
    if pa.types.is_map(kind):
        return _count_text_bytes(array.keys) + _count_text_bytes(array.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _count_text_bytes(array.flatten())
    return int(array.nbytes)

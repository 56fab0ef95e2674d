"""What a Parquet file would take once it is read, told from its footer and its pages' heads. Nothing is decompressed to find out.

The footer's sizes may lie, and readers do not ask for them: they believe the head that stands before each page. Texts are
written once and referred to by number, or by the length that they share with the text before; so pages alone do not tell how
long a column of texts is, and where they could be too long, they are counted.

PyArrow is not asked for the footer: it makes a large object of each column that is announced, and ends the process over some
that are broken.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

from .thrift_compact import BROKEN, CompactReader, number, part, parts

MAGIC = b"PAR1"
_TEXT, _BYTES_OF_ONE_LENGTH = 6, 7  # physical types
_PREFIXES = 7  # the encoding of texts that begin like the one before
# Numbers of fields: of the file, a group of rows, a column there, and of what a column says of itself.
_SCHEMA, _ROWS, _GROUPS = 2, 3, 4
_CHILDREN, _COLUMNS, _ABOUT = 5, 1, 3
_KIND, _VALUES, _COMPRESSED, _DATA, _DICTIONARY = 1, 5, 7, 9, 11
_REQUIRED = {1, 2, 3, 4, 5, 6, 7, 9}
# Of a page's head: sizes, and what follows for pages of data (two versions) and of a dictionary.
_SIZE, _LENGTH, _DATA_1, _WORDS, _DATA_2 = 2, 3, 5, 7, 8


class ParquetFooter(NamedTuple):
    """What a file says of itself.

    Attributes:
        columns: Those that have values; an object of several has none itself.
        groups: What is said of each column, for each group of rows.
    """

    columns: int
    rows: int
    groups: list[list[dict[int, Any]]]


def footer(body: bytes) -> ParquetFooter:
    """Raises `ValueError` if it is broken."""
    size = int.from_bytes(body[-8:-4], "little")
    if not 0 < size <= len(body) - 12:
        return ParquetFooter(0, 0, [])  # as readers see at once
    file = CompactReader(body, len(body) - 8 - size).struct()
    leaves = sum(not number(element, _CHILDREN) for element in parts(file, _SCHEMA)[1:])
    groups = [
        [part(column, _ABOUT) for column in parts(group, _COLUMNS)]
        for group in parts(file, _GROUPS)
    ]
    for group in groups:
        if len(group) != leaves or not all(column.keys() >= _REQUIRED for column in group):
            raise ValueError(BROKEN)
    return ParquetFooter(leaves, number(file, _ROWS), groups)


def check(body: bytes, found: ParquetFooter, most_values: int, most_bytes: int) -> None:
    """Raises `ValueError` for a file of more values or bytes than these, or one whose pages cannot be found.

    Args:
        most_bytes: When decompressed, with each text written out.
    """
    values = taken = 0
    doubtful: set[int] = set()
    for group in found.groups:
        for at, about in enumerate(group):
            chunk = ColumnChunk(body, about)
            values += chunk.values
            taken += chunk.size
            if values > most_values:
                raise ValueError(f"it has more than {most_values} values")
            if taken > most_bytes:
                raise ValueError(f"its pages have more than {most_bytes} bytes")
            if chunk.longest > most_bytes:
                if chunk.prefixes or number(about, _KIND) != _TEXT:
                    raise ValueError(f"its texts may have more than {most_bytes} bytes")
                doubtful.add(at)
    if doubtful and taken + _written_out(body, sorted(doubtful)) > most_bytes:
        raise ValueError(f"its texts have more than {most_bytes} bytes")


class ColumnChunk:
    """The pages of one column in one group of rows.

    Attributes:
        size: Of all pages in bytes, decompressed.
        longest: The most bytes that its texts could have.
        prefixes: Whether some of them are told by what they share with the one before.
    """

    def __init__(self, body: bytes, about: dict[int, Any]) -> None:
        self.values = self.size = self.longest = 0
        self.prefixes = False
        kind, entry = number(about, _KIND), 0
        for head in _heads(body, about):
            size, words = number(head, _SIZE), part(head, _WORDS)
            first, second = part(head, _DATA_1), part(head, _DATA_2)
            count = number(first or second, 1)
            self.size += size
            self.values += count
            if words:
                entry = max(entry, size if kind == _TEXT else size // max(1, number(words, 1)))
            elif _PREFIXES in (number(first, 2), number(second, 4)):
                self.prefixes = True
                self.longest += count * size
        if kind in (_TEXT, _BYTES_OF_ONE_LENGTH):
            self.longest += self.values * entry


def _heads(body: bytes, about: dict[int, Any]) -> Iterator[dict[int, Any]]:
    data, dictionary = number(about, _DATA), number(about, _DICTIONARY)
    at = dictionary if 0 < dictionary < data else data
    end = min(len(body), at + number(about, _COMPRESSED)) if number(about, _VALUES) else 0
    while at < end:
        reader = CompactReader(body, at)
        try:
            head = reader.struct()
            length = number(head, _LENGTH)
        except ValueError:  # no reader comes further
            return
        yield head
        at = reader.at + length


def _written_out(body: bytes, columns: list[int]) -> int:
    """How many bytes the texts of these columns have, read without writing any out twice."""
    from pyarrow.parquet import ParquetFile

    paths = [ParquetFile(io.BytesIO(body)).schema.column(at).path for at in columns]
    file = ParquetFile(io.BytesIO(body), read_dictionary=paths)
    total = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=paths, use_threads=False)
        total += sum(_texts(piece) for column in table.columns for piece in column.chunks)
    return total


def _texts(array: Any) -> int:
    """The bytes of the texts in an array of any depth."""
    import pyarrow as pa
    from pyarrow import compute

    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = compute.binary_length(array.dictionary.cast(pa.binary())).fill_null(0)
        return int(compute.sum(lengths.cast(pa.int64()).take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(_texts(one) for one in array.flatten())
    if pa.types.is_map(kind):
        return _texts(array.keys) + _texts(array.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _texts(array.flatten())
    return int(array.nbytes)

"""The one way in for rows of a file: whoever made it, what comes out is what a run writes.

A file may be someone else's, or damaged. It is read with limits on what it takes in memory, and
what its rows are is checked once, here, so that nobody has to ask again. What is wrong is a
`NotRowsError`, a sentence that names the row.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rastermeta_async.catalog.checks import children, first_flaw
from rastermeta_async.catalog.jsonform import from_lines
from rastermeta_async.catalog.pages import Chunk, chunk_of
from rastermeta_async.record import SCHEMA

MAX_FOOTER_BYTES = 64 * 1024 * 1024
_OPTIONS = {
    "page_checksum_verification": True,
    "thrift_string_size_limit": 16 * 1024 * 1024,
    "thrift_container_size_limit": 65_536,
}
"""How Parquet files are opened: with limits of texts, and of lists of row groups or columns."""

MAX_GROUP_BYTES = 512 * 1024 * 1024
MAX_PAGE_BYTES = 128 * 1024 * 1024
"""Of the columns that are read of a row group, decompressed, and of a page."""

MAX_VALUES = 1 << 25
"""Of lists and maps in a row group, in each column."""

MAX_BATCH_BYTES = 256 * 1024 * 1024
"""Texts of rows that are at hand at once, written out."""

_FEW_BYTES = 1024 * 1024
"""Texts that need not be measured."""

MAX_LINE_BYTES = 64 * 1024 * 1024
_LINES = 256
_LINES_BYTES = 2 * 1024 * 1024
"""Lines that are rows at once: as objects they take many times their bytes."""


class NotRowsError(ValueError):
    """A file holds what no run writes; the message says where, and what."""


class ParquetRows:
    """An open Parquet file whose columns are those of a catalog.

    Args:
        file: opened to read bytes; it is not closed.

    Raises:
        NotRowsError: it has other columns, or no run writes a file like it.
        pa.ArrowException, OSError: it is no Parquet file, or a damaged one.
    """

    def __init__(self, file: IO[bytes] | io.RawIOBase) -> None:
        self._file: Any = file
        table = _opened(file)
        self.meta = table.metadata
        if any(one.num_rows < 0 for one in self._groups()):
            raise NotRowsError("a row group has less than no rows")
        if self.meta.num_rows > file.seek(0, io.SEEK_END):  # a path of its own takes a byte
            raise NotRowsError(f"it claims {self.meta.num_rows:,} rows in fewer bytes")
        schema = self.meta.schema
        self._paths = [schema.column(index).path for index in range(len(schema))]
        self._tables: dict[tuple[str, ...], pq.ParquetFile] = {(): table}
        if not table.schema_arrow.equals(SCHEMA):
            raise NotRowsError("its columns are not those of a catalog")

    def _groups(self) -> Iterator[Any]:
        return map(self.meta.row_group, range(self.meta.num_row_groups))

    def batches(
        self,
        columns: Sequence[str] | None = None,
        rows: int = 1024,
        groups: Sequence[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows in batches that do not span row groups.

        Args:
            columns: which; None: all.
            rows: of a batch, at most.
            groups: which row groups; None: all.

        Raises:
            NotRowsError: see the class; also a row that no run writes.
        """
        names = list(columns or SCHEMA.names)
        schema = pa.schema([SCHEMA.field(name) for name in names])
        wanted = range(self.meta.num_row_groups) if groups is None else groups
        for number in wanted:
            told = self._checked(number, frozenset(names))
            table = self._table(tuple(name for name, chunk in told.items() if chunk.has_dictionary))
            for batch in table.iter_batches(
                rows, row_groups=[number], columns=names, use_threads=False
            ):
                yield _written_out(batch.select(names), schema)

    def _checked(self, number: int, names: frozenset[str]) -> dict[str, Chunk]:
        """Return what is told of the columns of a row group that are read."""
        group = self.meta.row_group(number)
        told = {}
        for index in range(len(self._paths)):
            path = self._paths[index]
            if path.partition(".")[0] not in names:
                continue
            try:
                told[path] = chunk_of(self._file, group.column(index))
            except ValueError as error:
                raise NotRowsError(f"row group {number + 1}: {path}: {error}") from error
        size = sum(chunk.size for chunk in told.values())
        if size > MAX_GROUP_BYTES or any(one.largest > MAX_PAGE_BYTES for one in told.values()):
            raise NotRowsError(
                f"row group {number + 1} takes {size:,} bytes in memory: write it in smaller ones"
            )
        if any(chunk.values > max(MAX_VALUES, group.num_rows) for chunk in told.values()):
            raise NotRowsError(f"row group {number + 1} has lists that are too long")
        return told

    def _table(self, with_dictionary: tuple[str, ...]) -> pq.ParquetFile:
        """Return the file, with columns left as places in a dictionary."""
        if with_dictionary not in self._tables:
            self._tables.clear()
            self._tables[with_dictionary] = pq.ParquetFile(
                self._file,
                metadata=self.meta,
                read_dictionary=[*with_dictionary],
                **_OPTIONS,
            )
        return self._tables[with_dictionary]


def footer_of(file: IO[bytes] | io.RawIOBase) -> pq.FileMetaData:
    """Return the footer of an open Parquet file.

    Raises:
        NotRowsError: it is too large, or no UTF-8.
        pa.ArrowException, OSError: it is no Parquet file, or a damaged one.
    """
    return _opened(file).metadata


def _opened(file: IO[bytes] | io.RawIOBase) -> pq.ParquetFile:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 8))
    length, _ = struct.unpack("<I4s", (file.read(8) or b"").rjust(8))
    if MAX_FOOTER_BYTES < length <= size:
        raise NotRowsError(f"its footer has {length:,} bytes")
    file.seek(0)
    try:
        return pq.ParquetFile(file, **_OPTIONS)
    except UnicodeDecodeError as error:
        raise NotRowsError("its columns have names that are no UTF-8") from error


def _written_out(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows with their texts in place of places in a dictionary."""
    if batch.schema.equals(schema):
        return batch
    pairs = list(zip(batch.columns, schema.types, strict=True))
    size = sum(_text_bytes(column) for column, kind in pairs if column.type != kind)
    if size > MAX_BATCH_BYTES:
        raise NotRowsError(f"{batch.num_rows:,} rows have texts of {size:,} bytes")
    columns = [column if column.type == kind else column.cast(kind) for column, kind in pairs]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _text_bytes(values: pa.Array) -> int:
    """Return how many bytes the texts of dictionaries take where each is written out."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(values.dictionary)
        longest = pc.max(lengths).as_py() or 0
        if longest * len(values) <= _FEW_BYTES:
            return longest * len(values)
        return pc.sum(lengths.take(values.indices)).as_py() or 0
    return sum(map(_text_bytes, children(values)))


def json_batches(
    file: IO[bytes] | io.RawIOBase, columns: Sequence[str] | None = None, *, array: bool
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of JSON, an object a line.

    Args:
        file: opened to read bytes; it need not be buffered, and is closed in the end.
        columns: which; None: all.
        array: the lines make an array.

    Raises:
        NotRowsError: a line is no row.
    """
    with io.BufferedReader(file) if isinstance(file, io.RawIOBase) else file as content:
        lines = _objects(content) if array else _lines(content)
        while some := _some(lines):
            yield _rows_in(some, columns)


_Lines = Iterator[tuple[int, bytes]]


def _lines(file: IO[bytes]) -> _Lines:
    for number in itertools.count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise NotRowsError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes")
        if not line:
            return
        yield number, line


def _objects(file: IO[bytes]) -> _Lines:
    """Yield the objects that stand in the lines of an array that this program wrote."""
    for number, line in _lines(file):
        if line.strip() not in (b"[", b"]", b"[]", b""):
            yield number, line.rstrip(b",\n")


def _some(lines: _Lines) -> list[tuple[int, bytes]]:
    some: list[tuple[int, bytes]] = []
    size = 0
    for number, line in lines:
        some.append((number, line))
        size += len(line)
        if len(some) == _LINES or size >= _LINES_BYTES:
            break
    return some


def _rows_in(lines: Sequence[tuple[int, bytes]], columns: Sequence[str] | None) -> pa.RecordBatch:
    try:
        return from_lines((line.decode() for _, line in lines), columns)
    except _NO_ROW as error:
        if len(lines) > 1:
            for line in lines:
                _rows_in([line], columns)
        raise NotRowsError(
            f"line {lines[0][0]} is no row of a catalog: it was not made by this version of "
            "rastermeta, or it is damaged"
        ) from error


_NO_ROW = (
    ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    pa.ArrowException,
)  # fmt: skip


def checked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches whose rows are such as a run writes.

    Raises:
        NotRowsError: one is not; it is named by its number, from 1.
    """
    before = 0
    for batch in batches:
        if flaw := first_flaw(batch):
            raise NotRowsError(f"row {before + flaw.at + 1}: {flaw.what}")
        before += batch.num_rows
        yield batch

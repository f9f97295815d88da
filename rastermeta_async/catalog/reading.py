"""Reads the rows of a file and makes sure that they are such as a run writes.

A file may be damaged, or made by another program. It is read with limits on its memory. Its rows
are checked once, here, so that other modules need not check them. A `NotRowsError` says what is
wrong with which row.
"""

from __future__ import annotations

import datetime as dt
import io
import itertools
import struct
import types
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rastermeta_async.catalog.json_rows import from_lines
from rastermeta_async.catalog.pages import ColumnChunk, chunk_of
from rastermeta_async.footprints.limits import MULTIPOLYGON, POLYGON, is_shape
from rastermeta_async.model.record import (
    GONE,
    MAX_MESSAGE,
    SCHEMA,
    SCHEMA_VERSION,
    SUCCESSES,
    VERSION_KEY,
    BandTag,
    BBox,
    Record,
    Tag,
    readable,
)


class Flaw(NamedTuple):
    """A row that no run writes."""

    at: int
    """Index of the row, from 0."""
    what: str


def first_flaw(rows: pa.RecordBatch) -> Flaw | None:
    """Return the first row that no run writes; None: there is none.

    Args:
        rows: some columns of `SCHEMA`.
    """
    if not (what := _flaw(rows)):
        return None
    first, count = 0, rows.num_rows
    while count > 1:
        half = count // 2
        if found := _flaw(rows.slice(first, half)):
            what, count = found, half
        else:
            first, count = first + half, count - half
    return Flaw(first, _flaw(rows.slice(first, count)) or what)


def _flaw(rows: pa.RecordBatch) -> str:
    """Return what is wrong with some of the rows; empty if nothing is."""
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            return f"{name} is damaged, or no UTF-8"
        if null := _null(name, column, _RULES[name]):
            return f"{null} is null"
        check = _CHECKS.get(name)
        if check and (what := check(column)):
            return f"{name} {what}"
    if {"count", "width", "height"} <= set(rows.schema.names):
        sides = pc.and_(pc.is_valid(rows["width"]), pc.is_valid(rows["height"]))
        if pc.any(pc.and_not(pc.greater(rows["count"], 0), sides)).as_py():
            return "there are bands, but width or height is null"
    return ""


# Nulls


class _Rule(NamedTuple):
    """Where values of a type in `Record` may be null."""

    optional: bool
    inner: tuple[tuple[str, _Rule], ...]
    """Rules of the fields, or of the elements, each with the suffix of its name."""

    @property
    def is_void(self) -> bool:
        """Whether all values may be null, so that no check is needed."""
        return self.optional and all(rule.is_void for _, rule in self.inner)


def _rule(hint: Any) -> _Rule:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if optional := get_origin(hint) is types.UnionType:
        (hint,) = (one for one in get_args(hint) if one is not types.NoneType)
    inner = get_args(hint)
    if hasattr(hint, "_fields"):
        named = get_type_hints(hint)
        return _Rule(optional, tuple((f".{name}", _rule(one)) for name, one in named.items()))
    if get_origin(hint) is dict:
        inner = (BandTag if inner[0] is int else Tag,)
    return _Rule(optional, ((" (an element)", _rule(inner[0])),) if inner else ())


_RULES = {name: _rule(hint) for name, hint in get_type_hints(Record).items()}


def _null(name: str, values: pa.Array, rule: _Rule) -> str:
    """Return the name of a value that is null but must not be; empty if there is none."""
    if rule.is_void:
        return ""
    if values.null_count and not rule.optional:
        return name
    for (suffix, of_child), child in zip(rule.inner, children(values), strict=True):
        if found := _null(name + suffix, child, of_child):
            return found
    return ""


def children(values: pa.Array) -> list[pa.Array]:
    """Return the fields, or the elements, of all values that are not null."""
    kind = values.type
    if pa.types.is_struct(kind):
        there = values.drop_null() if values.null_count else values
        return [there.field(index) for index in range(kind.num_fields)]
    if not pa.types.is_list(kind):
        return []
    # In Arrow a null list may have elements, but not if it was read from a file.
    start, end = (values.offsets[at].as_py() for at in (0, len(values))) if len(values) else (0, 0)
    return [values.values.slice(start, end - start)]


# Ranges

_LONGEST = 20 * MAX_MESSAGE
"""Limit of characters in a message; searching it for secrets takes 10 s a million characters."""

_STATUSES = SUCCESSES | {"error", "fatal", GONE}
_FIRST, _LAST = (
    (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    for moment in (dt.datetime.min, dt.datetime.max)
)
_SHAPES = pa.array([POLYGON, MULTIPOLYGON])
_LIMITS = BBox(-180.0, -90.0, 180.0, 90.0)


def _known(values: pa.Array) -> str:
    return "" if _STATUSES.issuperset(values.unique().to_pylist()) else "is none that there is"


def _counted(values: pa.Array) -> str:
    least = pc.min(values).as_py()
    return "is negative" if least is not None and least < 0 else ""


def _of_length(length: int) -> Callable[[pa.Array], str]:
    def check(values: pa.Array) -> str:
        lengths = pc.list_value_length(values).unique().to_pylist()
        return "" if {length, None}.issuperset(lengths) else f"has not {length} numbers"

    return check


def _short(texts: pa.Array) -> str:
    longest = pc.max(pc.utf8_length(texts)).as_py() or 0
    return f"has more than {_LONGEST:,} characters" if longest > _LONGEST else ""


def _dated(values: pa.Array) -> str:
    ends = pc.min_max(values.cast(pa.int64()))
    known = [end for end in ends.as_py().values() if end is not None]
    inside = all(_FIRST <= end <= _LAST for end in known)
    return "" if inside else "is in no year from 1 to 9999"


def _on_earth(boxes: pa.Array) -> str:
    there = boxes.drop_null() if boxes.null_count else boxes
    west, south, east, north = (np.asarray(there.field(name)) for name in BBox._fields)
    inside = (
        (west >= _LIMITS.xmin) & (west <= east) & (east <= _LIMITS.xmax)
        & (south >= _LIMITS.ymin) & (south <= north) & (north <= _LIMITS.ymax)
    )  # fmt: skip
    return "" if inside.all() else "is no box of degrees, from -180 to 180 and from -90 to 90"


def _shaped(shapes: pa.Array) -> str:
    heads = pc.binary_slice(shapes, 0, len(POLYGON))
    known = pc.or_(pc.is_in(heads, _SHAPES), pc.is_null(heads))
    several = shapes.filter(pc.fill_null(pc.equal(heads, MULTIPOLYGON), False))
    fine = pc.all(known).as_py() is not False and all(map(is_shape, several.to_pylist()))
    return "" if fine else "is no WKB of a polygon or of several"


def _exact(texts: pa.Array) -> str:
    if texts.null_count == len(texts):
        return ""
    numbers = pc.match_substring_regex(texts, r"^(nan|-?inf|-?[0-9]{1,20})$")
    return "is no number" if pc.all(numbers).as_py() is False else ""


def _exact_in_bands(bands: pa.Array) -> str:
    (there,) = children(bands)
    what = _exact(there.field("nodata_text"))
    return what and f"has a nodata_text that {what}"


_CHECKS: dict[str, Callable[[pa.Array], str]] = {
    "status": _known, "res": _of_length(2), "transform": _of_length(6), "count": _counted,
    "width": _counted, "height": _counted, "gcp_count": _counted, "file_size": _counted,
    "mtime": _dated, "bbox": _on_earth, "geometry": _shaped, "bands": _exact_in_bands,
    "nodata_text": _exact,
    "error_message": _short,
}  # fmt: skip


MAX_FOOTER_BYTES = 64 * 1024 * 1024
_OPTIONS = {
    "page_checksum_verification": True,
    "thrift_string_size_limit": 16 * 1024 * 1024,
    "thrift_container_size_limit": 65_536,
}
"""Options for opening Parquet files: limits of texts, and of lists of row groups or columns."""

MAX_GROUP_BYTES = 512 * 1024 * 1024
MAX_PAGE_BYTES = 128 * 1024 * 1024
"""Limits of decompressed bytes: of the columns that are read in a row group, and of a page."""

MAX_VALUES = 1 << 25
"""Limit of the values of lists in each column of a row group."""

MAX_BATCH_BYTES = 256 * 1024 * 1024
"""Limit of the texts of a batch, after decoding of dictionaries."""

_FEW_BYTES = 1024 * 1024
"""Texts up to this size need no exact measure."""

MAX_LINE_BYTES = 64 * 1024 * 1024
_LINES = 256
_LINES_BYTES = 2 * 1024 * 1024
"""Limits of the lines decoded at once, as objects take many times the bytes of their lines."""


class NotRowsError(ValueError):
    """A file has content that no run writes; the message says what is wrong, and where."""


class ParquetRows:
    """Reads rows from an open Parquet file that has the columns of a catalog.

    Args:
        file: opened to read bytes; it is not closed.

    Raises:
        NotRowsError: the file has other columns, or no run writes a file like it.
        pa.ArrowException, OSError: it is not a Parquet file, or it is damaged.
    """

    def __init__(self, file: IO[bytes] | io.RawIOBase) -> None:
        self._file: Any = file
        table = _opened(file)
        self.meta = table.metadata
        if any(one.num_rows < 0 for one in self._groups()):
            raise NotRowsError("a row group has less than no rows")
        if self.meta.num_rows > file.seek(0, io.SEEK_END):  # each row has its own path: >= 1 byte
            raise NotRowsError(f"it claims {self.meta.num_rows:,} rows in fewer bytes")
        # Not from `meta.schema`: meta and schema refer to each other, and such a pair stays in
        # memory until garbage is collected, 150 KiB for each part that a run reads.
        self._paths = [
            group.column(index).path_in_schema
            for group in itertools.islice(self._groups(), 1)
            for index in range(self.meta.num_columns)
        ]
        self._tables: dict[tuple[str, ...], pq.ParquetFile] = {(): table}
        if not table.schema_arrow.equals(SCHEMA):
            other = _other_version(self.meta)
            raise NotRowsError(f"it {other}" if other else "its columns are not those of a catalog")

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
            columns: names of the columns to read; None: all.
            rows: limit of rows in a batch.
            groups: indices of the row groups to read, from 0; None: all.

        Raises:
            NotRowsError: a row group is damaged, or takes too much memory.
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

    def _checked(self, number: int, names: frozenset[str]) -> dict[str, ColumnChunk]:
        """Return the sizes of the columns that are read in a row group; raise if too large."""
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
        """Return the file, opened so that these columns stay dictionary-encoded."""
        if with_dictionary not in self._tables:
            self._tables.clear()
            self._tables[with_dictionary] = pq.ParquetFile(
                self._file,
                metadata=self.meta,
                read_dictionary=[*with_dictionary],
                **_OPTIONS,
            )
        return self._tables[with_dictionary]


NOT_OURS = "was not made by rastermeta"


def fault_of(file: IO[bytes]) -> str | None:
    """Return why a Parquet file is no catalog of this version, as the end of a sentence.

    Raises:
        NotRowsError, pa.ArrowException, OSError: as for `ParquetRows`.
    """
    footer = footer_of(file)
    if VERSION_KEY not in (footer.metadata or {}):
        return NOT_OURS
    if other := _other_version(footer):
        return other
    if not footer.schema.to_arrow_schema().equals(SCHEMA):
        return "was changed by another program: its columns are not those of a catalog"
    return None


def _other_version(footer: pq.FileMetaData) -> str:
    version = (footer.metadata or {}).get(VERSION_KEY)
    if version in (None, str(SCHEMA_VERSION).encode()):
        return ""
    return (
        f"was made by another version of rastermeta (schema {readable(version)}; this one "
        f"has {SCHEMA_VERSION})"
    )


def footer_of(file: IO[bytes] | io.RawIOBase) -> pq.FileMetaData:
    """Return the footer of an open Parquet file.

    Raises:
        NotRowsError: the footer is too large, or a name in it is not UTF-8.
        pa.ArrowException, OSError: it is not a Parquet file, or it is damaged.
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
    """Return rows with their dictionaries decoded to texts."""
    if batch.schema.equals(schema):
        return batch
    pairs = list(zip(batch.columns, schema.types, strict=True))
    size = sum(_text_bytes(column) for column, kind in pairs if column.type != kind)
    if size > MAX_BATCH_BYTES:
        raise NotRowsError(f"{batch.num_rows:,} rows have texts of {size:,} bytes")
    columns = [column if column.type == kind else column.cast(kind) for column, kind in pairs]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _text_bytes(values: pa.Array) -> int:
    """Return how many bytes the texts of dictionaries take after decoding, or an upper bound."""
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
    """Yield the rows of a JSON file that has one object a line.

    Args:
        file: opened to read bytes; it may be unbuffered, and is closed in the end.
        columns: names of the columns to return; None: all.
        array: the lines form a JSON array.

    Raises:
        NotRowsError: a line is not a row.
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
    """Yield the objects in the lines of an array that this program wrote."""
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
    """Yield the batches after checking that their rows are such as a run writes.

    Raises:
        NotRowsError: a row is not; the message gives its number, from 1.
    """
    before = 0
    for batch in batches:
        if flaw := first_flaw(batch):
            raise NotRowsError(f"row {before + flaw.at + 1}: {flaw.what}")
        before += batch.num_rows
        yield batch

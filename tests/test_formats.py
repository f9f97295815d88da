from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from factory import exact, failed, record, records_of, some_records, table
from hypothesis import given, settings
from hypothesis import strategies as st

from rastermeta_async.catalog.formats import (
    FORMATS,
    Grouper,
    JsonFormat,
    NdjsonFormat,
    ParquetFormat,
    format_of,
    grouped,
)
from rastermeta_async.model.errors import ForeignOutputError, SettingsError
from rastermeta_async.model.record import (
    SCHEMA,
    SCHEMA_VERSION,
    VERSION_KEY,
    BBox,
    Bounds,
    Record,
    from_batch,
    to_batch,
)
from rastermeta_async.model.row_ops import row_bytes

KINDS = [ParquetFormat, NdjsonFormat, JsonFormat]
Kind = type[ParquetFormat] | type[NdjsonFormat]


def of_length(length: int) -> Record:
    """Return a record whose size grows by one byte with `length`."""
    return failed(b"p" * length)


def split(batch: pa.RecordBatch, cuts: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Yield `batch` in pieces, every other one rebuilt so that it shares no buffer."""
    ends = sorted({0, *(cut for cut in cuts if cut < batch.num_rows), batch.num_rows})
    for number, (start, stop) in enumerate(itertools.pairwise(ends)):
        piece = batch.slice(start, stop - start)
        yield to_batch(list(from_batch(piece))) if number % 2 else piece


def greedy(sizes: Sequence[int], max_rows: int, max_bytes: int) -> list[int]:
    """Return how many rows each group has to have."""
    groups: list[int] = []
    rows = total = 0
    for size in sizes:
        if rows and (rows == max_rows or total + size > max_bytes):
            groups.append(rows)
            rows = total = 0
        rows, total = rows + 1, total + size
    return [*groups, rows] if rows else groups


def size_of(row: Record) -> int:
    return int(row_bytes(to_batch([row]))[0])


def content_of(kind: Kind, groups: Iterator[pa.Table]) -> bytes:
    file = io.BytesIO()
    kind().write(file, groups)
    return file.getvalue()


lengths = st.lists(st.integers(0, 300), max_size=40)
cut_points = st.lists(st.integers(1, 39), max_size=10)


@given(lengths, cut_points, st.integers(1, 12), st.integers(1, 3000))
def test_groups_depend_on_the_rows_alone(
    lengths: list[int], cuts: list[int], max_rows: int, max_bytes: int
) -> None:
    records = [of_length(length) for length in lengths]
    expected = greedy([size_of(row) for row in records], max_rows, max_bytes)
    groups = list(grouped(split(to_batch(records), cuts), max_rows, max_bytes))
    assert [group.num_rows for group in groups] == expected
    assert records_of(groups) == records


def test_a_group_closes_on_bytes_at_the_same_row_however_the_rows_come() -> None:
    rows = [of_length(10)] * 24
    limit = 8 * size_of(rows[0])
    at_once = grouped([to_batch(rows)], 100, limit)
    one_by_one = grouped([to_batch([row]) for row in rows], 100, limit)
    assert [group.num_rows for group in one_by_one] == [8, 8, 8]
    assert [group.num_rows for group in at_once] == [8, 8, 8]


def test_a_row_above_the_limit_is_alone() -> None:
    rows = [of_length(1), of_length(5000), of_length(1), of_length(1)]
    groups = grouped([to_batch(rows)], 100, size_of(of_length(1)) * 2)
    assert [group.num_rows for group in groups] == [1, 1, 2]


@given(lengths, cut_points, st.integers(1, 12), st.integers(1, 3000))
def test_limits_are_kept(
    lengths: list[int], cuts: list[int], max_rows: int, max_bytes: int
) -> None:
    batch = to_batch([of_length(length) for length in lengths])
    for group in grouped(split(batch, cuts), max_rows, max_bytes):
        sizes = [size_of(row) for row in records_of([group])]
        assert 1 <= len(sizes) <= max_rows
        assert sum(sizes) <= max_bytes or len(sizes) == 1


def test_a_grouper_tells_how_many_rows_wait_and_starts_anew() -> None:
    grouper = Grouper(3, 10**6)
    assert list(grouper.push(to_batch([]))) == []
    assert list(grouper.push(to_batch([of_length(1)] * 2))) == []
    assert grouper.rows == 2
    complete = list(grouper.push(to_batch([of_length(2)] * 5)))
    assert [group.num_rows for group in complete] == [3, 3]
    assert (grouper.rows, grouper.flush().num_rows, grouper.rows) == (1, 1, 0)
    empty = grouper.flush()
    assert empty.num_rows == 0
    assert empty.schema.equals(SCHEMA)


def test_rows_that_come_singly_take_no_more_than_those_that_come_together() -> None:
    """Each buffer of a batch takes 64 bytes at least, and a batch has more than a hundred."""
    rows = [of_length(1)] * 320
    before = pa.total_allocated_bytes()
    together = to_batch(rows).nbytes
    grouper = Grouper(1000, 10**6)
    for row in rows:
        assert list(grouper.push(to_batch([row]))) == []
    assert pa.total_allocated_bytes() - before < 3 * together
    assert grouper.flush().num_rows == 320


def test_a_group_is_complete_as_soon_as_it_is_full() -> None:
    grouper = Grouper(2, 10**6)
    assert [group.num_rows for group in grouper.push(to_batch([of_length(1)] * 2))] == [2]
    whole = Grouper(2, 10**6)
    for rows in (3, 1, 2, 5, 1):  # rows of one path stay together, and the next ones fit again
        groups = [*whole.push_whole(to_batch([of_length(1)] * rows))]
        assert [group.num_rows for group in groups] == {3: [3], 1: [], 2: [1, 2], 5: [5]}[rows]
        assert list(whole.push(to_batch([]))) == []
    by_bytes = Grouper(100, size_of(of_length(1)))
    assert [group.num_rows for group in by_bytes.push(to_batch([of_length(1)]))] == [1]


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(records=st.lists(some_records(), max_size=5), size=st.integers(1, 4))
def test_what_is_written_is_read_back(
    kind: Kind, tmp_path_factory: pytest.TempPathFactory, records: list[Record], size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip"
    path.write_bytes(content_of(kind, grouped([to_batch(records)], size, 10**9)))
    batches = list(kind().read(io.FileIO(path)))
    assert exact(records_of(batches)) == exact(records)
    assert all(batch.schema.equals(SCHEMA) for batch in batches)


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_are_read_back_in_order_and_in_small_batches(kind: Kind, tmp_path: Path) -> None:
    records = [record(b"/%04d.tif" % at) for at in range(2500)]
    path = tmp_path / "catalog"
    path.write_bytes(content_of(kind, grouped([to_batch(records)], 1500, 10**9)))
    batches = list(kind().read(io.FileIO(path)))
    assert max(batch.num_rows for batch in batches) <= 1024
    assert records_of(batches) == records


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(records=st.lists(some_records(), max_size=20), cuts=cut_points, size=st.integers(1, 8))
def test_the_same_rows_are_the_same_bytes(
    kind: Kind, records: list[Record], cuts: list[int], size: int
) -> None:
    batch = to_batch(records)
    at_once = content_of(kind, grouped([batch], size, 2000))
    in_pieces = content_of(kind, grouped(split(batch, cuts), size, 2000))
    assert in_pieces == at_once


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_are_the_same_bytes_over_many_pages(kind: Kind) -> None:
    rows = [
        record(b"/%05d.tif" % at, dataset_tags={f"key-{at}": "v" * (at % 1000)}, nodata=at / 7)
        for at in range(3000)
    ]
    rows[::3] = [failed(b"/%05d\xff.tif" % at) for at in range(0, 3000, 3)]
    batch = to_batch(rows)
    at_once = content_of(kind, grouped([batch], 2500, 10**9))
    in_pieces = content_of(kind, grouped(split(batch, range(0, 3000, 77)), 2500, 10**9))
    assert in_pieces == at_once


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_are_a_catalog_too(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    path.write_bytes(content_of(kind, iter([])))
    assert list(kind().read(io.FileIO(path))) == []


def test_parquet_says_its_version_and_has_a_row_group_a_group() -> None:
    content = content_of(ParquetFormat, grouped([to_batch([record()] * 7)], 3, 10**9))
    file = pq.ParquetFile(io.BytesIO(content))
    assert file.schema_arrow.equals(SCHEMA)
    assert file.schema_arrow.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
    assert file.metadata.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
    rows = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    assert rows == [3, 3, 1]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_json_is_one_strict_array(number: int) -> None:
    rows = [
        record(b"/%d\xff\n.tif" % at, nodata=float("nan"), nodata_text="nan")
        for at in range(number)
    ]
    array = strict(content_of(JsonFormat, grouped([to_batch(rows)], 2, 10**9)).decode())
    found = [(row["nodata"], row["nodata_text"]) for row in array]
    assert found == [(None, "nan")] * number
    assert [row["filepath"] for row in array] == [row.filepath for row in rows]


def test_ndjson_is_one_strict_object_a_line() -> None:
    rows = [record(b"/%d\n.tif" % at, nodata=float("inf")) for at in range(5)]
    lines = content_of(NdjsonFormat, grouped([to_batch(rows)], 2, 10**9)).split(b"\n")
    assert lines.pop() == b""
    assert [strict(line.decode())["filepath"] for line in lines] == [row.filepath for row in rows]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.parquet", ParquetFormat),
        ("a.json", JsonFormat),
        ("a.ndjson", NdjsonFormat),
        ("a.parquet.jsonl", NdjsonFormat),
    ],
)
def test_the_name_tells_the_format(name: str, kind: type) -> None:
    assert type(format_of(name)) is kind


@pytest.mark.parametrize("name", ["catalog", "catalog.csv", "catalog.parquet.gz", "parquet", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        format_of(name)
    assert str(caught.value) == (
        f"{name}: the output's name must end in one of .parquet, .ndjson, .jsonl, .json, or be - "
        "for stdout"
    )
    assert all(ending in str(caught.value) for ending in FORMATS)


def parquet(path: Path, schema: pa.Schema) -> str:
    pq.write_table(schema.empty_table(), path)
    return str(path)


def refusal(kind: Kind, path: str) -> str:
    before = Path(path).read_bytes()
    with pytest.raises(ForeignOutputError) as caught:
        kind().check(path)
    assert Path(path).read_bytes() == before
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 40 + b"PAR1", b"notes\n"])
def test_a_file_that_is_no_parquet_is_foreign(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.parquet"
    path.write_bytes(content)
    assert refusal(ParquetFormat, str(path)) == (
        f"{path} was not made by rastermeta. Give --overwrite to replace it, or another -o."
    )


def test_a_parquet_file_without_our_key_is_foreign(tmp_path: Path) -> None:
    path = parquet(tmp_path / "catalog.parquet", SCHEMA.with_metadata({"other": "1"}))
    assert refusal(ParquetFormat, path) == (
        f"{path} was not made by rastermeta. Give --overwrite to replace it, or another -o."
    )


@pytest.mark.parametrize("version", ["0", "1", "2.1"])
def test_a_catalog_of_another_version_is_refused(tmp_path: Path, version: str) -> None:
    path = parquet(tmp_path / "catalog.parquet", SCHEMA.with_metadata({VERSION_KEY: version}))
    assert refusal(ParquetFormat, path) == (
        f"{path} was made by another version of rastermeta (schema {version}; this one has "
        f"{SCHEMA_VERSION}). Give --overwrite to replace it, or another -o."
    )


def test_a_catalog_with_other_columns_is_refused(tmp_path: Path) -> None:
    schema = SCHEMA.append(pa.field("colour", pa.string()))
    path = parquet(tmp_path / "catalog.parquet", schema)
    assert "was changed by another program: its columns are not" in refusal(ParquetFormat, path)


def test_our_own_parquet_passes(tmp_path: Path) -> None:
    path = tmp_path / "catalog.parquet"
    path.write_bytes(content_of(ParquetFormat, grouped([to_batch([record()])], 1, 10**9)))
    ParquetFormat().check(str(path))


@pytest.mark.parametrize("kind", [NdjsonFormat, JsonFormat])
def test_json_without_its_log_is_foreign(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "catalog.json"
    path.write_bytes(content_of(kind, grouped([to_batch([record()])], 1, 10**9)))
    assert refusal(kind, str(path)) == (
        f"{path} was not made by rastermeta, or its checkpoint log is gone. "
        "Give --overwrite to replace it, or another -o."
    )


def test_what_differs_has_no_dictionary_and_what_nobody_compares_no_statistics() -> None:
    square = shapely.to_wkb(shapely.box(1, 2, 3, 4), byte_order=1)
    band_tags = {1: {"STATISTICS_MEAN": "1"}}
    rows = [
        record(b"%d" % at, geometry=square, crs="EPSG:4326", bounds=Bounds(1, 2, 3, 4),
               bbox=BBox(1, 2, 3, 4), dataset_tags={"A": "1"}, band_tags=band_tags,
               imagery_tags={"SATELLITEID": "1"})
        for at in range(9)
    ]  # fmt: skip
    content = content_of(ParquetFormat, iter([table(rows)]))
    group = pq.read_metadata(io.BytesIO(content)).row_group(0)
    columns = {
        column.path_in_schema: column for column in map(group.column, range(group.num_columns))
    }
    alike = {name for name, column in columns.items() if column.has_dictionary_page}
    names = {name for name in columns if name.endswith(".key")}
    assert {
        "crs",
        "status",
        "driver",
        "width",
        "band_tags.list.element.band",
        "bands.list.element.dtype",
        *names,
    } <= alike
    values = {name for name in columns if name.endswith(".element.value")}
    assert len(names) == 3
    assert len(values) == 3
    assert alike.isdisjoint({"filepath", "geometry", "bbox.xmin", "bounds.left", "mtime", *values})
    compared = {name for name, column in columns.items() if column.is_stats_set}
    limits = {*(f"bbox.{name}" for name in BBox._fields), "bounds.left", "bounds.top"}
    assert {"filepath", "crs", "width", "mtime", *limits} <= compared
    assert compared.isdisjoint({"geometry", "crs_wkt", "bands.list.element.dtype", *names, *values})


def test_groups_may_grow_from_one_to_the_next() -> None:
    rows = [of_length(1)] * 100
    size = size_of(rows[0])
    groups = [group.num_rows for group in grouped([to_batch(rows)], 12, 2 * size, size)]
    assert groups == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12, 11]

"""Catalogs in no order: row groups as they are, without the rows that have to go."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import command
import duckdb
import geopandas
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from catalogs import at, commit, seal, some_rows
from factory import exact, failed, record, records_of, table
from hypothesis import given
from hypothesis import strategies as st
from specs import check_by_schema
from test_pathset import colliding

from rastermeta_async.catalog import compact
from rastermeta_async.catalog import join as joining
from rastermeta_async.catalog import superseded as telling
from rastermeta_async.catalog.output import Output, Totals
from rastermeta_async.catalog.splice import Group, Splicer, read_footer, read_group
from rastermeta_async.catalog.superseded import superseded
from rastermeta_async.config import Order
from rastermeta_async.errors import CheckpointError, ForeignOutputError, WriteError
from rastermeta_async.footprints.rows import rows_of as footprinted
from rastermeta_async.record import GONE, SCHEMA, BBox, Record, path_bytes
from rastermeta_async.views.summary import summary_of

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


def parquet(rows: pa.Table, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(rows, file, **options)
    return file


def spliced(files: Sequence[io.BytesIO], scratch: Path) -> io.BytesIO:
    out = io.BytesIO()
    splicer = Splicer(out, read_footer(files[0]), str(scratch))
    rows = 0
    for file in files:
        for group in read_footer(file).groups:
            splicer.add(group, read_group(file, group))
        rows += pq.read_metadata(file).num_rows
    splicer.finish(rows, {b"key": b"value", b"other": b""})
    splicer.close()
    return out


def odd_tables() -> st.SearchStrategy[pa.Table]:
    rows = st.tuples(
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), st.text(max_size=300)),
        st.lists(st.booleans(), max_size=3),
    )
    schema = pa.schema(
        [("number", pa.int64()), ("text", pa.string()), ("list", pa.list_(pa.bool_()))]
    )
    columns = st.lists(rows, max_size=30)
    return columns.map(
        lambda some: pa.Table.from_pylist(
            [dict(zip(schema.names, row, strict=True)) for row in some], schema
        )
    )


@given(
    tables=st.lists(odd_tables(), min_size=1, max_size=4),
    group=st.integers(1, 31),
    extras=st.booleans(),
)
def test_a_spliced_file_holds_what_its_files_hold(
    tmp_path_factory: pytest.TempPathFactory, tables: list[pa.Table], group: int, extras: bool
) -> None:
    files = [
        parquet(rows, row_group_size=group, use_dictionary=extras, write_page_index=extras,
                write_page_checksum=True, write_statistics=True)
        for rows in tables
    ]  # fmt: skip
    out = spliced(files, tmp_path_factory.getbasetemp())
    with pq.ParquetFile(out, page_checksum_verification=True) as file:
        assert file.read().equals(pa.concat_tables(tables))
        metas = [pq.read_metadata(one) for one in files]
        assert file.metadata.num_row_groups == sum(meta.num_row_groups for meta in metas)
        assert file.metadata.metadata == {b"key": b"value", b"other": b""}
        groups = [meta.row_group(at) for meta in metas for at in range(meta.num_row_groups)]
        for number, group_before in enumerate(groups):
            after = file.metadata.row_group(number)
            assert after.num_rows == group_before.num_rows
            for column in range(3):
                before, now = group_before.column(column), after.column(column)
                assert now.statistics == before.statistics
                assert not now.has_column_index
                assert not now.has_offset_index


def test_a_group_says_where_in_the_file_it_is() -> None:
    """As its first column does: some readers go by the one, some by the other."""
    file = parquet(pa.table({"a": [*range(30_000)]}), row_group_size=10_000)
    for content in (file.getvalue(), spliced([file, file], Path()).getvalue()):
        groups = read_footer(io.BytesIO(content)).groups
        footer = content[groups[-1].end :]
        assert len(groups) in (3, 6)
        for group in groups[1:]:
            first = pq.read_metadata(io.BytesIO(content)).row_group(groups.index(group)).column(0)
            start = first.dictionary_page_offset or first.data_page_offset
            assert (start, footer.count(compact.encoded(compact.zigzag(start)))) == (group.start, 2)


def test_other_readers_read_a_spliced_file(tmp_path: Path) -> None:
    rows = [table(some_rows(900)[start : start + 300]) for start in (0, 300, 600)]
    out = tmp_path / "out.parquet"
    out.write_bytes(spliced([parquet(some) for some in rows], tmp_path).getvalue())
    names = [row.filepath for row in some_rows(900)]
    assert polars.read_parquet(out)["filepath"].to_list() == names
    with duckdb.connect() as db:
        found = db.execute(f"select filepath from '{out}' where bbox.xmin >= 0").fetchall()
    assert len(found) == sum(row.bbox is not None and row.bbox.xmin >= 0 for row in some_rows(900))


def test_more_row_groups_than_fit_into_sixteen_bits(tmp_path: Path) -> None:
    file = parquet(pa.table({"number": [1]}))
    (group,) = read_footer(file).groups
    out = io.BytesIO()
    splicer = Splicer(out, read_footer(file), str(tmp_path))
    for _ in range(40_000):
        splicer.add(group, read_group(file, group))
    splicer.finish(40_000, {})
    splicer.close()
    assert pq.read_metadata(out).num_row_groups == 40_000
    assert sum(pq.read_table(out)["number"].to_pylist()) == 40_000


@pytest.mark.parametrize("cut", [0, 3, 8, 11, -1])
def test_what_is_no_parquet_file_is_refused(cut: int) -> None:
    content = parquet(pa.table({"number": [1, 2]})).getvalue()[:cut]
    with pytest.raises(ValueError, match="Parquet file"):
        read_footer(io.BytesIO(content))


def test_damaged_footers_are_refused_or_read_and_nothing_else() -> None:
    content = parquet(table(some_rows(3))).getvalue()
    dice = random.Random(1)
    length = int.from_bytes(content[-8:-4], "little")
    refused = 0
    for _ in range(3000):
        damaged = bytearray(content)
        damaged[dice.randrange(len(content) - 8 - length, len(content))] = dice.randrange(256)
        try:
            read_footer(io.BytesIO(damaged))
        except ValueError:
            refused += 1
    assert 0 < refused < 3000


def test_a_group_beyond_the_end_is_refused() -> None:
    file = parquet(pa.table({"number": [1]}))
    (group,) = read_footer(file).groups
    with pytest.raises(ValueError, match="too early"):
        list(read_group(file, Group(group.start, 10**6, group.pieces)))


# Rows that go


def identities(paths: Sequence[bytes], dice: random.Random) -> list[Record]:
    kinds: list[Callable[[bytes], Record]] = [record, failed, gone]
    return [dice.choices(kinds, [5, 4, 1])[0](path) for path in paths]


def gone(path: bytes) -> Record:
    return record(path)._replace(status=GONE)


@pytest.mark.parametrize("heap", [4, 100, 10_000])
def test_the_newest_row_of_a_path_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heap: int
) -> None:
    monkeypatch.setattr(telling, "HEAP_ROWS", heap)
    dice = random.Random(heap)
    rows = identities([b"/%d\xff" % dice.randrange(300) for _ in range(1000)], dice)
    newest = {path_bytes(row): place for place, row in enumerate(rows)}
    stays = sorted(place for place in newest.values() if rows[place].status != GONE)
    batches = [table(rows[start : start + 64]).to_batches()[0] for start in range(0, 1000, 64)]
    told = superseded(batches, 1000, str(tmp_path))
    assert sorted({*range(1000)} - {*told.places.tolist()}) == stays
    assert (np.diff(told.places) > 0).all()
    assert told.rows == len(stays)
    assert told.failures == sum(not rows[place].ok for place in stays)
    assert list(tmp_path.iterdir()) == []


def test_no_more_files_are_open_than_the_system_bears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "HEAP_ROWS", 1)
    monkeypatch.setattr(telling, "MAX_HEAPS", 4)
    made: list[object] = []
    new = tempfile.TemporaryFile

    def counted(**options: Any) -> Any:
        made.append(file := new(**options))
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    rows = table([record(b"/%d" % (at % 30)) for at in range(100)])
    told = superseded(rows.to_batches(), 100, str(tmp_path))
    assert (told.places.tolist(), told.rows, len(made)) == ([*range(70)], 30, 4)


def test_nothing_goes_of_no_rows(tmp_path: Path) -> None:
    told = superseded([], 0, str(tmp_path))
    assert (told.places.tolist(), told.rows, told.failures) == ([], 0, 0)


# Catalogs


def rows_of(catalog: Path) -> list[Record]:
    return sorted(records_of([pq.read_table(catalog)]), key=path_bytes)


def groups_of(catalog: Path) -> list[int]:
    meta = pq.read_metadata(catalog)
    return [meta.row_group(at).num_rows for at in range(meta.num_row_groups)]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a catalog is to be; groups of some rows count as large."""
    monkeypatch.setattr(joining, "SMALL_BYTES", 0)
    return tmp_path / "catalog.parquet"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each sealing writes anew, where it does."""
    numbers: list[int] = []
    left = joining._left

    def counted(loose: list[joining._Loose]) -> Iterator[pa.RecordBatch]:
        if loose:
            numbers.append(0)
        for batch in left(loose):
            numbers[-1] += batch.num_rows
            yield batch

    monkeypatch.setattr(joining, "_left", counted)
    return numbers


def test_parts_become_row_groups(catalog: Path, encoded: list[int]) -> None:
    rows = [*some_rows(30), failed(b"/x")]
    assert seal(catalog, rows[20:], rows[:20]) == Totals(31, 1)
    assert rows_of(catalog) == sorted(rows, key=path_bytes)
    assert groups_of(catalog) == [11, 20]
    assert pq.read_schema(catalog).equals(SCHEMA)
    assert encoded == []


def test_it_is_geoparquet_with_the_limits_of_all_groups(catalog: Path) -> None:
    seal(catalog, [at(b"/a", -170, 10)], [record(b"/no")], [at(b"/b", 20, -60), at(b"/c", 0, 0)])
    meta = pq.read_metadata(catalog).metadata
    geo = json.loads(meta[b"geo"])
    check_by_schema(geo, "geoparquet-1.1.0.schema.json")
    assert geo["columns"]["geometry"]["bbox"] == pytest.approx([-170, -60, 20.1, 10.1])
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    assert meta[b"rastermeta:order"] == b"none"
    assert len(geopandas.read_parquet(catalog, bbox=(19, -61, 22, -59))) == 1


def test_the_kinds_of_all_groups_are_told(catalog: Path) -> None:
    islands = shapely.box(0, 0, 1, 1).union(shapely.box(2, 0, 3, 1))
    box, geometry = BBox(0.0, 0.0, 3.0, 1.0), shapely.to_wkb(islands, byte_order=1)
    seal(catalog, [record(b"/a", bbox=box, geometry=geometry)], [at(b"/b", 0, 0)])
    geo = json.loads(pq.read_metadata(catalog).metadata[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == ["MultiPolygon", "Polygon"]


def in_degrees(path: bytes, west: float) -> Record:
    """Return the row of a raster of two degrees, with its footprint."""
    transform = (west, 0.1, 0.0, -16.0, 0.0, -0.1)
    there = record(path, crs="EPSG:4326", transform=transform, width=20, height=20)
    (row,) = records_of([footprinted([there])])
    return row


@pytest.mark.parametrize(
    ("parts", "west", "east"),
    [
        ([[("/a", 178.1)]], 178.1, -179.9),
        ([[("/a", 178.1)], [("/b", -178.0)]], 178.1, -176.0),
        ([[("/a", 160.0), ("/b", -170.0)], [("/c", 178.5)]], 160.0, -168.0),
        ([[("/a", 10.0), ("/b", -20.0)], [("/c", 50.0)]], -20.0, 52.0),
    ],
)
def test_the_limits_of_all_groups_may_cross_the_antimeridian(
    catalog: Path, parts: list[list[tuple[str, float]]], west: float, east: float
) -> None:
    rows = [[in_degrees(path.encode(), at) for path, at in part] for part in parts]
    seal(catalog, *rows)
    geo = json.loads(pq.read_metadata(catalog).metadata[b"geo"])
    check_by_schema(geo, "geoparquet-1.1.0.schema.json")
    found = geo["columns"]["geometry"]["bbox"]
    assert found == pytest.approx([west, -18, east, -16])
    assert summary_of(str(catalog)).limits.west_to_east() == found


def test_only_groups_with_rows_that_go_are_written_anew(catalog: Path, encoded: list[int]) -> None:
    rows = some_rows(60)
    seal(catalog, rows[:20], rows[20:40], rows[40:])
    changed = [at(path_bytes(rows[25]), 1, 2), at(b"/new", 3, 4)]
    assert seal(catalog, changed, [gone(path_bytes(rows[45]))], order=None) == Totals(60, 0)
    left = [row for place, row in enumerate(rows) if place not in (25, 45)]
    assert rows_of(catalog) == sorted([*left, *changed], key=path_bytes)
    assert groups_of(catalog) == [20, 2, 38]
    assert encoded == [38]


def test_small_groups_are_gathered(
    catalog: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[int]
) -> None:
    rows = some_rows(3100)
    some = [rows[3000 + at : 3001 + at] for at in range(100)]
    monkeypatch.setattr(joining, "SMALL_BYTES", 20_000)
    seal(catalog, rows[:3000], *some)
    assert groups_of(catalog) == [3000, 100]
    assert rows_of(catalog) == rows
    assert encoded == [100]


def test_a_catalog_takes_every_order_and_back(catalog: Path) -> None:
    rows = some_rows(40)
    seal(catalog, rows[10:], rows[:10])
    by_path = catalog.with_name("by-path.parquet")
    seal(by_path, rows, order=Order.PATH)
    seal(catalog, order=Order.PATH)
    assert catalog.read_bytes() == by_path.read_bytes()
    seal(catalog, [at(b"/new", 3, 4)], order=Order.NONE)
    assert groups_of(catalog) == [40, 1]
    seal(catalog, order=Order.SPATIAL)
    assert rows_of(catalog) == [*rows, at(b"/new", 3, 4)]
    assert pq.read_metadata(catalog).metadata[b"rastermeta:order"] == b"spatial"


def test_parts_that_were_made_for_another_order_are_written_anew(
    catalog: Path, encoded: list[int]
) -> None:
    """A run that was begun without the option."""
    rows = some_rows(30)
    output = Output(str(catalog))
    commit(output, rows[:15])
    output.close()
    assert seal(catalog, rows[15:]).rows == 30
    assert rows_of(catalog) == rows
    assert encoded == [15]
    meta = pq.read_metadata(catalog)
    for number in range(meta.num_row_groups):
        limits = meta.row_group(number).column(0).statistics
        assert limits is not None
        assert limits.has_min_max


def test_nothing_is_left_behind(catalog: Path) -> None:
    seal(catalog, some_rows(30), some_rows(3))
    assert {path.name for path in catalog.parent.iterdir()} == {
        "catalog.parquet", "catalog.parquet.checkpoint",
    }  # fmt: skip


def part_of(catalog: Path) -> Path:
    (part,) = Path(f"{catalog}.parts").iterdir()
    return part


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("which", ["part", "catalog"])
def test_damage_is_named_and_the_catalog_stays(catalog: Path, which: str, share: float) -> None:
    """Wherever it is: most bytes are copied without being understood."""
    seal(catalog, some_rows(30))
    output = Output(str(catalog))
    commit(output, [at(b"/new%d" % number, 3, 4) for number in range(30)])
    damaged = part_of(catalog) if which == "part" else catalog
    content = bytearray(damaged.read_bytes())
    middle = 4 + int(share * (len(content) - 12))
    content[middle] ^= 1
    damaged.write_bytes(content)
    before = catalog.read_bytes()
    with pytest.raises(CheckpointError, match=f"{damaged.name}: (it|its content) "):
        output.seal()
    output.close()
    assert catalog.read_bytes() == before
    assert [path.name for path in Path(f"{catalog}.parts").iterdir()] == [
        "rastermeta-00000002.parquet"
    ]


@pytest.mark.parametrize("length", [None, 0, 3, 500])
def test_a_part_that_is_gone_or_cut_is_named(catalog: Path, length: int | None) -> None:
    output = Output(str(catalog), order=Order.NONE)
    commit(output, some_rows(30))
    if length is None:
        part_of(catalog).unlink()
    else:
        os.truncate(part_of(catalog), length)
    with pytest.raises(CheckpointError, match=r"rastermeta-00000001\.parquet: (it|its content) "):
        output.seal()
    output.close()


def test_a_disk_that_is_full_is_no_damage(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(str(catalog), order=Order.NONE)
    commit(output, some_rows(30), some_rows(20))

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(WriteError, match="No space left"):
        patch.setattr(os, "write", refuse)
        output.seal()
    assert output.seal() == Totals(30, 0)
    output.close()


def test_a_catalog_that_was_rewritten_is_refused(catalog: Path) -> None:
    seal(catalog, some_rows(30))
    pq.write_table(pq.read_table(catalog), catalog)
    Path(f"{catalog}.checkpoint").unlink()
    with pytest.raises(ForeignOutputError, match="written anew by another program"):
        Output(str(catalog))


def test_no_more_groups_than_readers_bear(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "MAX_GROUPS", 8)
    monkeypatch.setattr(joining, "GROUP_BYTES", 0)
    rows = some_rows(2000)
    for start in range(0, 2000, 100):
        seal(catalog, rows[start : start + 100], order=None if start else Order.NONE)
        assert len(groups_of(catalog)) <= 16
    assert rows_of(catalog) == rows


def test_the_command(tmp_path: Path, sample_archive: Path) -> None:
    loose, by_path = tmp_path / "loose.parquet", tmp_path / "by-path.parquet"
    options = ["--batch-size", "5", "--workers", "0"]
    done = command.run(["extract", sample_archive, "-o", loose, "--sort", "none", *options])
    assert done.returncode == 3, done.stderr
    command.run(["extract", sample_archive, "-o", by_path])
    assert list(map(exact, rows_of(loose))) == list(map(exact, rows_of(by_path)))
    before = loose.stat()
    again = command.run(["extract", sample_archive, "-o", loose, "--update"])
    assert b"0 files read" in again.stderr
    assert (loose.stat().st_ino, loose.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_rows_with_the_same_first_word_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "fingerprints", colliding)
    rows = identities([b"/%d" % (number % 40) for number in range(100)], random.Random(1))
    told = superseded(table(rows).to_batches(), 100, str(tmp_path))
    stays = [place for place in range(60, 100) if rows[place].status != GONE]
    assert sorted({*range(100)} - {*told.places.tolist()}) == stays

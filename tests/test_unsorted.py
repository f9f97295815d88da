"""Catalogs in no order: rows as they come, without those that a newer one replaces."""

from __future__ import annotations

import errno
import json
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import command
import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from catalogs import at, commit, seal, some_rows
from factory import exact, failed, path_bytes, record, records_of, table
from specs import check_by_schema
from test_pathset import colliding

from rastermeta_async.catalog import dedupe
from rastermeta_async.catalog.dedupe import replaced
from rastermeta_async.catalog.output import Output, Totals
from rastermeta_async.cli.summary import summary_of
from rastermeta_async.footprints.rows import rows_with_footprints as footprinted
from rastermeta_async.model.errors import CheckpointError, ForeignOutputError, WriteError
from rastermeta_async.model.record import GONE, SCHEMA, BBox, Record
from rastermeta_async.model.settings import Order

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


# Rows that go


def identities(paths: Sequence[bytes], dice: random.Random) -> list[Record]:
    kinds: list[Callable[[bytes], Record]] = [record, failed, gone]
    return [dice.choices(kinds, [5, 4, 1])[0](path) for path in paths]


def gone(path: bytes) -> Record:
    return record(path)._replace(status=GONE)


@pytest.mark.parametrize("most", [4, 100, 10_000])
def test_the_newest_row_of_a_path_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(dedupe, "PARTITION_ROWS", most)
    dice = random.Random(most)
    rows = identities([b"/%d\xff" % dice.randrange(300) for _ in range(1000)], dice)
    newest = {path_bytes(row): place for place, row in enumerate(rows)}
    stays = sorted(place for place in newest.values() if rows[place].status != GONE)
    batches = [table(rows[start : start + 64]).to_batches()[0] for start in range(0, 1000, 64)]
    dropped = replaced(batches, 1000, str(tmp_path))
    assert sorted({*range(1000)} - {*dropped.tolist()}) == stays
    assert (np.diff(dropped) > 0).all()
    assert list(tmp_path.iterdir()) == []


def test_no_more_files_are_open_than_the_system_bears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedupe, "PARTITION_ROWS", 1)
    monkeypatch.setattr(dedupe, "MAX_PARTITIONS", 4)
    made: list[object] = []
    new = tempfile.TemporaryFile

    def counted(**options: Any) -> Any:
        made.append(file := new(**options))
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    rows = table([record(b"/%d" % (at % 30)) for at in range(100)])
    dropped = replaced(rows.to_batches(), 100, str(tmp_path))
    assert (dropped.tolist(), len(made)) == ([*range(70)], 4)


def test_nothing_goes_of_no_rows(tmp_path: Path) -> None:
    dropped = replaced([], 0, str(tmp_path))
    assert dropped.tolist() == []


# Catalogs


def rows_of(catalog: Path) -> list[Record]:
    return sorted(records_of([pq.read_table(catalog)]), key=path_bytes)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Where a catalog is to be."""
    return tmp_path / "catalog.parquet"


def test_rows_come_as_they_were_committed(catalog: Path) -> None:
    rows = [*some_rows(30), failed(b"/x")]
    assert seal(catalog, rows[20:], rows[:20]) == Totals(31, 1)
    assert records_of([pq.read_table(catalog)]) == [*rows[20:], *rows[:20]]
    assert pq.read_schema(catalog).equals(SCHEMA)


def test_replaced_rows_and_tombstones_go(catalog: Path) -> None:
    rows = some_rows(60)
    seal(catalog, rows[:20], rows[20:40], rows[40:])
    changed = [at(path_bytes(rows[25]), 1, 2), at(b"/new", 3, 4)]
    assert seal(catalog, changed, [gone(path_bytes(rows[45]))], order=None) == Totals(60, 0)
    left = [row for place, row in enumerate(rows) if place not in (25, 45)]
    assert records_of([pq.read_table(catalog)]) == [*left, *sorted(changed, key=path_bytes)]


def test_a_run_that_was_begun_by_path_ends_in_no_order(catalog: Path) -> None:
    rows = some_rows(30)
    output = Output(str(catalog))
    commit(output, rows[:15])
    output.close()
    assert seal(catalog, rows[15:]).rows == 30
    assert rows_of(catalog) == rows
    limits = pq.read_metadata(catalog).row_group(0).column(0).statistics
    assert limits is not None
    assert limits.has_min_max


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


def test_a_catalog_takes_every_order_and_back(catalog: Path) -> None:
    rows = some_rows(40)
    seal(catalog, rows[10:], rows[:10])
    by_path = catalog.with_name("by-path.parquet")
    seal(by_path, rows, order=Order.PATH)
    seal(catalog, order=Order.PATH)
    assert catalog.read_bytes() == by_path.read_bytes()
    seal(catalog, [at(b"/new", 3, 4)], order=Order.NONE)
    assert pq.read_table(catalog)["filepath"].to_pylist()[-1] == "/new"
    seal(catalog, order=Order.SPATIAL)
    assert rows_of(catalog) == [*rows, at(b"/new", 3, 4)]
    assert pq.read_metadata(catalog).metadata[b"rastermeta:order"] == b"spatial"


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
    monkeypatch.setattr(dedupe, "fingerprints", colliding)
    rows = identities([b"/%d" % (number % 40) for number in range(100)], random.Random(1))
    dropped = replaced(table(rows).to_batches(), 100, str(tmp_path))
    stays = [place for place in range(60, 100) if rows[place].status != GONE]
    assert sorted({*range(100)} - {*dropped.tolist()}) == stays

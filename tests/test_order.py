"""Catalogs in spatial order: the curve, sorting anew in bounded memory, queries by place."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import command
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import at, commit, seal, some_rows
from factory import record, table

from rastermeta_async.catalog import output as sealing
from rastermeta_async.catalog import resort
from rastermeta_async.catalog.order import hilbert, spatial_keys
from rastermeta_async.catalog.output import Output
from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.record import BBox
from rastermeta_async.model.settings import Order


def test_the_curve_visits_every_cell_and_takes_single_steps() -> None:
    # Its first quarter of a quarter ... is a curve of its own: 64 x 64 cells are 4096 positions.
    x, y = (axis.ravel().astype(np.uint32) for axis in np.meshgrid(range(64), range(64)))
    along = hilbert(x, y)
    assert sorted(along.tolist()) == list(range(64 * 64))
    path = sorted(zip(along.tolist(), x.tolist(), y.tolist(), strict=True))
    steps = [
        abs(int(x1) - int(x0)) + abs(int(y1) - int(y0))
        for (_, x0, y0), (_, x1, y1) in itertools.pairwise(path)
    ]
    assert set(steps) == {1}


def test_the_ends_of_the_curve() -> None:
    last = np.array([2**16 - 1], dtype=np.uint32)
    zero = np.array([0], dtype=np.uint32)
    assert hilbert(zero, zero).tolist() == [0]
    assert hilbert(last, zero).tolist() == [2**32 - 1]


def test_the_eastern_and_northern_edges_of_the_map_are_in_its_last_cells() -> None:
    boxes = [BBox(180.0, 90.0, 180.0, 90.0), BBox(179.999, 89.9999, 179.999, 89.9999)]
    edge, beside = spatial_keys(table([record(b"/a", bbox=box) for box in boxes])).to_pylist()
    assert edge == beside


def test_rows_of_one_place_are_by_path_and_those_of_none_come_last() -> None:
    rows = [at(b"/b", 10, 50), record(b"/0"), at(b"/a\xff", 10, 50), at(b"/a", 10, 50)]
    keys = spatial_keys(table(rows)).to_pylist()
    assert [rows[index].filepath[:2] for index in sorted(range(4), key=keys.__getitem__)] == [
        "/a", "/a", "/b", "/0"
    ]  # fmt: skip
    assert len(set(keys)) == 4


def paths(catalog: Path) -> list[str]:
    found: list[str] = pq.read_table(catalog)["filepath"].to_pylist()
    return found


@pytest.fixture
def sorted_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog of 3,000 rows in spatial order, a hundred a row group."""
    monkeypatch.setattr(sealing, "SEALED_GROUP_ROWS", 100)
    monkeypatch.setattr(resort, "PARTITION_ROWS", 500)
    catalog = tmp_path / "catalog.parquet"
    output = Output(str(catalog), order=Order.SPATIAL)
    commit(output, some_rows(3000))
    output.seal()
    output.close()
    return catalog


def test_a_query_by_place_reads_few_row_groups(sorted_catalog: Path) -> None:
    def groups_read(catalog: Path) -> int:
        """Return how many row groups may hold a row of a tenth of the Earth's width and height."""
        meta = pq.read_metadata(catalog)
        names = [meta.schema.column(index).path for index in range(meta.num_columns)]
        found = 0
        for number in range(meta.num_row_groups):
            group = meta.row_group(number)
            limits = {
                name: group.column(names.index(f"bbox.{name}")).statistics
                for name in ("xmin", "ymin", "xmax", "ymax")
            }
            found += (
                limits["xmin"].min <= 36 and limits["xmax"].max >= 0
                and limits["ymin"].min <= 58 and limits["ymax"].max >= 40
            )  # fmt: skip
        return found

    by_place = groups_read(sorted_catalog)
    seal(sorted_catalog, order=Order.PATH)
    assert groups_read(sorted_catalog) == 30
    assert by_place <= 4


def test_a_sorted_catalog_takes_new_rows_and_keeps_its_order(sorted_catalog: Path) -> None:
    before = paths(sorted_catalog)
    assert before != sorted(before)
    output = Output(str(sorted_catalog))
    commit(output, [at(b"/000007.tif", 10, 50), at(b"/new.tif", 10, 50)])
    totals = output.seal()
    output.close()
    assert totals.rows == 3001
    found = pq.read_table(sorted_catalog)
    keys = spatial_keys(found).to_pylist()
    assert keys == sorted(keys)
    assert sorted(paths(sorted_catalog)) == sorted([*before, "/new.tif"])
    moved = found.filter(pa.compute.equal(found["filepath"], "/000007.tif"))["bbox"].to_pylist()
    assert moved == [{"xmin": 10.0, "ymin": 50.0, "xmax": 10.1, "ymax": 50.1}]


def test_an_order_that_is_new_holds_for_what_comes_in_the_same_run(tmp_path: Path) -> None:
    catalog, rows = tmp_path / "catalog.parquet", some_rows(60)
    seal(catalog, rows[:20], order=Order.PATH)
    output = Output(str(catalog), order=Order.SPATIAL)
    for start in (20, 40):  # each time with rows that are there already
        commit(output, rows[start - 20 : start + 20])
        assert output.seal().rows == start + 20
    output.close()
    keys = spatial_keys(pq.read_table(catalog)).to_pylist()
    assert keys == sorted(keys)
    assert sorted(paths(catalog)) == [row.filepath for row in rows]


def test_another_order_is_the_same_catalog_again(sorted_catalog: Path) -> None:
    spatial = sorted_catalog.read_bytes()
    seal(sorted_catalog, order=Order.PATH)
    assert paths(sorted_catalog) == sorted(paths(sorted_catalog))
    seal(sorted_catalog, order=Order.SPATIAL)
    assert sorted_catalog.read_bytes() == spatial


def test_the_order_asked_for_again_changes_nothing(sorted_catalog: Path) -> None:
    before = sorted_catalog.stat()
    seal(sorted_catalog, order=Order.SPATIAL)
    seal(sorted_catalog, order=None)
    after = sorted_catalog.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_stopped_run_goes_on_in_the_order_that_it_was_asked_for(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    stopped = Output(str(catalog), order=Order.SPATIAL)
    commit(stopped, some_rows(50))
    stopped.close()
    for _ in range(2):  # it is not forgotten by a run that is stopped as well
        Output(str(catalog)).close()
    seal(catalog, order=None)
    assert pq.read_metadata(catalog).metadata[b"rastermeta:order"] == b"spatial"
    keys = spatial_keys(pq.read_table(catalog)).to_pylist()
    assert keys == sorted(keys)


def test_starting_again_from_nothing_forgets_the_order(sorted_catalog: Path) -> None:
    Output(str(sorted_catalog), overwrite=True).close()
    seal(sorted_catalog, some_rows(3), order=None)
    assert paths(sorted_catalog) == ["/000000.tif", "/000001.tif", "/000002.tif"]


def test_the_command_sorts_and_says_so_in_the_metadata(
    tmp_path: Path, sample_archive: Path
) -> None:
    by_place, by_path = tmp_path / "place.parquet", tmp_path / "path.parquet"
    command.run(["extract", sample_archive, "-o", by_place, "--sort", "spatial"])
    command.run(["extract", sample_archive, "-o", by_path])
    assert paths(by_place) != paths(by_path) == sorted(paths(by_place))
    assert pq.read_metadata(by_place).metadata[b"rastermeta:order"] == b"spatial"
    assert json.loads(pq.read_metadata(by_place).metadata[b"geo"])["version"] == "1.1.0"


def test_only_parquet_is_sorted_by_place(tmp_path: Path, sample_archive: Path) -> None:
    output = tmp_path / "catalog.ndjson"
    done = command.run(["extract", sample_archive, "-o", output, "--sort", "spatial"])
    assert done.returncode == 2
    assert b"--sort spatial is for .parquet catalogs" in done.stderr
    assert not output.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_format_without_the_order_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    from rastermeta_async import Settings, extract_to

    with pytest.raises(SettingsError, match=r"is for \.parquet catalogs"):
        asyncio.run(extract_to(tmp_path / "x.json", [], Settings(sort=Order.SPATIAL)))


def test_many_new_parts_are_merged_into_a_large_sorted_catalog(
    sorted_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the catalog, which is sorted by path for that, and the parts take several passes."""
    monkeypatch.setattr(resort, "RUN_ROWS", 100)
    output = Output(str(sorted_catalog))
    for number in range(20):
        commit(output, [at(b"/new-%d-%d.tif" % (number, row), number, row) for row in range(5)])
    assert output.seal().rows == 3100
    output.close()
    assert len(set(paths(sorted_catalog))) == 3100

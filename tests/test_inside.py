"""Paths with several rows, as of the members of an archive: kept, replaced and sorted together."""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import at, commit, seal
from factory import failed, path_bytes, record, records_of, some_paths, table
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.catalog import merge as merging
from rastermeta_async.catalog.combine import FinishedCatalog, combined
from rastermeta_async.catalog.completed import batches_of, dicts_of
from rastermeta_async.catalog.difference import Difference, listed, paired
from rastermeta_async.catalog.formats import Grouper
from rastermeta_async.catalog.merge import Batches, Run, merge_many
from rastermeta_async.catalog.output import Output
from rastermeta_async.catalog.prune import tombstones
from rastermeta_async.cli.summary import summary_of
from rastermeta_async.gis.tiles import Names
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.record import SCHEMA, Record, to_batch
from rastermeta_async.model.row_ops import count_readings, newest, row_keys
from rastermeta_async.model.settings import Order
from rastermeta_async.report.cube import cube_of, exemplify
from rastermeta_async.stac.evidence import Rules
from rastermeta_async.stac.export import export
from rastermeta_async.stac.links import Links
from rastermeta_async.stac.scenes import SceneRules
from rastermeta_async.stores.archive_names import name_inside

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

Identity = tuple[bytes, str | None, str | None]
"""Path, member and subdataset."""

_names = st.one_of(st.none(), st.sampled_from(["a", "b", "a/b", "ä", "b\x01"]))


def identity(row: Record) -> Identity:
    return path_bytes(row), row.member, row.subdataset


def order_of(one: Identity) -> tuple[bytes, bytes, bytes]:
    path, member, part = one
    return path, (member or "").encode(), (part or "").encode()


@st.composite
def some_readings(draw: st.DrawFn, number: int = 0) -> list[Record]:
    """Draw the rows of a run in order, each path with one row or several."""
    rows = []
    for path in draw(st.sets(some_paths, max_size=6)):
        inside = draw(st.sets(st.tuples(_names, st.none()), min_size=1, max_size=4))
        rows += [record(path, width=number)._replace(member=m, subdataset=s) for m, s in inside]
    return sorted(rows, key=lambda row: order_of(identity(row)))


def of_last(runs: Sequence[Sequence[Record]]) -> list[tuple[Identity, int | None]]:
    """Return identity and width of the rows that stay, in order."""
    owner = {path_bytes(row): number for number, rows in enumerate(runs) for row in rows}
    stay = [row for number, rows in enumerate(runs) for row in rows
            if owner[path_bytes(row)] == number]  # fmt: skip
    return [(identity(row), row.width) for row in sorted(stay, key=lambda r: order_of(identity(r)))]


def seen(batches: Sequence[pa.RecordBatch | pa.Table]) -> list[tuple[Identity, int | None]]:
    return [(identity(row), row.width) for row in records_of(batches)]


_runs = st.lists(st.integers(0, 99).flatmap(some_readings), max_size=6)


@given(_runs)
def test_the_rows_of_the_last_reading_of_each_path_stay(runs: list[list[Record]]) -> None:
    rows = pa.Table.from_batches([to_batch(rows) for rows in runs], SCHEMA)
    assert seen([newest(rows)]) == of_last(runs)


@given(_runs, st.integers(1, 4), st.sampled_from([2, 8]))
def test_a_merge_takes_all_rows_of_a_path_from_its_last_run(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[Record]], size: int, fan_in: int
) -> None:
    scratch = str(tmp_path_factory.mktemp("scratch"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FAN_IN", fan_in)
        patch.setattr(merging, "STORED_ROWS", 1)
        merged = list(merge_many([run_of(rows, size) for rows in runs], scratch))
    assert seen(merged) == of_last(runs)


def run_of(rows: list[Record], size: int) -> Run:
    """Return rows as a run in batches of a few rows."""

    def read() -> Batches:
        for some in cut():
            yield to_batch(some)

    def cut() -> list[list[Record]]:
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    ends = [path_bytes(row) for row in (rows[:1] or []) + (rows[-1:] or [])] or [b"", b""]
    return Run(ends[0], ends[1], len(rows), read)


@given(st.lists(st.tuples(some_paths, _names, _names), unique=True))
def test_keys_sort_by_path_then_by_what_is_inside(identities: list[Identity]) -> None:
    rows = [record(path)._replace(member=m, subdataset=s) for path, m, s in identities]
    keys = row_keys(to_batch(rows)).to_pylist()
    assert len(set(keys)) == len(set(identities))
    in_order = [one for _, one in sorted(zip(keys, identities, strict=True))]
    assert in_order == sorted(identities, key=order_of)


@given(st.lists(some_readings(), max_size=4))
def test_readings_are_counted_by_their_paths(runs: list[list[Record]]) -> None:
    rows = [row for some in runs for row in some]
    paths = [path_bytes(row) for row in rows]
    if all(len({*map(path_bytes, one)} & {*map(path_bytes, other)}) == 0
           for one, other in itertools.combinations(runs, 2)):  # fmt: skip
        assert count_readings(to_batch(rows)) == len(set(paths))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=12), st.integers(1, 8))
def test_groups_keep_the_rows_of_a_path_together(
    batches: list[tuple[bool, int]], most: int
) -> None:
    grouper = Grouper(most, 1 << 20)
    groups, given_rows = [], []
    for number, (is_archive, count) in enumerate(batches):
        path = b"/%02d.zip" % number
        rows = [
            record(path)._replace(member=f"{at}" if is_archive else None) for at in range(count)
        ]
        given_rows += rows
        push = grouper.push_whole if is_archive else grouper.push
        groups += list(push(to_batch(rows)))
    groups.append(grouper.flush())
    assert records_of(groups) == given_rows
    assert all(group.num_rows < most + 9 for group in groups)
    archives = [{row.filepath for row in records_of([group]) if row.member} for group in groups]
    assert not any(one & other for one, other in itertools.combinations(archives, 2))


def test_a_path_that_is_read_twice_counts_twice() -> None:
    zipped = archive(b"/a.zip", "x", "y")
    assert count_readings(to_batch([*zipped, *zipped, record(), record()])) == 4


# Catalogs


def archive(path: bytes, *members: str, **fields: object) -> list[Record]:
    """Return the rows of an archive."""
    place = at(path, 10.0, 50.0)._replace(**fields)  # type: ignore[arg-type]  # any field
    return [place._replace(member=member) for member in members]


def found_in(catalog: Path) -> list[tuple[str, str | None]]:
    rows = [(row["filepath"], row["member"]) for row in dicts_of(str(catalog), COLUMNS)]
    return sorted(rows, key=lambda row: (row[0], row[1] or ""))


COLUMNS = ["filepath", "member"]


@pytest.fixture(params=["path", "spatial", "none", "json"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def catalog(tmp_path: Path, kind: str) -> Path:
    return tmp_path / ("catalog.ndjson" if kind == "json" else "catalog.parquet")


@pytest.fixture
def order(kind: str) -> Order:
    return Order.PATH if kind == "json" else Order(kind)


def test_a_member_that_is_gone_loses_its_row(catalog: Path, order: Order) -> None:
    others = [at(b"/%d.tif" % number, number, 0.0) for number in range(9)]
    seal(catalog, [*archive(b"/5.zip", "x", "y", "z"), *others], order=order)
    assert seal(catalog, archive(b"/5.zip", "w", "y"), order=order).rows == 11
    assert [row for row in found_in(catalog) if row[1]] == [("/5.zip", "w"), ("/5.zip", "y")]
    assert len(found_in(catalog)) == 11
    seal(catalog, [failed(b"/5.zip")], order=order)
    assert [row for row in found_in(catalog) if "zip" in row[0]] == [("/5.zip", None)]


def test_parts_of_one_run_count_as_readings(catalog: Path, order: Order) -> None:
    many = [*map(str, range(100, 120))]
    first, second = archive(b"/a.zip", *many), archive(b"/a.zip", "150", *many[:3][::-1])
    second.sort(key=lambda row: row.member or "")
    totals = seal(catalog, first, [record(b"/b.tif")], second, order=order)
    assert (totals.rows, len(found_in(catalog))) == (5, 5)
    assert {member for _, member in found_in(catalog)} == {None, "100", "101", "102", "150"}


def test_a_catalog_is_sorted_anew_with_all_members(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    zips = [archive(b"/%d.zip" % n, *"abc", bbox=at(b"", n, n).bbox) for n in range(20)]
    everything = seal(catalog, *zips, order=Order.SPATIAL)
    for order in (Order.PATH, Order.NONE, Order.SPATIAL, Order.NONE, Order.PATH):
        output = Output(str(catalog), order=order)
        assert output.seal() == everything
        output.close()
        assert len(set(found_in(catalog))) == 60
    assert list(dicts_of(str(catalog), COLUMNS)) == sorted(
        dicts_of(str(catalog), COLUMNS), key=lambda row: (row["filepath"], row["member"])
    )


def test_row_groups_may_cut_a_path_but_batches_read_back_are_whole(
    catalog: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rastermeta_async.catalog.sink.PART_GROUP_ROWS", 2)
    monkeypatch.setattr("rastermeta_async.catalog.output.SEALED_GROUP_ROWS", 2)
    seal(catalog, archive(b"/a.zip", *"abcde"), archive(b"/b.zip", *"abcde"), order=order)
    seal(catalog, archive(b"/a.zip", *"cde"), [at(b"/c.tif", 1, 1)], order=order)
    assert [member for path, member in found_in(catalog) if path == "/a.zip"] == [*"cde"]
    assert len(found_in(catalog)) == 9


def test_an_archive_is_finished_unless_a_member_failed(catalog: Path, order: Order) -> None:
    bad = failed(b"/bad.zip")._replace(member="y", file_size=1)
    rows = [*archive(b"/bad.zip", "x"), bad, *archive(b"/good.zip", "x", "y")]
    given = [b"/bad.zip", b"/good.zip", b"/new.zip"]
    far = [at(b"/%d.tif" % number, number / 10, number / 10) for number in range(300)]
    for sealed in (False, True):
        if sealed:
            seal(catalog, rows, far, order=order)
        output = Output(str(catalog), order=order)
        if not sealed:
            commit(output, rows)
        finished = output.finished()
        again = output.finished(retry_failed=True)
        output.close()
        assert isinstance(finished, PathSet)
        assert isinstance(again, PathSet)
        assert finished.missing(given) == [b"/new.zip"]
        assert again.missing(given) == [b"/bad.zip", b"/new.zip"]


def test_pruning_drops_all_rows_of_an_archive_and_names_it_once(
    catalog: Path, order: Order, tmp_path: Path
) -> None:
    there = tmp_path / "there.zip"
    there.touch()
    gone = bytes(tmp_path / "gone.zip")
    seal(catalog, [*archive(bytes(there), *"ab"), *archive(gone, *"abc")], order=order)
    output = Output(str(catalog))
    assert list(output.prune()) == [gone]
    assert output.seal().rows == 2
    output.close()


def test_a_tombstone_drops_all_members(catalog: Path, order: Order) -> None:
    output = Output(str(catalog), order=order)
    commit(output, archive(b"/a.zip", *"abc"))
    output.log.append(output.sink.commit(tombstones([b"/a.zip"])))
    assert output.seal().rows == 0
    output.close()


# Several catalogs


def test_of_two_catalogs_that_with_the_later_archive_gives_all_its_rows(
    tmp_path: Path, kind: str
) -> None:
    old, new = (tmp_path / f"{name}.{'json' if kind == 'json' else 'parquet'}" for name in "ab")
    order = Order.PATH if kind == "json" else Order(kind)
    later = record().mtime.replace(year=2032)  # type: ignore[union-attr]  # it has one
    seal(old, archive(b"/z.zip", "gone", "same"), [at(b"/a.tif", 1, 1)], order=order)
    seal(new, archive(b"/z.zip", "new", "same", mtime=later), order=order)
    for both in ([old, new], [new, old]):
        stop = threading.Event()
        catalogs = [FinishedCatalog(str(one), str(one), stop) for one in both]
        for wanted in (Order.PATH, Order.SPATIAL):
            rows = records_of(combined(catalogs, str(tmp_path), wanted))
            names = {(row.filepath, row.member) for row in rows}
            assert names == {("/a.tif", None), ("/z.zip", "new"), ("/z.zip", "same")}
            assert len(rows) == 3


def test_catalogs_are_compared_member_by_member(tmp_path: Path) -> None:
    old, new = tmp_path / "a.parquet", tmp_path / "b.parquet"
    seal(old, archive(b"/z.zip", "gone", "other", "same"), order=Order.PATH)
    rows = archive(b"/z.zip", "added", "other", "same")
    rows[1] = rows[1]._replace(width=77)
    seal(new, rows, order=Order.SPATIAL)
    counts, told = Difference(), []
    for pairs in paired(str(old), str(new), str(tmp_path)):
        counts.add(pairs)
        told += list(listed(pairs))
    assert counts.files == {"added": 1, "gone": 1, "changed": 1, "unchanged": 1}
    assert {(row["change"], row["filepath"], row["member"]) for row in told} == {
        ("added", "/z.zip", "added"), ("gone", "/z.zip", "gone"), ("changed", "/z.zip", "other"),
    }  # fmt: skip
    assert json.dumps(told)


def test_members_survive_parquet_and_lines(catalog: Path, order: Order) -> None:
    dice = random.Random(1)
    rows = archive(b"/z.zip", *sorted({f"m{dice.random()}" for _ in range(50)}))
    seal(catalog, rows, order=order)
    if catalog.suffix == ".parquet":
        assert pq.read_table(catalog).schema.equals(SCHEMA)
    assert [member for _, member in found_in(catalog)] == [row.member for row in rows]
    assert table(rows).num_rows == 50


# Views of catalogs


def test_the_size_of_an_archive_counts_once(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    rows = [*archive(b"/z.zip", *"abc"), at(b"/a.tif", 1, 1)]
    seal(catalog, rows, order=Order.SPATIAL)
    summary = summary_of(str(catalog))
    assert (summary.rows, summary.bytes) == (4, 2 * 1234)
    cube = cube_of(lambda columns: batches_of(str(catalog), columns))
    assert (sum(cube.rows["files"].to_pylist()), sum(cube.rows["bytes"].to_pylist())) == (4, 2468)
    exemplify(cube, lambda columns: batches_of(str(catalog), columns))
    assert {one.path for one in cube.examples} >= {"/a.tif", "/z.zip/a"}
    seal(tmp_path / "none.parquet", [at(b"/a.tif", 1, 1)], order=Order.PATH)
    counts = Difference()
    for pairs in paired(str(tmp_path / "none.parquet"), str(catalog), str(tmp_path)):
        counts.add(pairs)
    assert (counts.files["added"], counts.bytes["added"]) == (3, 1234)


def test_an_item_links_to_the_member_and_has_its_own_id(tmp_path: Path) -> None:
    catalog, output = tmp_path / "catalog.parquet", tmp_path / "items.ndjson"
    dated = archive(b"/a/z.zip", "x/20240101.tif", "y/20240102.tif")
    url = archive(b"s3://b/z.zip", "x/20240101.tif")
    seal(catalog, [*dated, *url, at(b"/a/20240103.tif", 1, 1)], order=Order.PATH)
    assert export(str(catalog), str(output), Rules(["%Y%m%d"])).items == 4
    items = [json.loads(line) for line in output.read_text().splitlines()]
    assert [item["assets"]["data"]["href"] for item in items] == [
        "file:///a/20240103.tif",
        "/vsizip/{/a/z.zip}/x/20240101.tif",
        "/vsizip/{/a/z.zip}/y/20240102.tif",
        "/vsizip/{/vsis3/b/z.zip}/x/20240101.tif",
    ]
    assert len({item["id"] for item in items}) == 4
    assert [item["properties"]["start_datetime"][:10] for item in items][1:3] == [
        "2024-01-01", "2024-01-02",
    ]  # fmt: skip


def test_links_to_members_follow_a_base_url() -> None:
    assert Links().inside(b"/a/b.zip", "c/d.tif") == "/vsizip/{/a/b.zip}/c/d.tif"
    web = Links("https://example.com/x").inside(b"/a/b.tar", "d.tif")
    assert web == "/vsitar/{/vsicurl/https://example.com/x/a/b.tar}/d.tif"
    assert Links("file:///mnt").inside(b"/a/\xc3\xa4 b.zip", "d.tif") == (
        "/vsizip/{/mnt/a/ä b.zip}/d.tif"
    )


def test_the_files_of_a_scene_may_be_in_an_archive() -> None:
    name = "S2A_MSIL2A_20240102T101031_N0510_R022_T32UQD_20240102T120000.SAFE"
    granule = f"{name}/GRANULE/L2A_T32UQD_A044559_20240102T101026/IMG_DATA/R10m/"
    rows = archive(
        f"/a/{name}.zip".encode(), *[f"{granule}T32UQD_20240102T101031_{band}_10m.jp2"
        for band in ("B02", "B03")]
    )  # fmt: skip
    found = SceneRules(["auto"]).of(to_batch(rows)).to_pylist()
    assert [row["asset"] for row in found] == ["B02_10m", "B03_10m"]
    assert found[0]["scene"] == found[1]["scene"] == name.removesuffix(".SAFE")


def test_tile_indexes_name_the_member(tmp_path: Path) -> None:
    names = Names(str(tmp_path))
    assert names.of("/a/b.zip", "c.tif") == "/vsizip/{/a/b.zip}/c.tif"
    assert names.of("b.zip", "c.tif") == f"/vsizip/{{{os.getcwd()}/b.zip}}/c.tif"
    assert names.of("s3://b/k.zip", "c.tif") == "/vsizip/{/vsis3/b/k.zip}/c.tif"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b.zip", "/vsizip/{/a/b.zip}/m"),
        ("b.ZIP", "/vsizip/{b.ZIP}/m"),
        ("/a/{x}.tar", "/vsitar/{/a/{x}.tar}/m"),
        ("/a/x}.tgz", "/vsitar//a/x}.tgz/m"),
        ("/a/m.gz", "/vsigzip//a/m.gz"),
        ("gs://b/k.tar.gz", "/vsitar/{/vsigs/b/k.tar.gz}/m"),
        ("https://h/k.zip?q=1", "/vsizip/{/vsicurl/https://h/k.zip?q=1}/m"),
    ],
)
def test_gdal_s_name_of_a_member(path: str, name: str) -> None:
    assert name_inside(path, "m") == name

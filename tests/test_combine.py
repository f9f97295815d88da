"""Merging finished catalogs: which row counts, in which order, whatever the catalogs are like."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import command
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import at, commit, seal, some_rows
from factory import MODIFIED, failed, record, table
from mixed import no_rasters_of

from rastermeta_async import Merged, RastermetaError, Settings, extract_to, merge_to
from rastermeta_async.catalog.combine import latest
from rastermeta_async.catalog.completed import dicts_of
from rastermeta_async.catalog.order import spatial_keys
from rastermeta_async.catalog.output import Output
from rastermeta_async.catalog.reading import NOT_OURS
from rastermeta_async.model.errors import ForeignOutputError, OutputError, SettingsError
from rastermeta_async.model.record import SCHEMA, VERSION_KEY, Record
from rastermeta_async.model.row_ops import path_keys
from rastermeta_async.model.settings import Order

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


def catalog(path: Path, rows: Sequence[Record], order: Order | None = None) -> Path:
    """Write a finished catalog; rows may be in any order."""
    seal(path, *[list(rows)] if rows else [], order=order)
    return path


def merged(output: Path, *catalogs: Path, **how: Any) -> Merged:
    return asyncio.run(merge_to(output, catalogs, **how))


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["filepath"]: row for row in command.rows_of(path)}


def told(path: bytes, at: int, name: str) -> Record:
    """Return the record of a file that was changed at some hour; `name` tells who read it."""
    return record(path, mtime=MODIFIED + dt.timedelta(hours=at), etag=name)


def beside(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if "all" in name}


def test_a_path_has_one_row_and_that_of_the_newest_file_or_else_the_last_catalog(
    tmp_path: Path,
) -> None:
    a = catalog(tmp_path / "a.parquet", [
        told(b"/only a", 1, "a"), told(b"/newer in a", 3, "a"), told(b"/newer in b", 1, "a"),
        told(b"/the same", 1, "a"), failed(b"/read by b"), told(b"/read by a", 1, "a"),
        failed(b"/by none"),
    ])  # fmt: skip
    b = catalog(tmp_path / "b.parquet", [
        told(b"/newer in a", 2, "b"), told(b"/newer in b", 4, "b"), told(b"/the same", 1, "b"),
        told(b"/read by b", 1, "b"), failed(b"/read by a"), failed(b"/by none", "fatal"),
        told(b"/only b \xff", 1, "b"),
    ])  # fmt: skip
    found = merged(tmp_path / "all.parquet", a, b)
    rows = rows_of(tmp_path / "all.parquet")
    assert {name: row["etag"] for name, row in rows.items()} == {
        "/only a": "a", "/newer in a": "a", "/newer in b": "b", "/the same": "b",
        "/read by b": "b", "/read by a": "a", "/by none": None, r"/only b \xff": "b",
    }  # fmt: skip
    assert rows["/by none"]["status"] == "fatal"
    assert found == Merged(8, 1, 6)
    assert list(rows) == sorted(rows)


def test_which_row_counts_does_not_depend_on_what_is_merged_first() -> None:
    rows = [told(b"/a", 2, "0"), failed(b"/a"), told(b"/a", 1, "2"), told(b"/a", 2, "3")]
    for some in permutations(rows):
        (best,) = latest(table(some), path_keys).to_pylist()
        assert best["etag"] == [row.etag for row in some if row.etag in ("0", "3")][-1]
        for cut in range(1, 4):
            halves = [latest(table(part), path_keys) for part in (some[:cut], some[cut:])]
            assert latest(pa.Table.from_batches(halves), path_keys).to_pylist() == [best]


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("order", [Order.PATH, Order.SPATIAL])
def test_shards_give_the_catalog_that_one_run_gives_byte_for_byte(
    tmp_path: Path, count: int, order: Order
) -> None:
    rows = some_rows(3000)
    whole = catalog(tmp_path / "whole.parquet", rows, order)
    shards = [catalog(tmp_path / f"{at}.parquet", rows[at::count], order) for at in range(count)]
    merged(tmp_path / "all.parquet", *shards, sort=order)
    assert (tmp_path / "all.parquet").read_bytes() == whole.read_bytes()
    assert beside(tmp_path) == {"all.parquet", "all.parquet.checkpoint"}


def test_catalogs_of_any_form_and_order_make_one_of_any(tmp_path: Path) -> None:
    rows = some_rows(2000)
    parts = [
        catalog(tmp_path / "a.parquet", rows[0::5], Order.SPATIAL),
        catalog(tmp_path / "b.parquet", rows[1::5][::-1], Order.NONE),
        catalog(tmp_path / "c.ndjson", rows[2::5], None),
        catalog(tmp_path / "d.json", rows[3::5], None),
        catalog(tmp_path / "e.parquet", rows[4::5], Order.PATH),
    ]
    for name in ("all.parquet", "all.ndjson", "all.json"):
        assert merged(tmp_path / name, *parts) == Merged(2000, 0, 0)
        found = dicts_of(str(tmp_path / name), ["filepath"])
        assert [row["filepath"] for row in found] == [row.filepath for row in rows]
    merged(tmp_path / "by-place.parquet", *parts, sort=Order.SPATIAL)
    keys = spatial_keys(pq.read_table(tmp_path / "by-place.parquet")).to_pylist()
    assert keys == sorted(keys)
    assert len(keys) == 2000


def test_a_merged_catalog_is_gone_on_with(tmp_path: Path, sample_archive: Path) -> None:
    files = sorted(str(path) for path in sample_archive.rglob("*.tif"))
    for name, some in (("a", files[::2]), ("b", files[1::2])):
        asyncio.run(extract_to(tmp_path / f"{name}.parquet", some))
    output = tmp_path / "all.parquet"
    merged(output, tmp_path / "a.parquet", tmp_path / "b.parquet")
    asyncio.run(extract_to(tmp_path / "whole.parquet", files))
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    before = output.stat()
    again = asyncio.run(extract_to(output, files, Settings(update=True)))
    assert (again.rows, output.stat().st_ino) == (len(files), before.st_ino)


def test_nothing_is_replaced_unless_it_is_asked_for(tmp_path: Path) -> None:
    a = catalog(tmp_path / "a.parquet", [record(b"/a")])
    b = catalog(tmp_path / "b.parquet", [record(b"/b")])
    before = b.read_bytes()
    with pytest.raises(ForeignOutputError, match=r"b\.parquet exists: give --overwrite"):
        merged(b, a)
    assert b.read_bytes() == before
    assert merged(b, a, b, overwrite=True) == Merged(2, 0, 0)
    assert list(rows_of(b)) == ["/a", "/b"]


def _of_another_version(path: Path) -> None:
    pq.write_table(SCHEMA.with_metadata({VERSION_KEY: "0"}).empty_table(), path)


def _not_ours(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def _damaged(path: Path) -> None:
    catalog(path, some_rows(50))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def _not_sorted(path: Path) -> None:
    catalog(path, some_rows(50))
    rows = pq.read_table(path)
    pq.write_table(rows.take(list(range(49, -1, -1))), path)


def _twice(path: Path) -> None:
    catalog(path, some_rows(5))
    rows = pq.read_table(path)
    pq.write_table(pa.concat_tables([rows[:3], rows[2:]]), path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_of_another_version, "was made by another version of rastermeta"),
        (_not_ours, NOT_OURS),
        (_damaged, "cannot be read|b.parquet: |its columns are not those"),
        (_not_sorted, r"b\.parquet: its rows are not sorted by path|nothing tells"),
        (_twice, r"b\.parquet: its rows are not sorted by path|nothing tells"),
        (lambda path: path.write_bytes(b""), r"b\.parquet"),
        (lambda _path: None, "there is no finished catalog of this name"),
        (Path.mkdir, "but a folder"),
    ],
)  # fmt: skip
def test_what_is_no_finished_catalog_is_refused_and_leaves_nothing(
    tmp_path: Path, make: Any, message: str
) -> None:
    a, b = catalog(tmp_path / "a.parquet", some_rows(20)), tmp_path / "b.parquet"
    make(b)
    with pytest.raises(OutputError, match=message):
        merged(tmp_path / "all.parquet", a, b)
    assert not (tmp_path / "all.parquet").exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_catalog_that_only_claims_an_order_is_refused(tmp_path: Path) -> None:
    path = catalog(tmp_path / "b.parquet", some_rows(50))
    rows = pq.read_table(path)
    backwards = rows.take(list(range(49, -1, -1)))
    twice = pa.concat_tables([rows[:3], rows[2:]])
    for wrong in (backwards, twice):
        pq.write_table(wrong.replace_schema_metadata(pq.read_metadata(path).metadata), path)
        with pytest.raises(OutputError, match="its rows are not sorted by path, each path once"):
            merged(tmp_path / "all.parquet", path)


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    a = catalog(tmp_path / "a.parquet", [record(b"/a")])
    other = Output(str(tmp_path / "b.parquet"), gdal_config='{"A": "1"}')
    commit(other, [record(b"/b")])
    other.seal()
    other.close()
    output = tmp_path / "all.parquet"
    wrong: list[tuple[list[Path], dict[str, Any], str]] = [
        ([], {}, "expected a list of catalogs"),
        ([a], {"sort": Order.NONE}, "a merged catalog is sorted"),
        (
            [a, tmp_path / "b.parquet"],
            {},
            r"a\.parquet was read without --gdal-config, but .*b\.parquet with --gdal-config A=1",
        ),
        ([tmp_path / "a.csv"], {}, "the name of a catalog ends in"),
    ]
    for catalogs, how, message in wrong:
        with pytest.raises(SettingsError, match=message):
            merged(output, *catalogs, **how)
    with pytest.raises(SettingsError, match=r"is for \.parquet catalogs"):
        merged(tmp_path / "all.ndjson", a, sort=Order.SPATIAL)
    assert beside(tmp_path) == set()
    merged(output, tmp_path / "b.parquet")
    with pytest.raises(RastermetaError, match="--gdal-config"):
        asyncio.run(extract_to(output, ["/x"]))


def test_the_command_merges_shards(tmp_path: Path, sample_archive: Path) -> None:
    shards = [tmp_path / f"{index}.parquet" for index in range(3)]
    for index, shard in enumerate(shards):
        command.run(["extract", sample_archive, "--shard", f"{index}/3", "-o", shard])
    command.run(["extract", sample_archive, "-o", tmp_path / "whole.parquet"])
    counts = [len(command.rows_of(shard)) for shard in shards]
    assert min(counts) > 0
    output = tmp_path / "all.parquet"
    done = command.run(["merge", *shards, "-o", output])
    assert (done.returncode, done.stdout) == (0, b"")
    said = f"rastermeta: {output}: 3 catalogs merged, {sum(counts)} rows, "
    assert done.stderr.decode().startswith(said), done.stderr
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    twice = command.run(["merge", *shards, shards[0], "-o", output, "--overwrite"])
    repeated = counts[0] + len(no_rasters_of(shards[0]))
    assert f"{repeated} rows left out: other catalogs".encode() in twice.stderr
    again = command.run(["merge", *shards, "-o", output])
    assert (again.returncode, b"give --overwrite to replace it" in again.stderr) == (1, True)


def big(folder: Path) -> list[Path]:
    """Make catalogs whose merging takes a second."""
    rows = some_rows(40_000)
    return [catalog(folder / f"{at}.parquet", rows[at::2]) for at in range(2)]


@pytest.mark.campaign
def test_an_interrupted_merge_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    shards, output = big(tmp_path), tmp_path / "all.parquet"
    for number in (signal.SIGINT, signal.SIGTERM):
        with command.running("merge", *shards, "-o", output) as run:
            until(lambda: list(tmp_path.glob("all.parquet.parts/*")))
            run.signal(number)
            run.message("stopping: nothing is written")
            assert run.wait() == 128 + number
        assert beside(tmp_path) == set()
    assert command.run(["merge", *shards, "-o", output, "--overwrite"]).returncode == 0


def until(is_so: Any) -> None:
    end = time.monotonic() + command.PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.campaign
def test_a_merge_that_is_killed_is_made_by_the_same_command(tmp_path: Path) -> None:
    shards, whole = big(tmp_path), catalog(tmp_path / "whole.parquet", some_rows(40_000))
    output, dice = tmp_path / "all.parquet", random.Random(7)
    arguments = [*command.COMMAND, "merge", *map(str, shards), "-o", str(output), "--overwrite"]
    began = time.monotonic()
    subprocess.run(arguments, check=True, capture_output=True)
    lasts = time.monotonic() - began
    for _ in range(12):
        with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
            time.sleep(dice.uniform(0.2 * lasts, 1.1 * lasts))
            process.kill()
        assert output.read_bytes() == whole.read_bytes(), "what stood there stays until the end"
    subprocess.run(arguments, check=True, capture_output=True)
    assert output.read_bytes() == whole.read_bytes()
    assert beside(tmp_path) == {"all.parquet", "all.parquet.checkpoint"}
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_paths_stay_sorted_where_many_catalogs_overlap(tmp_path: Path) -> None:
    rows = [at(b"/%04d" % number, 1, 1)._replace(mtime=MODIFIED) for number in range(600)]
    shards = [catalog(tmp_path / f"{first}.parquet", rows[first : first + 300])
              for first in range(0, 301, 20)]  # fmt: skip
    merged(tmp_path / "all.parquet", *shards)
    paths = [row["filepath"] for row in command.rows_of(tmp_path / "all.parquet")]
    assert len(paths) == 600
    assert all(one < other for one, other in pairwise(paths))


def test_what_stands_at_the_output_stays_whole_until_it_is_replaced(tmp_path: Path) -> None:
    """Also its log: a later run must go on from the old catalog if the merge was not finished."""
    output = catalog(tmp_path / "all.parquet", some_rows(30))
    bad = tmp_path / "bad.parquet"
    _damaged(bad)
    before = output.read_bytes()
    with pytest.raises(OutputError):
        merged(output, catalog(tmp_path / "a.parquet", [record(b"/a")]), bad, overwrite=True)
    assert output.read_bytes() == before
    assert seal(output, [record(b"/further")], order=None).rows == 31
    (tmp_path / "all.parquet.checkpoint").unlink()
    with pytest.raises(OutputError):
        merged(output, bad, overwrite=True)
    assert seal(output, [record(b"/one more")], order=None).rows == 32
    output.write_bytes(b"mine")
    assert merged(output, tmp_path / "a.parquet", overwrite=True) == Merged(1, 0, 0)


def test_rows_that_are_in_no_catalog_yet_are_not_left_behind(tmp_path: Path) -> None:
    a = catalog(tmp_path / "a.parquet", [record(b"/a")])
    b = catalog(tmp_path / "b.parquet", [record(b"/b")])
    going_on = Output(str(b))
    commit(going_on, [record(b"/c")])
    going_on.close()
    with pytest.raises(OutputError, match=r"b\.parquet has rows of a run that was not finished"):
        merged(tmp_path / "all.parquet", a, b)
    with pytest.raises(OutputError, match="which would be lost"):
        merged(b, a, overwrite=True)
    assert seal(b, order=None).rows == 2
    new = Output(str(tmp_path / "new.parquet"))
    commit(new, [record(b"/d")])
    new.close()
    with pytest.raises(OutputError, match="which would be lost"):
        merged(tmp_path / "new.parquet", a)
    assert merged(tmp_path / "all.parquet", a, b).rows == 3

"""Paths that are no rasters: kept with the log, in no catalog, each accounted for once."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from catalogs import at, commit
from ends import Killed, Machine, copies
from factory import failed, path_bytes, paths_of, record, records_of

from rastermeta_async.catalog import durable
from rastermeta_async.catalog.changes import Unchanged, stamp_of
from rastermeta_async.catalog.checkpoint import Sealed, history, read_entries
from rastermeta_async.catalog.formats import format_of
from rastermeta_async.catalog.names import is_no_rasters, log_path, parts_folder
from rastermeta_async.catalog.output import Output, Totals
from rastermeta_async.catalog.parts import part_rows
from rastermeta_async.cli.status import status_of
from rastermeta_async.model.errors import CheckpointError
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.record import NO_RASTER, SIDECAR, Record, failure
from rastermeta_async.model.settings import Order

A, B, C = (at(b"/%s.tif" % name, west, 10) for name, west in ((b"a", 3), (b"b\xff", 2), (b"c", 1)))
BAD = failed(b"/bad.tif")


def text(path: bytes, size: int = 5) -> Record:
    return failure(path, NO_RASTER, "RasterioIOError", "not recognized")._replace(file_size=size)


def sidecar(path: bytes) -> Record:
    return failure(path, SIDECAR, "Sidecar", "it belongs to a raster")._replace(file_size=3)


WORLD, NOTES, SUMS = sidecar(b"/a.tfw"), text(b"/notes\xff.txt"), text(b"/b.md5")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(durable, "_sync_data", lambda fd: None)


@pytest.fixture(params=["catalog.parquet", "catalog.ndjson", "catalog.json"])
def any_path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / request.param)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.parquet")


@contextmanager
def opened(
    path: str, *batches: Sequence[Record], order: Order | None = None, overwrite: bool = False
) -> Iterator[Output]:
    output = Output(path, order=order, overwrite=overwrite)
    try:
        commit(output, *batches)
        yield output
    finally:
        output.close()


def sealed(path: str, *batches: Sequence[Record], order: Order | None = None) -> Totals:
    with opened(path, *batches, order=order) as output:
        return output.seal()


def rows(path: str) -> list[Record]:
    return records_of(format_of(path).read(io.FileIO(path)))


def kept(path: str) -> list[Record]:
    """Return the rows of no rasters, as the log names them, and check that no others are there."""
    state = history(read_entries(Path(log_path(path)).read_bytes(), path))
    assert state.sealed is not None
    folder = parts_folder(path)
    if state.sealed.no_rasters is None:
        assert not os.path.exists(folder)
        return []
    assert os.listdir(folder) == [state.sealed.no_rasters_name]
    return records_of(part_rows(folder, [state.sealed.no_rasters]))


def by_path(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=path_bytes)


# The life of a catalog


@pytest.mark.parametrize("order", [*Order])
def test_no_rasters_are_kept_with_the_log_and_in_no_catalog(path: str, order: Order) -> None:
    totals = sealed(path, [WORLD, C, NOTES], [A, BAD, SUMS, B], order=order)
    assert totals == Totals(4, 1, sidecars=1, others=2)
    assert by_path(rows(path)) == by_path([A, B, BAD, C])
    assert by_path(kept(path)) == by_path([WORLD, NOTES, SUMS])
    with opened(path) as output:
        assert output.seal() == totals, "nothing is to be done"


def test_json_catalogs_have_none_either(any_path: str) -> None:
    assert sealed(any_path, [WORLD, C, NOTES, A]) == Totals(2, 0, 1, 1)
    assert rows(any_path) == [A, C]
    assert kept(any_path) == [WORLD, NOTES]
    assert sealed(any_path, [SUMS, B]) == Totals(3, 0, 1, 2)
    assert rows(any_path) == [A, B, C]
    assert kept(any_path) == [WORLD, SUMS, NOTES]


def test_a_catalog_without_any_has_no_folder_and_a_log_as_before(path: str) -> None:
    sealed(path, [A, BAD])
    assert kept(path) == []
    assert b"sidecars" not in Path(log_path(path)).read_bytes()


def test_where_nothing_is_a_raster_the_catalog_is_empty(any_path: str) -> None:
    assert sealed(any_path, [NOTES, WORLD]) == Totals(0, 0, 1, 1)
    assert rows(any_path) == []
    assert kept(any_path) == [WORLD, NOTES]


@pytest.mark.parametrize("order", [*Order])
@pytest.mark.parametrize("then", [*Order])
def test_a_path_moves_in_and_out_of_the_catalog(path: str, order: Order, then: Order) -> None:
    sealed(path, [A, NOTES, text(b"/c.tif"), WORLD], order=order)
    totals = sealed(path, [C, text(b"/a.tif"), SUMS], [B], order=then)
    assert totals == Totals(2, 0, 1, 3)
    assert by_path(rows(path)) == by_path([B, C])
    assert by_path(kept(path)) == by_path([WORLD, SUMS, NOTES, text(b"/a.tif")])
    totals = sealed(path, [record(b"/b.md5")], order=order)
    assert totals == Totals(3, 0, 1, 2)
    assert by_path(kept(path)) == by_path([WORLD, NOTES, text(b"/a.tif")])
    if then is not Order.NONE and order is not Order.NONE:
        assert kept(path) == by_path(kept(path))


def test_the_last_no_raster_takes_its_file_and_the_folder_along(path: str) -> None:
    sealed(path, [A, NOTES])
    sealed(path, [record(path_bytes(NOTES))])
    assert kept(path) == []
    assert len(rows(path)) == 2


def test_the_order_changes_without_new_rows(path: str) -> None:
    many = [text(b"/%04d.txt" % number) for number in range(300)]
    sealed(path, many[100:], [A, C], many[:100], order=Order.NONE)
    sealed(path, order=Order.SPATIAL)
    assert kept(path) == many
    assert by_path(rows(path)) == [A, C]


# What is read again


def test_no_rasters_are_finished_but_not_where_each_path_is_to_have_a_row(path: str) -> None:
    everything = [A, BAD, NOTES, WORLD]
    paths = [path_bytes(row) for row in everything]
    with opened(path, everything) as output:
        for _ in "parts", "sealed":
            finished, no_rasters = output.finished(), PathSet()
            assert isinstance(finished, PathSet)
            assert finished.missing(paths) == []
            apart = output.finished(no_rasters=no_rasters)
            assert isinstance(apart, PathSet)
            assert apart.missing(paths) == no_rasters.known(paths) == paths[2:]
            strict = output.finished(strict=True)
            assert isinstance(strict, PathSet)
            assert strict.missing(paths) == paths[2:]
            failures = PathSet()
            retried = output.finished(retry_failed=True, failed=failures)
            assert isinstance(retried, PathSet)
            assert retried.missing(paths) == failures.known(paths) == [b"/bad.tif"]
            output.seal()


def test_strict_reads_again_what_is_no_raster_now_whatever_it_was(path: str) -> None:
    sealed(path, [A, NOTES])
    with opened(path, [text(b"/a.tif"), record(path_bytes(NOTES))]) as output:
        finished = output.finished(strict=True)
        assert isinstance(finished, PathSet)
        assert finished.missing([b"/a.tif", path_bytes(NOTES)]) == [b"/a.tif"]


def test_an_update_asks_for_the_state_of_no_rasters_too(path: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("notes")
    name = os.fsencode(file)
    status = file.stat()
    row = text(name)._replace(mtime=record().mtime)
    assert row.mtime
    os.utime(file, (status.st_atime, row.mtime.timestamp()))
    sealed(path, [row])
    with opened(path) as output:
        found = output.finished(update=True, no_rasters=(no_rasters := PathSet()))
        assert isinstance(found, Unchanged)
        assert found.changed([name], [stamp_of(name)]) == []
        assert no_rasters.known([name]) == [name]
        file.write_text("other notes")
        assert found.changed([name], [stamp_of(name)]) == [name]


@pytest.mark.parametrize("ended", ["parts", "sealed"])
def test_pruning_drops_no_rasters_whose_file_is_gone(path: str, tmp_path: Path, ended: str) -> None:
    here = tmp_path / "here.txt"
    here.write_text("here")
    there, gone = text(os.fsencode(here)), text(os.fsencode(tmp_path / "gone.txt"))
    with opened(path, [there, gone]) as output:
        if ended == "sealed":
            output.seal()
    with opened(path) as output:
        assert list(output.prune()) == [path_bytes(gone)]
        assert output.seal() == Totals(0, 0, 0, 1)
    assert kept(path) == [there]


def test_the_status_counts_them_apart(path: str) -> None:
    with opened(path, [A, NOTES, WORLD, BAD]):
        found = status_of(path)
        assert (found.rows, found.failures, found.sidecars, found.others) == (2, 1, 1, 1)
    sealed(path)
    with opened(path, [SUMS]):
        pass
    found = status_of(path)
    assert (found.rows, found.failures, found.sidecars, found.others) == (2, 1, 1, 2)
    assert "  besides   3 of 5 files are no rasters: 1 sidecar, 2 others" in found.as_text()


# Lost and damaged


def folder_of(path: str) -> Path:
    return Path(parts_folder(path))


def the_file(path: str) -> Path:
    (found,) = folder_of(path).iterdir()
    assert is_no_rasters(found.name)
    return found


def test_where_the_folder_was_tidied_away_the_paths_are_looked_at_again(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    sealed(path, [A, NOTES])
    the_file(path).unlink()
    folder_of(path).rmdir()
    with opened(path) as output:
        finished = output.finished()
        assert isinstance(finished, PathSet)
        assert finished.missing([b"/a.tif", path_bytes(NOTES)]) == [path_bytes(NOTES)]
        assert "was removed: the 1 file that it named as no rasters" in caplog.text
        assert output.seal() == Totals(1, 0)
    assert sealed(path, [NOTES]) == Totals(1, 0, 0, 1)
    assert kept(path) == [NOTES]


@pytest.mark.parametrize("harm", ["cut", "altered"])
def test_a_damaged_file_is_refused_as_a_damaged_part_is(path: str, harm: str) -> None:
    sealed(path, [A, NOTES])
    content = bytearray(the_file(path).read_bytes())
    if harm == "cut":
        del content[-1]
    else:
        content[len(content) // 2] ^= 1
    the_file(path).write_bytes(content)
    log = Path(log_path(path)).read_bytes()
    with pytest.raises(CheckpointError, match="no-rasters") as caught, opened(path) as output:
        output.finished()
    assert "give --overwrite to start again from nothing" in str(caught.value)
    assert sum(b"sealed" in line for line in log.splitlines()) == 1
    the_file(path).unlink()
    assert sealed(path, [NOTES]) == Totals(1, 0, 0, 1)


def test_a_catalog_and_log_that_are_deleted_leave_nothing_in_the_way(any_path: str) -> None:
    sealed(any_path, [A, NOTES])
    os.unlink(any_path)
    os.unlink(log_path(any_path))
    assert sealed(any_path, [C, WORLD]) == Totals(1, 0, 1, 0)
    assert kept(any_path) == [WORLD]


def test_a_catalog_that_is_deleted_takes_its_no_rasters_along(any_path: str) -> None:
    sealed(any_path, [A, NOTES])
    os.unlink(any_path)
    with opened(any_path) as output:
        assert len(output.finished()) == 0
        assert output.seal() == Totals(0, 0)
    assert kept(any_path) == []


def test_a_log_that_is_deleted_leaves_the_rows_and_forgets_the_no_rasters(path: str) -> None:
    sealed(path, [A, NOTES])
    os.unlink(log_path(path))
    with opened(path) as output:
        assert len(output.finished()) == 1
    assert not folder_of(path).exists()
    assert sealed(path, [NOTES]) == Totals(1, 0, 0, 1)


def test_overwriting_starts_without_any(path: str) -> None:
    sealed(path, [A, NOTES])
    with opened(path, [B], overwrite=True) as output:
        assert output.seal() == Totals(1, 0)
    assert kept(path) == []


# Killed, or without power, at any step

EVERYTHING = [[C, WORLD, NOTES], [BAD, SUMS], [B, text(b"/z.txt"), A]]


def fresh(path: str) -> None:
    """Nothing is there."""


def with_no_rasters(path: str) -> None:
    """A catalog with some that are no rasters; two of its paths are going to change sides."""
    sealed(path, [text(b"/c.tif"), record(path_bytes(NOTES)), text(b"/other.txt")])


def with_parts(path: str) -> None:
    """Parts add to it."""
    with_no_rasters(path)
    with opened(path, [C, WORLD, NOTES]):
        pass


def only_no_rasters_change(path: str) -> None:
    """The catalog that is sealed has the same content as the one before."""
    sealed(path, [A, B, BAD, C, sidecar(b"/gone.tfw")])


def run(path: str, order: Order | None = None) -> Totals:
    """Read what is not finished, or what has changed, and seal."""
    with opened(path, order=order) as output:
        known = rows_of(output)
        for some in EVERYTHING:
            if todo := [row for row in some if (path_bytes(row), row.status) not in known]:
                commit(output, todo)
        return output.seal()


def rows_of(output: Output) -> set[tuple[bytes, str]]:
    """Return path and status of the newest row of each path."""
    newest: dict[bytes, str] = {}
    for batch in output._committed_rows():
        for row in batch.to_pylist():
            newest[row["filepath_bytes"] or row["filepath"].encode()] = row["status"]
    return set(newest.items())


def crash(path: str, last: int | None, order: Order | None, *, power: bool) -> int:
    """Run until the end or step `last`; return the number of steps."""
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch, Path(path).parent, last)
        try:
            run(path, order)
        except Killed:
            assert last is not None
    if power:
        machine.cut_power()
    machine.switch_off()
    return machine.steps


each_scene = pytest.mark.parametrize(
    "scene", [fresh, with_no_rasters, with_parts, only_no_rasters_change]
)
each_form = pytest.mark.parametrize(
    ("name", "order"),
    [("catalog.parquet", None), ("catalog.parquet", Order.NONE), ("catalog.ndjson", None)],
)
each_end = pytest.mark.parametrize("power", [False, True], ids=["kill", "power-cut"])


def end_at_steps(
    folder: Path, name: str, order: Order | None, scene: Callable[[str], None], stride: int,
    *, power: bool,
) -> None:  # fmt: skip
    """End a run at each `stride`-th step, and some of the runs after it; then all is there."""
    scenes = copies(folder, name, scene)
    path = next(scenes)
    steps = crash(path, None, order, power=False)
    expected = by_path(rows(path)), by_path(kept(path))
    inputs = {path_bytes(row) for some in EVERYTHING for row in some}
    assert inputs <= {path_bytes(row) for some in expected for row in some}
    assert len(expected[1]) >= 4
    for last in range(1, steps + 1, stride):
        path = next(scenes)
        crash(path, last, order, power=power)
        again = 1 + last % 7
        if last % 3 == 0:  # and the recovery ends, too
            crash(path, again, order, power=power)
        run(path, order)
        assert (by_path(rows(path)), by_path(kept(path))) == expected, f"step {last}"
        names = set(os.listdir(os.path.dirname(path)))
        assert names == {name, f"{name}.checkpoint", f"{name}.parts"}


@pytest.mark.campaign
@each_end
@each_scene
@each_form
def test_a_run_that_ends_anywhere_loses_no_path(
    tmp_path: Path, name: str, order: Order | None, scene: Callable[[str], None], power: bool
) -> None:
    # A Parquet footer is written in many small pieces, which differ in nothing.
    end_at_steps(tmp_path, name, order, scene, 10 if name.endswith(".parquet") else 3, power=power)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@each_end
@each_scene
@each_form
def test_a_run_that_ends_at_every_step_loses_no_path(
    tmp_path: Path, name: str, order: Order | None, scene: Callable[[str], None], power: bool
) -> None:
    end_at_steps(tmp_path, name, order, scene, 1, power=power)


def test_what_a_run_keeps_is_told_by_the_log_alone(path: str) -> None:
    """A file of no rasters whose sealing was not finished does not count."""
    sealed(path, [A, NOTES])
    before = the_file(path).read_bytes()
    other = folder_of(path) / "rastermeta-no-rasters-0123456789abcdef.parquet"
    other.write_bytes(before)
    with opened(path) as output:
        assert isinstance(output.sealed, Sealed)
        assert not other.exists()
    assert kept(path) == [NOTES]
    assert paths_of(part_rows(parts_folder(path), [])) == []

"""A catalog that is kept up to date: what changed is read again, what is gone is dropped."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import command
import pytest

from rastermeta_async.api import Outcome, extract_to
from rastermeta_async.catalog import prune
from rastermeta_async.catalog.output import Output
from rastermeta_async.catalog.prune import Seen, tombstones
from rastermeta_async.model.errors import PruneError
from rastermeta_async.model.settings import Settings
from rastermeta_async.progress import Progress
from rastermeta_async.sources.paths import Splitter
from rastermeta_async.sources.walk import walk


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for folder in ("a", "b"):
        (tmp_path / "archive" / folder).mkdir(parents=True)
        for number in range(3):
            command.write_raster(tmp_path / "archive" / folder / f"{number}.tif", width=4)
    return tmp_path / "archive"


@pytest.fixture
def catalog(archive: Path) -> Path:
    output = archive.parent / "catalog.parquet"
    assert update(archive, output).returncode == 0
    return output


def update(archive: Path, catalog: Path, *more: str) -> subprocess.CompletedProcess[bytes]:
    return command.run(["extract", archive, "-o", catalog, "--update", *more])


def widths(catalog: Path) -> dict[str, int | None]:
    rows = command.rows_of(catalog)
    return {"/".join(row["filepath"].split("/")[-2:]): row["width"] for row in rows}


def test_nothing_changed_nothing_written(archive: Path, catalog: Path) -> None:
    before = catalog.stat()
    done = update(archive, catalog, "--prune")
    assert done.returncode == 0
    assert b"0 files read, 6 skipped" in done.stderr
    after = catalog.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_changed_and_new_files_are_read(archive: Path, catalog: Path) -> None:
    command.write_raster(archive / "a" / "1.tif", width=9)
    command.write_raster(archive / "b" / "3.tif", width=5)
    done = update(archive, catalog)
    assert b"2 files read, 5 skipped" in done.stderr
    assert widths(catalog) == {
        "a/0.tif": 4, "a/1.tif": 9, "a/2.tif": 4, "b/0.tif": 4, "b/1.tif": 4, "b/2.tif": 4,
        "b/3.tif": 5,
    }  # fmt: skip


def test_a_new_time_is_a_change(archive: Path, catalog: Path) -> None:
    os.utime(archive / "a" / "1.tif", (1, 1))
    assert b"1 file read, 5 skipped" in update(archive, catalog).stderr


def test_without_the_option_a_changed_file_keeps_its_row(archive: Path, catalog: Path) -> None:
    command.write_raster(archive / "a" / "1.tif", width=9)
    command.run(["extract", archive, "-o", catalog])
    assert widths(catalog)["a/1.tif"] == 4


def test_a_missing_file_is_read_when_it_comes_and_not_before(archive: Path) -> None:
    output, late = archive.parent / "catalog.parquet", archive / "late.tif"
    for _ in range(2):
        done = command.run(["extract", late, "-o", output, "--update"])
        assert done.returncode == 3
    assert b"0 files read, 1 skipped" in done.stderr
    command.write_raster(late, width=4)
    assert command.run(["extract", late, "-o", output, "--update"]).returncode == 0


def test_rows_of_lost_files_are_dropped(archive: Path, catalog: Path) -> None:
    (archive / "a" / "1.tif").unlink()
    listed = command.run(["extract", "-o", catalog, "--prune", "--dry-run"])
    assert listed.stdout.decode().split() == [str(archive / "a" / "1.tif")]
    assert len(widths(catalog)) == 6
    done = update(archive, catalog, "--prune")
    assert b"1 row dropped" in done.stderr
    assert "a/1.tif" not in widths(catalog)
    assert len(widths(catalog)) == 5
    command.write_raster(archive / "a" / "1.tif", width=7)
    update(archive, catalog, "--prune")
    assert widths(catalog)["a/1.tif"] == 7


def test_a_folder_that_was_missing_loses_its_row_once_it_is_there(archive: Path) -> None:
    output, elsewhere = archive.parent / "catalog.parquet", archive.parent / "elsewhere"
    archive.rename(elsewhere)
    assert command.run(["extract", archive, "-o", output]).returncode == 3
    elsewhere.rename(archive)
    for _ in range(2):
        done = command.run(["extract", archive, "-o", output, "--prune"])
        assert done.returncode == 0, done.stderr
    assert str(archive).encode() not in command.paths_of(output)


@pytest.mark.campaign
def test_what_is_given_and_never_was_keeps_its_row(archive: Path, catalog: Path) -> None:
    """Else it would be read and dropped again with every run, and the catalog written."""
    arguments = ["extract", str(archive), "-", "-o", str(catalog), "--update", "--prune"]
    never, lost = archive / "never.tif", archive / "a" / "1.tif"
    for _ in range(2):
        done = command.run(arguments, bytes(never))
        assert b"dropped" not in done.stderr
    assert b"0 files read, 7 skipped" in done.stderr
    lost.unlink()
    done = command.run(arguments, b"%b\n%b" % (bytes(never), bytes(lost)))
    assert b"1 file read" in done.stderr
    assert widths(catalog)["a/1.tif"] is None
    assert len(widths(catalog)) == 7


WRONG_LISTS = {
    "from Windows": lambda names: b"".join(b"%b\r\n" % name for name in names),
    "NULs": lambda names: b"\0".join(names),
    "misspelt": lambda names: b"\n".join(name.replace(b"archive", b"archve") for name in names),
    "a file as a folder": lambda names: b"\n".join(name + b"/" for name in names),
    "too long": lambda names: b"\n".join(name + b"x" * 300 for name in names),
    "folders": lambda names: b"\n".join({os.path.dirname(name) for name in names}),
    "a table": lambda names: b"path,size\n" + b"\n".join(name + b",1" for name in names),
}


@pytest.mark.parametrize("wrong", WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_rows_of_a_wrong_list_go_with_the_right_one(
    archive: Path, wrong: Callable[[list[bytes]], bytes]
) -> None:
    names = [os.fsencode(archive / "a" / f"{number}.tif") for number in range(3)]
    output = archive.parent / "catalog.parquet"

    def read(paths: list[bytes], **more: Any) -> list[bytes]:
        asyncio.run(extract_to(output, paths, Settings(**more)))
        return command.paths_of(output)

    splitter = Splitter(b"\n")
    bad = read([*splitter.feed(wrong(names)), *splitter.finish()])
    assert read(names, retry_failed=True) == sorted([*names, *bad])
    assert read(names, prune=True) == names


@pytest.mark.campaign
def test_the_hint_names_what_helps_where_paths_lead_to_nothing(archive: Path) -> None:
    arguments = ["extract", "-", "-o", str(archive.parent / "catalog.parquet")]
    right = bytes(archive / "a" / "0.tif")
    first = command.run(arguments, right + b"\r\n").stderr.decode()
    assert "1 path of the input leads to nothing (-v names each): where a disk is not" in first
    assert "where the list is wrong, run the right one with --prune, which drops its row" in first
    retried = command.run([*arguments, "--retry-failed"], right).stderr.decode()
    assert "1 error row is of a path that is not in this input: --retry-failed does not" in retried
    assert "--prune drops it if it leads to no file" in retried
    pruned = command.run([*arguments, "--prune"], right).stderr.decode()
    assert "1 row dropped" in pruned
    assert "--prune drops" not in pruned
    assert b"--prune" not in command.run(["extract", "-"], b"never.tif").stderr


@pytest.mark.campaign
def test_what_would_be_dropped_is_what_is_dropped(archive: Path, catalog: Path) -> None:
    """With the inputs of the run named, those that lead to nothing keep their rows."""
    never, lost = archive / "never.tif", archive / "a" / "1.tif"
    command.run(["extract", archive, never, "other.tif", "-o", catalog])
    lost.unlink()
    (archive / "list.txt").write_bytes(b"%b\n%b\n" % (bytes(never), bytes(lost)))
    before = catalog.read_bytes()
    arguments = ["extract", "--from-file", f"{archive}/list.txt", "-o", str(catalog), "--prune"]
    for more, expected in (([], [str(lost), "other.tif"]), (["--update"], ["other.tif"])):
        listed = command.run([*arguments, "--dry-run", *more])
        assert listed.stdout.decode().splitlines() == expected
        assert catalog.read_bytes() == before
    done = command.run([*arguments, "--update"])
    assert b"1 row dropped" in done.stderr
    assert b"other.tif" not in command.paths_of(catalog)


def test_nothing_to_drop_is_said(catalog: Path) -> None:
    listed = command.run(["extract", "-o", catalog, "--prune", "--dry-run"])
    assert (listed.returncode, listed.stdout) == (0, b"")
    assert listed.stderr == b"rastermeta: --prune would drop nothing\n"


@pytest.mark.campaign
def test_what_would_go_is_listed_also_where_whole_folders_are_gone(
    archive: Path, catalog: Path
) -> None:
    (archive / "a").rename(archive.parent / "elsewhere")
    lost = [f"{archive}/a/{number}.tif" for number in range(3)]
    for options in ([], [str(archive / "a")], ["--prune-folders"]):
        listed = command.run(["extract", "-o", catalog, "--prune", "--dry-run", *options])
        assert listed.returncode == 0
        assert listed.stdout.decode().splitlines() == lost
        assert b"--prune would drop 3 rows" in listed.stderr
        refused = (
            "but without --prune-folders: no row was dropped: whole folders are gone or empty, "
            f"e.g. {archive}/a"
        )
        assert (refused in listed.stderr.decode()) == ("--prune-folders" not in options)
    assert len(widths(catalog)) == 6


def test_a_folder_that_did_not_answer_is_walked_by_the_same_command_and_loses_its_row(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, scandir, answer = archive.parent / "catalog.parquet", os.scandir, threading.Event()

    def slow(path: bytes) -> Any:
        if path == bytes(archive / "b"):
            answer.wait(20)
        return scandir(path)

    def run(**more: Any) -> Outcome:
        paths = walk([bytes(archive)], (b".tif",), timeout=0.1)
        return asyncio.run(extract_to(output, paths, Settings(**more), progress=progress))

    monkeypatch.setattr(os, "scandir", slow)
    progress = Progress()
    assert run().failures == 1
    rows = {row["filepath"]: row for row in command.rows_of(output)}
    assert rows[str(archive / "b")]["error_type"] == "Timeout"
    assert "this was not walked" in rows[str(archive / "b")]["error_message"]
    assert run(retry_failed=True).failures == 1
    answer.set()
    progress = Progress()
    outcome = run()
    assert (outcome.rows, outcome.failures) == (6, 0)
    assert (progress.done, progress.walked, progress.not_given) == (3, 1, 0)
    assert list(widths(output)) == [f"{at}/{number}.tif" for at in "ab" for number in range(3)]


@pytest.mark.campaign
def test_a_folder_that_is_given_as_a_file_too_keeps_its_row(archive: Path) -> None:
    """Else it would come and go with every other run."""
    output = archive.parent / "catalog.parquet"
    (archive.parent / "list.txt").write_bytes(bytes(archive))
    arguments = [
        "extract",
        str(archive),
        "--from-file",
        f"{archive.parent}/list.txt",
        "-o",
        str(output),
    ]
    for options in ([], [], ["--prune"], ["--prune"]):
        assert command.run([*arguments, *options]).returncode == 3
        assert bytes(archive) in command.paths_of(output)


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_lost_folder_is_not_believed(archive: Path, catalog: Path, how: str) -> None:
    for file in (archive / "a").iterdir():
        file.unlink()
    if how == "gone":
        (archive / "a").rmdir()
    command.write_raster(archive / "b" / "3.tif", width=5)
    done = update(archive, catalog, "--prune")
    assert done.returncode == 1
    assert f"whole folders are gone or empty, e.g. {archive}/a".encode() in done.stderr
    assert b"finished: " in done.stderr  # all else was done
    assert len(widths(catalog)) == 7
    assert update(archive, catalog, "--prune", "--prune-folders").returncode == 0
    assert len(widths(catalog)) == 4


def test_few_of_the_folders_that_are_lost_are_named(tmp_path: Path) -> None:
    """A folder that is a file now is lost, too."""
    (tmp_path / "0").touch()
    seen = [Seen(b"%s/%d/a.tif" % (bytes(tmp_path), at), True, False) for at in range(9)]
    with pytest.raises(PruneError) as caught:
        prune.check_folders(seen, 10)
    names = ", ".join(str(tmp_path / str(at)) for at in range(3))
    assert f"whole folders are gone or empty, e.g. {names}. Is a disk" in str(caught.value)
    with pytest.raises(PruneError, match=f"e.g. {tmp_path}/0. Is a disk"):
        prune.check_folders(seen[:1], 10)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_cannot_be_listed_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Be it the folder of a row's file, or what the row is of."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(prune.gone([Seen(bytes(tmp_path), True, False)], 10)) == []
    rows = [Seen(bytes(tmp_path / "a.tif"), True, False)]
    if number == errno.EACCES:  # it is there
        prune.check_folders(rows, 10)
        return
    said = f"no row was dropped: {tmp_path} cannot be looked at: {os.strerror(number)}"
    with pytest.raises(PruneError, match=said):
        prune.check_folders(rows, 10)


def test_killed_before_the_rows_are_dropped(archive: Path, catalog: Path) -> None:
    path = archive / "a" / "1.tif"
    output = Output(str(catalog))
    output.log.append(output.sink.commit(tombstones([os.fsencode(path)])))
    output.close()
    update(archive, catalog)
    assert widths(catalog)["a/1.tif"] == 4  # it is there after all: read again
    assert len(widths(catalog)) == 6


@pytest.mark.campaign
def test_what_failed_is_read_again_though_a_run_was_killed_before_it_dropped_rows(
    archive: Path, catalog: Path
) -> None:
    bad, image = archive / "a" / "bad.tif", archive / "a" / "1.tif"
    bad.touch()
    update(archive, catalog)
    with closing(Output(str(catalog))) as output:
        output.log.append(output.sink.commit(tombstones([os.fsencode(archive / "gone.tif")])))
    bad.write_bytes(image.read_bytes())
    command.run(["extract", archive, "-o", catalog, "--retry-failed"])
    assert widths(catalog)["a/bad.tif"] == widths(catalog)["a/1.tif"]


@pytest.mark.campaign
def test_killed_while_it_prunes(archive: Path, catalog: Path) -> None:
    (archive / "a" / "1.tif").unlink()
    for number in range(1, 12):
        killed = command.killed_at(
            "fsync,fdatasync,rename,unlink", number,
            ["extract", archive, "-o", catalog, "--update", "--prune"],
        )  # fmt: skip
        if not killed:
            break
        assert len(widths(catalog)) in (5, 6)
    assert update(archive, catalog, "--prune").returncode == 0
    assert len(widths(catalog)) == 5


@pytest.mark.parametrize("options", [["--dry-run"], ["--prune-folders"]])
def test_what_says_how_to_prune_does_nothing_alone(catalog: Path, options: list[str]) -> None:
    done = command.run(["extract", "-o", catalog, *options])
    assert done.returncode == 2
    assert b"give --prune, too" in done.stderr


@pytest.mark.parametrize("option", ["--update", "--sort=spatial", "--retry-failed", "--overwrite"])
def test_a_stream_is_no_catalog(archive: Path, option: str) -> None:
    done = command.run(["extract", archive, "-o", "-", option])
    assert done.returncode == 2
    assert b"need a catalog: give -o FILE" in done.stderr


def test_a_mistyped_name_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    done = command.run(["extract", "-o", tmp_path / "typo.parquet", "--prune", "--dry-run"])
    assert done.returncode == 2
    assert b"there is no catalog of this name" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_vanishes_between_two_runs_of_one_process(
    archive: Path, catalog: Path
) -> None:
    output = Output(str(catalog))
    assert list(output.prune()) == []
    for file in (archive / "a").iterdir():
        file.unlink()
    with pytest.raises(PruneError, match="whole folders are gone"):
        list(output.prune())
    output.close()


def test_a_disk_that_does_not_answer_is_no_lost_disk(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "_is_gone", lambda *row: time.sleep(5))
    output = Output(str(catalog))
    with pytest.raises(PruneError, match=r"no answer within 0\.2 s"):
        list(output.prune(timeout=0.2))
    output.close()


@pytest.mark.campaign
@pytest.mark.parametrize("options", [[], ["--prune-folders"]])
def test_an_input_that_is_gone_drops_nothing(
    archive: Path, catalog: Path, options: list[str]
) -> None:
    """Its disk is not mounted: no row goes, and none comes that says so for ever."""
    before = catalog.read_bytes()
    archive.rename(archive.parent / "elsewhere")
    done = update(archive, catalog, "--prune", *options)
    assert done.returncode == 2
    assert b"is a disk not mounted?" in done.stderr
    assert catalog.read_bytes() == before

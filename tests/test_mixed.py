"""Archives that hold more than rasters: what is no raster is counted, and is no error."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, from_json, rows_of, run, write_raster
from mixed import (
    BROKEN,
    GOOD,
    MADE_SIDECARS,
    OTHERS,
    PACKED,
    SIDECARS,
    as_json,
    no_rasters_of,
    write_mixed,
)
from range_server import serving

import rastermeta_async
from rastermeta_async.cli.inputs import Given
from rastermeta_async.model.record import Record, differing_columns, from_fields
from rastermeta_async.model.settings import Access, Settings
from rastermeta_async.sources.paths import IterableSource
from rastermeta_async.sources.walk import Walked

NO_RASTERS = dict.fromkeys({*SIDECARS, *MADE_SIDECARS}, "sidecar") | dict.fromkeys(
    {*OTHERS, *PACKED}, "no_raster"
)
TOLD = (
    f"{len(NO_RASTERS)} of {{count}} files are no rasters: {len(SIDECARS) + len(MADE_SIDECARS)} "
    f"sidecars, {len(OTHERS) + len(PACKED)} others"
)
ALL, FINE = (TOLD.format(count=len(GOOD) + len(NO_RASTERS) + more) for more in (len(BROKEN), 0))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive: not to be written to."""
    folder = tmp_path_factory.mktemp("mixed") / "archive"
    write_mixed(folder)
    return folder


@pytest.fixture
def archive(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as `archive` in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "archive")
    return Path("archive")


def names(archive: Path) -> list[bytes]:
    return [os.fsencode(path) for path in sorted(archive.rglob("*")) if path.is_file()]


def named(archive: Path, kinds: dict[str, str]) -> dict[bytes, str]:
    return {os.fsencode(archive / name): kind for name, kind in kinds.items()}


def check(catalog: Path, archive: Path, *, broken: bool = True) -> None:
    """Hold that a catalog has the rasters as rows, and that all others are kept, each once."""
    found = {row["filepath_bytes"] or row["filepath"].encode(): row["status"]
             for row in rows_of(catalog)}  # fmt: skip
    assert len(found) == len(rows_of(catalog))
    rows = dict.fromkeys(GOOD, "success") | (dict.fromkeys(BROKEN, "error") if broken else {})
    assert found == named(archive, rows)
    assert no_rasters_of(catalog) == named(archive, NO_RASTERS)


def given(how: str, archive: Path) -> tuple[list[str | bytes | Path], bytes]:
    """Return arguments, and what comes on standard input."""
    if how == "stdin":
        return ["-0"], b"\0".join(names(archive))
    return [archive], b""


@pytest.mark.parametrize("how", ["folder", "stdin"])
@pytest.mark.parametrize(
    "options", [["--workers", "0"], ["--workers", "2", "--reader", "rasterio"]]
)
def test_rows_are_of_rasters_and_all_else_is_counted(
    archive: Path, how: str, options: list[str]
) -> None:
    arguments, stdin = given(how, archive)
    command = ["extract", *arguments, "-o", "catalog.parquet", *options]
    done = run(command, stdin)
    assert done.returncode == 3, done.stderr
    check(Path("catalog.parquet"), archive)
    said = done.stderr.decode()
    assert f"rastermeta: {ALL}\n" in said
    assert f"{len(GOOD) + len(BROKEN)} files read, {len(BROKEN)} with problems, " in said
    again = run(command, stdin)
    assert again.returncode == 3, again.stderr
    assert f"0 files read, {len(names(archive))} skipped" in again.stderr.decode()
    assert f"rastermeta: {ALL}\n" in again.stderr.decode()
    check(Path("catalog.parquet"), archive)


def test_nothing_is_wrong_where_only_rasters_are_missing(tmp_path: Path) -> None:
    write_mixed(tmp_path / "archive", broken=False)
    catalog = tmp_path / "catalog.ndjson"
    done = run(["extract", tmp_path / "archive", "-o", catalog])
    assert done.returncode == 0, done.stderr
    assert f"rastermeta: {FINE}\n" in done.stderr.decode()
    rows = as_json(catalog.read_bytes())
    assert len(rows) == len(GOOD)
    assert no_rasters_of(catalog) == named(tmp_path / "archive", NO_RASTERS)


def test_an_archive_without_a_raster_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.txt").write_text("text")
    catalog = tmp_path / "catalog.parquet"
    done = run(["extract", tmp_path / "archive", "-o", catalog])
    assert done.returncode == 0
    assert "1 of 1 file is no raster: 1 other\n" in done.stderr.decode()
    assert rows_of(catalog) == []


# Where each path is to have a row


ONE_BY_ONE = """
import pickle, sys
from rastermeta_async import read_record
from rastermeta_async.readers.undecodable import quiet_undecodable_messages
quiet_undecodable_messages()
paths = sys.stdin.buffer.read().split(b"\\0")
pickle.dump([tuple(read_record(path)) for path in paths], sys.stdout.buffer)
"""


def one_by_one(paths: Sequence[bytes]) -> dict[bytes, Record]:
    """Return the records of files as of before anybody asked whether they are rasters."""
    done = run([], b"\0".join(paths), command=[sys.executable, "-c", ONE_BY_ONE])
    assert done.returncode == 0, done.stderr
    return dict(zip(paths, map(Record._make, pickle.loads(done.stdout)), strict=True))


def differences(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return in what rows differ from the records of the same files, one by one."""
    found = {}
    paths = [row["filepath_bytes"] or row["filepath"].encode() for row in rows]
    for row, record in zip(rows, one_by_one(paths).values(), strict=True):
        if row["error_type"] == "ArchiveNotRead":  # one file has no hint how to read its members
            row |= {"error_type": record.error_type, "error_message": record.error_message}
        if unlike := differing_columns(from_fields(row), record):
            found[row["filepath"]] = unlike
    return found


def strict_statuses(archive: Path) -> Counter[str]:
    counts = Counter(record.status for record in one_by_one(names(archive)).values())
    assert counts["sidecar"] == counts["no_raster"] == 0
    return counts


@pytest.mark.parametrize("how", ["--strict", "--from-file", "named"])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_who_asks_for_it_has_a_row_for_each_path(archive: Path, how: str, workers: str) -> None:
    Path("list").write_bytes(b"\0".join(names(archive)))
    ways: dict[str, Sequence[str | bytes | Path]] = {
        "--strict": ["--strict", archive],
        "--from-file": ["-0", "--from-file", "list"],
        "named": names(archive),
    }
    done = run(["extract", *ways[how], "-o", "catalog.parquet", "--workers", workers])
    assert done.returncode == 3, done.stderr
    rows = rows_of(Path("catalog.parquet"))
    assert len(rows) == len(names(archive))
    assert Counter(row["status"] for row in rows) == strict_statuses(archive)
    assert differences(rows) == {}
    assert not Path("catalog.parquet.parts").exists()
    assert "no raster" not in done.stderr.decode()


def test_a_list_skips_where_it_is_asked_to(archive: Path) -> None:
    Path("list").write_bytes(b"\0".join(names(archive)))
    done = run(["extract", "-0", "--from-file", "list", "--no-strict", "-o", "catalog.parquet"])
    assert f"rastermeta: {ALL}\n" in done.stderr.decode()
    check(Path("catalog.parquet"), archive)


def test_strict_reads_what_was_skipped(archive: Path) -> None:
    run(["extract", archive, "-o", "catalog.parquet"])
    done = run(["extract", archive, "-o", "catalog.parquet", "--strict"])
    assert f"{len(NO_RASTERS)} files read" in done.stderr.decode()
    rows = rows_of(Path("catalog.parquet"))
    assert len(rows) == len(names(archive))
    assert differences(rows) == {}
    assert not Path("catalog.parquet.parts").exists()


def test_a_file_that_is_named_after_it_was_skipped_has_its_row(archive: Path) -> None:
    run(["extract", archive, "-o", "catalog.parquet"])
    before = no_rasters_of(Path("catalog.parquet"))
    name = archive / "readme.txt"
    for options in ([], ["--update"]):
        done = run(["extract", name, archive, "-o", "catalog.parquet", *options])
        assert done.returncode == 3
        count = 0 if options else 1
        assert f"{count} file{'' if count == 1 else 's'} read" in done.stderr.decode()
        row = {row["filepath"]: row["status"] for row in rows_of(Path("catalog.parquet"))}
        assert row[str(name)] == "error"
        after = no_rasters_of(Path("catalog.parquet"))
        assert {*before} - {*after} == {os.fsencode(name)}


def test_a_file_that_is_named_has_its_row_also_where_it_is_found(archive: Path) -> None:
    done = run(["extract", archive, archive / "readme.txt", "-o", "catalog.parquet"])
    assert done.returncode == 3
    rows = {row["filepath"]: row["status"] for row in rows_of(Path("catalog.parquet"))}
    assert rows["archive/readme.txt"] == "error"
    assert len(no_rasters_of(Path("catalog.parquet"))) == len(NO_RASTERS) - 1


def test_the_library_has_a_row_for_each_path_unless_it_is_told_otherwise(archive: Path) -> None:
    (archive / "notes\udcff.txt").unlink()

    async def statuses(settings: Settings) -> Counter[str]:
        paths = names(archive)
        return Counter(
            [record.status async for record in rastermeta_async.extract(paths, settings)]
        )

    assert asyncio.run(statuses(Settings())) == strict_statuses(archive)
    found = asyncio.run(statuses(Settings(strict=False)))
    assert found == {"success": len(GOOD), "error": len(BROKEN)}
    table = rastermeta_async.read_table(names(archive), Settings(strict=False))
    assert Counter(table["status"].to_pylist()) == strict_statuses(archive)


# What is said


def test_a_stream_has_no_lines_of_them(archive: Path) -> None:
    done = run(["extract", archive, "-o", "-", "--workers", "0"])
    assert done.returncode == 3
    assert len(as_json(done.stdout)) == len(GOOD) + len(BROKEN)
    assert f"rastermeta: {ALL}\n" in done.stderr.decode()


def test_each_is_named_on_request(archive: Path) -> None:
    said = run(["extract", archive, "-o", "catalog.parquet", "-v"]).stderr.decode()
    listed = re.findall(r"^rastermeta: archive/(.*?): (sidecar|no_raster): .", said, re.MULTILINE)
    expected = {name.replace("\udcff", "\\xff"): kind for name, kind in NO_RASTERS.items()}
    assert dict(listed) == expected
    assert len(listed) == len(expected)
    assert "archive/a.tfw: sidecar: it belongs to a\n" in said


def test_machines_get_the_numbers(archive: Path) -> None:
    done = run(["extract", archive, "-o", "catalog.parquet", "--log-json"])
    said = [from_json(line) for line in done.stderr.splitlines()]
    sidecars, others = (list(NO_RASTERS.values()).count(kind) for kind in ("sidecar", "no_raster"))
    (finished,) = [line for line in said if line["message"].startswith("finished")]
    assert (finished["sidecars"], finished["others"]) == (sidecars, others)
    (counted,) = [line for line in said if line["message"] == ALL]
    assert (counted["sidecars"], counted["others"]) == (sidecars, others)
    status = from_json(run(["status", "catalog.parquet", "--json"]).stdout)
    assert (status["sidecars"], status["others"]) == (sidecars, others)
    assert f"  besides   {ALL}\n" in run(["status", "catalog.parquet"]).stdout.decode()


def test_the_summary_tells_of_them(archive: Path) -> None:
    run(["extract", archive, "-o", "catalog.parquet"])
    said = run(["summary", "catalog.parquet"]).stdout.decode()
    assert f"\n{ALL}\n" in said
    assert "  sidecars, e.g. archive/a.IMD" in said
    assert "  others, e.g. archive/II.txt" in said
    content = from_json(run(["summary", "catalog.parquet", "--json"]).stdout)
    assert content["no_rasters"]["sidecars"] == list(NO_RASTERS.values()).count("sidecar")
    assert content["no_rasters"]["others"] == list(NO_RASTERS.values()).count("no_raster")
    assert content["no_rasters"]["examples"]["others"][0] == "archive/II.txt"
    shutil.rmtree("catalog.parquet.parts")
    again = run(["summary", "catalog.parquet"])
    assert again.returncode == 0
    assert f"\n{ALL}\n" in again.stdout.decode()


# Runs after the first


def opened(arguments: Sequence[str | bytes | Path], stdin: bytes = b"") -> set[str]:
    """Return the names that a run opens or asks for the state of."""
    trace = Path("trace")
    calls = "trace=open,openat,stat,lstat,newfstatat,statx"
    strace = ["strace", "-f", "-qq", "-s", "4096", "-o", str(trace), "-e", calls]
    done = run([*arguments, "--workers", "0"], stdin, command=[*strace, *COMMAND])
    assert done.returncode in (0, 3), done.stderr
    return set(re.findall(r'"(archive/[^"]*)"', trace.read_text(errors="replace")))


def test_a_run_with_nothing_to_do_opens_none_of_them(archive: Path) -> None:
    stdin = b"\0".join(names(archive))
    first = opened(["extract", "-0", "-o", "catalog.parquet"], stdin)
    assert "archive/readme.txt" in first
    assert opened(["extract", "-0", "-o", "catalog.parquet"], stdin) == set()
    updating = opened(["extract", "-0", "-o", "catalog.parquet", "--update"], stdin)
    assert {"archive/readme.txt", "archive/a.tif"} <= updating


def test_a_text_becomes_a_raster_and_a_raster_becomes_a_text(archive: Path) -> None:
    command: list[str | Path] = ["extract", archive, "-o", "catalog.parquet", "--update"]
    run(command)
    write_raster(archive / "readme.txt")
    (archive / "plain.bin").write_text("no raster any more")
    (archive / "a.tfw").write_text("2.5\n0.0\n0.0\n-2.5\n0.0\n0.0\n")
    before = no_rasters_of(Path("catalog.parquet"))
    done = run(command)
    assert "1 file read, 2 no rasters" in done.stderr.decode(), done.stderr
    rows = {row["filepath"]: row["status"] for row in rows_of(Path("catalog.parquet"))}
    assert rows["archive/readme.txt"] == "success"
    assert "archive/plain.bin" not in rows
    assert len(rows) == len(GOOD) + len(BROKEN)
    after = no_rasters_of(Path("catalog.parquet"))
    assert after == {
        path: kind for path, kind in before.items() if path != b"archive/readme.txt"
    } | {b"archive/plain.bin": "no_raster"}
    assert "0 files read" in run(command).stderr.decode()


def test_pruning_forgets_what_is_gone(archive: Path) -> None:
    run(["extract", archive, "-o", "catalog.parquet"])
    (archive / "readme.txt").unlink()
    (archive / "a.tfw").unlink()
    done = run(["extract", archive, "-o", "catalog.parquet", "--prune"])
    assert "2 rows dropped" in done.stderr.decode()
    left = no_rasters_of(Path("catalog.parquet"))
    assert len(left) == len(NO_RASTERS) - 2


def test_what_cannot_be_reached_stays_an_error(archive: Path) -> None:
    paths = [b"archive/gone.txt", b"archive/deep", b"archive/readme.txt/inside.txt"]
    done = run(["extract", "-0", "-o", "catalog.parquet"], b"\0".join(paths))
    assert done.returncode == 3
    assert {row["error_type"] for row in rows_of(Path("catalog.parquet"))} == {
        "FileNotFoundError", "NotADirectoryError", "NotAFile"
    }  # fmt: skip


def test_merging_keeps_them(archive: Path) -> None:
    everything = names(archive)
    for number, some in enumerate((everything[::2], everything[1::2], everything[:5])):
        run(["extract", "-0", "-o", f"part-{number}.parquet"], b"\0".join(some))
    for order in ("path", "spatial"):
        catalog = Path(f"{order}.parquet")
        parts = [f"part-{number}.parquet" for number in range(3)]
        done = run(["merge", *parts, "-o", catalog, "--sort", order])
        assert done.returncode == 0, done.stderr
        assert "5 rows left out" in done.stderr.decode()
        assert f"rastermeta: {ALL}\n" in done.stderr.decode()
        check(catalog, archive)
    done = run(["extract", archive, "-o", "path.parquet"])
    assert "0 files read" in done.stderr.decode()


def test_a_newer_state_wins_in_a_merge_whatever_it_is(archive: Path) -> None:
    name = archive / "readme.txt"
    run(["extract", "-o", "old.parquet"], os.fsencode(name))
    write_raster(name)
    os.utime(name, (2e9, 2e9))
    run(["extract", "-o", "new.parquet"], os.fsencode(name))
    for catalogs in (["old.parquet", "new.parquet"], ["new.parquet", "old.parquet"]):
        done = run(["merge", *catalogs, "-o", "merged.parquet", "--overwrite"])
        assert done.returncode == 0, done.stderr
        assert [row["status"] for row in rows_of(Path("merged.parquet"))] == ["success"]
        assert no_rasters_of(Path("merged.parquet")) == {}


# In stores

OPENED_IN_STORES = {"c.rrd"}
"""Sidecars that GDAL opens: in a store nothing tells that a raster is next to them."""
NOT_WHOLE_IN_STORES = {"envi", "d.bil", "envi.hdr", "d.hdr"}
"""Raw data and their headers are not read in stores, where no other file is looked for."""
BY_THEIR_NAMES = {
    *(name for name in SIDECARS if not name.endswith((".xml", "MTL.txt"))),
    *(name for name in SIDECARS if name.endswith(".aux.xml")),
    *(name for name in MADE_SIDECARS if name.endswith((".ovr", ".msk", ".prj"))),
    *("lonely.tfw", "lonely.prj", "lonely.aux.xml"),
}
"""Told by their names alone, whether or not their rasters are there."""


@pytest.mark.parametrize("how", ["prefix", "stdin"])
def test_the_same_in_a_store_with_no_more_requests(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(made, tmp_path / "top" / "bucket")
    (tmp_path / "top" / "bucket" / "notes\udcff.txt").unlink()
    with serving(str(tmp_path / "top")) as server:
        store = ["--no-sign-request", "--endpoint-url", server.url, "--workers", "0"]
        sources = {
            "prefix": (["s3://bucket/"], b""),
            "stdin": ([], b"\n".join(b"s3://bucket/" + name[len("top/bucket/"):]
                                     for name in names(Path("top/bucket")))),
        }  # fmt: skip
        arguments, stdin = sources[how]

        def extracted(catalog: str, *options: str) -> int:
            server.counts.clear()
            done = run(["extract", *arguments, *store, "-o", catalog, *options], stdin)
            assert done.returncode == 3, done.stderr
            return server.counts["GET"] + server.counts["HEAD"]

        asked_strictly = extracted("strict.parquet", "--strict")
        assert extracted("catalog.parquet") <= asked_strictly
        again = extracted("catalog.parquet")
        assert again == (server.counts["listing"] if how == "prefix" else 0)
        if how == "prefix":
            assert extracted("catalog.parquet", "--update") == server.counts["listing"]
    strict = {row["filepath"]: row for row in rows_of(Path("strict.parquet"))}
    rows = {row["filepath"]: row for row in rows_of(Path("catalog.parquet"))}
    assert all(row == strict[path] for path, row in rows.items())
    skipped = {path.decode(): kind for path, kind in no_rasters_of(Path("catalog.parquet")).items()}
    assert not rows.keys() & skipped.keys()
    assert rows.keys() | skipped.keys() == strict.keys()
    whole = GOOD - NOT_WHOLE_IN_STORES
    listed = {"s3://bucket/" + name for name in whole | {*BROKEN} | OPENED_IN_STORES}
    assert listed <= rows.keys()
    assert {
        path.removeprefix("s3://bucket/") for path in rows.keys() - listed
    } <= NOT_WHOLE_IN_STORES
    sidecars = {path.removeprefix("s3://bucket/") for path, kind in skipped.items()
                if kind == "sidecar"}  # fmt: skip
    assert sidecars == BY_THEIR_NAMES


# Patterns of paths


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--glob", "*.tif"], {"a.tif", "x/a.tif", "x/y/b.tif", "tmp/c.tif"}),
        (["--glob", "/*.tif"], {"a.tif"}),
        (["--glob", "x/**/*.tif", "--glob", "*.txt"], {"x/a.tif", "x/y/b.tif", "x/n.txt"}),
        (["--exclude", "tmp/"], {"a.tif", "x/a.tif", "x/n.txt", "x/y/b.tif"}),
        (["--exclude", "*.tif", "--exclude", "!a.tif"], {"a.tif", "x/a.tif", "x/n.txt"}),
        (["--exclude", "y", "--glob", "*.tif", "--exclude", "/tmp"], {"a.tif", "x/a.tif"}),
        (["--exclude", "x/", "--exclude", "!x/a.tif", "--suffix", ".tif"], {"a.tif", "tmp/c.tif"}),
    ],
)
@pytest.mark.parametrize("how", ["folder", "folder/", ".", "stdin", "list", "prefix"])
def test_patterns_choose_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, options: list[str], wanted: set[str]
) -> None:
    top = tmp_path / "bucket"
    for name in ("a.tif", "x/a.tif", "x/n.txt", "x/y/b.tif", "tmp/c.tif"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"any")
    monkeypatch.chdir(top if how in (".", "stdin", "list") else tmp_path)
    stdin = b"\n".join(os.fsencode(os.path.relpath(os.fsdecode(name))) for name in names(top))
    (tmp_path / "list").write_bytes(stdin)
    inputs = {"folder": ["bucket"], "folder/": ["bucket/"], ".": ["."], "stdin": [],
              "list": ["--from-file", "../list"], "prefix": ["s3://bucket"]}[how]  # fmt: skip
    words: dict[str, list[str]] = {"--glob": [], "--exclude": [], "--suffix": []}
    for option, word in zip(options[::2], options[1::2], strict=True):
        words[option].append(word)
    lists = inputs[1:] if how == "list" else []
    given = Given(
        [] if lists else inputs or ["-"], lists, null=False, suffixes=words["--suffix"],
        globs=words["--glob"], excluded=words["--exclude"], shard=None, timeout=9,
    )  # fmt: skip
    with serving(str(tmp_path)) as server:
        access = Access(no_sign_request=True, endpoint_url=server.url, region="us-east-1")

        async def found() -> list[bytes]:
            source = given.source(Settings(access=access), lambda _: IterableSource(stdin.split()))
            return [path async for block in source.blocks() for path in block
                    if not isinstance(path, Walked)]  # fmt: skip

        paths = [os.fsdecode(path) for path in asyncio.run(found())]
    assert len(paths) == len(wanted)
    start = {"prefix": "s3://bucket/"}.get(how, "")
    top_there = {"folder": "bucket", "folder/": "bucket", "prefix": "."}.get(how, ".")
    assert {os.path.relpath(path.removeprefix(start), top_there) for path in paths} == wanted


def test_excluded_folders_are_not_walked_and_not_counted(archive: Path) -> None:
    for number in range(3):
        (archive / f"tmp{number}").mkdir()
        write_raster(archive / f"tmp{number}" / "a.tif")
    options = ["--exclude", "tmp*/", "--exclude", "*.txt"]
    names_seen = opened(["extract", archive, "-o", "catalog.parquet", *options])
    assert {name for name in names_seen if name.startswith("archive/tmp")} <= {
        f"archive/tmp{number}" for number in range(3)
    }
    texts = sum(name.endswith(".txt") for name in NO_RASTERS)
    assert len(no_rasters_of(Path("catalog.parquet"))) == len(NO_RASTERS) - texts
    assert "archive/deep/e.tiff" in {row["filepath"] for row in rows_of(Path("catalog.parquet"))}


def test_a_file_that_is_named_is_read_whatever_is_excluded(archive: Path) -> None:
    done = run(["extract", archive / "a.tif", "--exclude", "*", "-o", "catalog.parquet"])
    assert done.returncode == 0
    assert len(rows_of(Path("catalog.parquet"))) == 1


@pytest.mark.parametrize("option", ["--glob", "--exclude"])
def test_a_pattern_that_is_none_is_refused(archive: Path, option: str) -> None:
    done = run(["extract", archive, option, "!", "-o", "catalog.parquet"])
    assert done.returncode == 2
    assert f"{option}: no pattern as in .gitignore" in done.stderr.decode()


def test_a_merge_says_that_a_list_of_no_rasters_is_gone(archive: Path) -> None:
    run(["extract", archive, "-o", "catalog.parquet"])
    shutil.rmtree("catalog.parquet.parts")
    done = run(["merge", "catalog.parquet", "-o", "merged.parquet"])
    assert done.returncode == 0
    assert b"was removed: the paths that it named as no rasters are left out" in done.stderr

"""The real command, as a person or a script meets it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from command import (
    COMMAND,
    PATIENCE,
    HangingFile,
    SlowFile,
    committed,
    from_json,
    in_shell,
    leftovers,
    log_of,
    many_rasters,
    paths_of,
    rows_of,
    run,
    running,
    wait_until,
    write_pages,
    write_raster,
)

from rastermeta_async.model.record import SCHEMA
from rastermeta_async.readers.sidecars import MAX_AGE
from rastermeta_async.sources.paths import MAX_RECORD

OK, FAILED, USAGE, SOME_FAILED, READER_GONE = 0, 1, 2, 3, 141
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
Words = list[str | bytes | Path]
ESCAPE = b"\x1b"
COLOUR = re.compile(rb"\x1b\[[\d;]*\b(?:3\d|4\d|9\d|10[0-7])[;m]")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder; the command runs in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def raster(folder: Path) -> Path:
    return write_raster(folder / "good.tif")


@pytest.fixture
def catalog(folder: Path) -> Path:
    return folder / "catalog.parquet"


@pytest.fixture
def slow(folder: Path) -> Iterator[SlowFile]:
    with SlowFile(folder) as slow:
        yield slow


# Exit statuses and usage


def test_all_read(raster: Path, catalog: Path) -> None:
    done = run(["extract", raster, "-o", catalog])
    assert done.returncode == OK, done.stderr
    assert [row["status"] for row in rows_of(catalog)] == ["success"]


def test_some_failed(raster: Path, catalog: Path) -> None:
    done = run(["extract", raster, "missing.tif", "-o", catalog])
    assert done.returncode == SOME_FAILED
    assert [row["status"] for row in rows_of(catalog)] == ["success", "error"]
    assert b"1 error row among them" in done.stderr


def test_some_failed_on_a_stream(raster: Path) -> None:
    assert run(["extract", raster, "missing.tif"]).returncode == SOME_FAILED


def test_a_failed_run(folder: Path, raster: Path) -> None:
    done = run(["extract", raster, "-o", "nowhere/catalog.parquet"])
    assert done.returncode == FAILED
    assert b"nowhere/catalog.parquet" in done.stderr
    assert b"there is no folder nowhere. Make it, e.g. by mkdir -p nowhere, or" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("-o catalog.tif", "catalog.tif"),
        ("-o catalog", "must end in one of .parquet, .ndjson, .jsonl, .json"),
        ("--batch-size 0", "--batch-size"),
        ("--batch-size many", "--batch-size"),
        ("--concurrency 0", "--concurrency"),
        ("--queue-size 0", "--queue-size"),
        ("--timeout 0", "timeout"),
        ("--timeout nan", "timeout"),
        ("--timeout soon", "--timeout"),
        ("--workers -1", "--workers"),
        ("--reader fortran", "'--reader': 'fortran' is none of the choices: give one of auto, ras"),
        ("--sort size", "'--sort': 'size' is none of the choices: give one of path, spatial, none"),
        ("--dry-run", "Error: --prune-folders and --dry-run say how to prune: give --prune, too"),
        ("--drivers GTiff,Nonesuch", "Nonesuch"),
        ("--from-file nowhere.txt", "nowhere.txt"),
        ("--nonesuch", "--nonesuch"),
    ],
)
def test_wrong_usage(folder: Path, arguments: str, named: str) -> None:
    done = run(["extract", *arguments.split(), "x.tif"])
    assert done.returncode == USAGE
    assert named in " ".join(done.stderr.decode().split())
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "a.tif", "https://h/b.tif?sig=hidden"],
        ["extract", "--sort", "s3://bucket/a.tif?X-Amz-Signature=hidden"],
        ["https://h/b.tif?token=hidden"],
    ],
)
def test_wrong_usage_is_quoted_without_secrets(arguments: list[str]) -> None:
    done = run(arguments)
    assert done.returncode == USAGE
    assert b"/" in done.stderr, "the argument is quoted"
    assert b"hidden" not in done.stderr


@pytest.mark.parametrize("arguments", [["nonesuch"], ["show"], ["status"], ["sample"], ["-x"]])
def test_wrong_commands(arguments: list[str]) -> None:
    done = run(arguments)
    assert (done.returncode, done.stdout) == (USAGE, b"")
    assert b"Usage: rastermeta" in done.stderr


def test_no_text_of_the_help_is_cut_off() -> None:
    for arguments in ([], ["export"]):
        text = run([*arguments, "--help"], COLUMNS="80").stdout.decode()
        assert "Commands" in text
        assert "..." not in text.replace("[ARGS]...", "")


def test_help_says_what_exit_statuses_mean() -> None:
    done = run(["extract", "--help"])
    assert (done.returncode, done.stderr) == (OK, b"")
    assert b"129/130/143 interrupted" in done.stdout


def test_version() -> None:
    done = run(["--version"])
    assert (done.returncode, done.stderr) == (OK, b"")
    assert re.fullmatch(rb"rastermeta \d+\.\d+\.\d+\n", done.stdout)


# Standard input


def test_stdin_is_a_file(raster: Path, catalog: Path) -> None:
    Path("list.txt").write_text("good.tif\nmissing.tif\n")
    with open("list.txt", "rb") as paths:
        done = run(["extract", "-o", catalog], paths)
    assert done.returncode == SOME_FAILED, done.stderr
    assert paths_of(catalog) == [b"good.tif", b"missing.tif"]


def test_stdin_is_a_pipe(raster: Path, catalog: Path) -> None:
    done = in_shell('find . -name "*.tif" -print0 | "$@"', "extract", "-0", "-o", catalog)
    assert done.returncode == OK, done.stderr
    assert paths_of(catalog) == [b"./good.tif"]


def test_stdin_is_the_null_device(catalog: Path) -> None:
    done = run(["extract", "-o", catalog], subprocess.DEVNULL)
    assert done.returncode == OK, done.stderr
    assert rows_of(catalog) == []


def test_stdin_is_closed(folder: Path) -> None:
    done = in_shell('"$@" <&-', "extract", "-o", "catalog.parquet")
    assert (done.returncode, done.stdout) == (FAILED, b"")
    assert b"standard input is closed" in done.stderr
    assert b"--from-file" in done.stderr
    assert os.listdir(folder) == []


def test_closed_stdin_does_not_matter_where_inputs_are_named(raster: Path, catalog: Path) -> None:
    done = in_shell('"$@" <&-', "extract", raster, "-o", catalog)
    assert done.returncode == OK, done.stderr
    assert len(rows_of(catalog)) == 1


def test_stdin_cannot_be_read(folder: Path) -> None:
    """It is open for writing only."""
    done = in_shell('"$@" 0>list.txt', "extract", "-o", "catalog.parquet")
    assert (done.returncode, done.stdout) == (FAILED, b"")
    assert b"standard input cannot be read" in done.stderr
    assert b"Traceback" not in done.stderr


def on_a_terminal(arguments: Words, typed: bytes = b"", *, streams: str) -> tuple[int, bytes]:
    """Run with some of "in", "out" and "err" on a terminal; return status and what it showed."""
    master, terminal = pty.openpty()
    ends = {name: terminal if name in streams.split() else None for name in ("in", "out", "err")}
    os.write(master, typed)
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL if ends["in"] is None else terminal,
        stdout=subprocess.DEVNULL if ends["out"] is None else terminal,
        stderr=subprocess.DEVNULL if ends["err"] is None else terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"},
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while some := _read(master):
                shown += some
            return process.wait(PATIENCE), shown
        finally:
            process.kill()
            os.close(master)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # EIO: nobody has the terminal open any more
        return b""


def test_a_terminal_is_not_filled_with_data() -> None:
    status, shown = on_a_terminal(["extract"], streams="in out err")
    assert status == USAGE
    assert b"give -o FILE" in shown


def test_stdin_is_a_terminal(raster: Path, catalog: Path) -> None:
    typed = b"good.tif\nmissing.tif\n\x04"  # Ctrl-D
    status, shown = on_a_terminal(["extract", "-o", catalog], typed, streams="in err")
    assert status == SOME_FAILED, shown
    assert b"Ctrl-D ends the list" in shown
    assert paths_of(catalog) == [b"good.tif", b"missing.tif"]


@pytest.mark.parametrize(("options", "separator"), [([], b"\n"), (["-0"], b"\0")])
def test_last_separator_is_missing(catalog: Path, options: list[str], separator: bytes) -> None:
    run(["extract", *options, "-o", catalog], separator.join([b"a.tif", b"b.tif"]))
    assert paths_of(catalog) == [b"a.tif", b"b.tif"]


@pytest.mark.parametrize(("options", "separator"), [([], b"\n"), (["-0"], b"\0")])
def test_empty_and_repeated_paths(catalog: Path, options: list[str], separator: bytes) -> None:
    given = separator.join([b"", b"b.tif", b"", b"a.tif", b"b.tif", b"", b""])
    run(["extract", *options, "-o", catalog], given)
    assert paths_of(catalog) == [b"a.tif", b"b.tif"]


ODD_NAMES = [b"caf\xe9.tif", b"caf\xc3\xa9.tif", b"caf\\xe9.tif", b"new\nline.tif", b" .tif"]


@pytest.fixture
def odd_files(raster: Path) -> list[bytes]:
    for name in ODD_NAMES:
        os.link(os.fsencode(raster), name)
    return sorted(ODD_NAMES)


def test_odd_names_in_parquet(odd_files: list[bytes], catalog: Path) -> None:
    done = run(["extract", "-0", "-o", catalog], b"\0".join(odd_files))
    assert done.returncode == OK, done.stderr
    assert paths_of(catalog) == odd_files


def test_odd_names_in_json(odd_files: list[bytes]) -> None:
    done = in_shell('find . -name "*.tif" -print0 | "$@"', "extract", "-0")
    assert done.returncode == OK, done.stderr
    shown = {from_json(line)["filepath"] for line in done.stdout.splitlines()}
    assert {"./café.tif", "./caf\\xe9.tif", "./new\nline.tif", "./ .tif"} <= shown
    assert len(done.stdout.splitlines()) == len(odd_files) + 1  # and good.tif


def test_odd_names_as_arguments(odd_files: list[bytes], catalog: Path) -> None:
    done = run(["extract", *odd_files, "-o", catalog])
    assert done.returncode == OK, done.stderr
    assert paths_of(catalog) == odd_files


@pytest.mark.campaign
@pytest.mark.parametrize("length", [1_000_000, 3 * MAX_RECORD])
def test_a_huge_record(raster: Path, catalog: Path, length: int) -> None:
    done = run(["extract", "-0", "-o", catalog], b"good.tif\0" + b"x" * length + b"\0other.tif")
    assert done.returncode == SOME_FAILED, done.stderr
    assert paths_of(catalog) == [b"good.tif", b"other.tif", b"x" * min(length, MAX_RECORD)]


# Other inputs


def test_stdin_and_named_inputs_and_a_list(raster: Path, catalog: Path) -> None:
    Path("list.txt").write_bytes(b"listed.tif\0")
    arguments: Words = [
        "extract",
        "-0",
        "named.tif",
        "-",
        "--from-file",
        "list.txt",
        "-o",
        catalog,
    ]
    run(arguments, b"piped.tif\0")
    assert paths_of(catalog) == [b"listed.tif", b"named.tif", b"piped.tif"]


def test_several_lists(raster: Path, catalog: Path) -> None:
    lists = [Path("one.txt"), Path("two.txt")]
    for number, path in enumerate(lists):
        path.write_text(f"{number}.tif\n")
    run(["extract", "--from-file", lists[0], "--from-file", lists[1], "-o", catalog])
    assert paths_of(catalog) == [b"0.tif", b"1.tif"]


@pytest.mark.parametrize("words", [["good.tif"], ["--from-file", "list.txt"]])
def test_where_other_inputs_are_given_standard_input_is_not_waited_for(
    raster: Path, catalog: Path, words: list[str]
) -> None:
    Path("list.txt").write_text("good.tif\n")
    with running("extract", *words, "-o", catalog) as run_:
        assert run_.wait() == OK
    assert paths_of(catalog) == [b"good.tif"]


def test_what_is_named_but_not_there_is_said(raster: Path, catalog: Path) -> None:
    done = run(["extract", raster, "archve", "-o", catalog])
    assert b"rastermeta: archve does not exist: it gets an error row\n" in done.stderr
    assert paths_of(catalog) == [os.fsencode(raster), b"archve"]


def test_what_is_named_but_not_there_is_said_with_the_likely_mistake(raster: Path) -> None:
    for name, mistake in (("*.tif", b"the shell did not expand the"), ("ftp://h/a.tif", b"ftp is")):
        done = run(["extract", raster, name])
        start = f"rastermeta: {name} does not exist (".encode() + mistake
        assert start in done.stderr
        assert b"): it gets an error row\n" in done.stderr
        assert mistake.decode() in from_json(done.stdout.splitlines()[-1])["error_message"]


def test_no_path_at_all_is_said_with_what_to_look_at(catalog: Path) -> None:
    done = run(["extract", "-o", catalog])
    assert done.returncode == OK
    assert b"there was no path in the input: look at the folder or list, at what the" in done.stderr
    assert b"(`set -o pipefail` makes its failure count), and at --suffix" in done.stderr
    assert paths_of(catalog) == []


@pytest.mark.campaign
def test_what_helps_is_said_only_where_no_file_could_be_read(raster: Path, catalog: Path) -> None:
    Path("bad.tif").write_text("no raster")
    hints = (b"no file could be read, e.g. bad.tif: ", b"once that is mended, --retry-failed reads")
    bad = run(["extract", "bad.tif", "-o", catalog])
    assert all(hint in bad.stderr for hint in hints)
    nothing_new = run(["extract", "bad.tif", "-o", catalog])
    some_good = run(["extract", "bad.tif", raster, "-o", "other.parquet"])
    Path("worse.tif").write_text("no raster either")
    some_before = run(["extract", "bad.tif", "worse.tif", raster, "-o", "other.parquet"])
    for done in (nothing_new, some_good, some_before):
        assert done.returncode == SOME_FAILED
        assert not any(hint in done.stderr for hint in hints)
        assert b"there was no path" not in done.stderr
        assert b"not in this input" not in done.stderr


def test_a_path_that_is_given_again_keeps_its_error_row(catalog: Path) -> None:
    """Its file may come later; the row of one that is not given any more goes."""
    given = b"gone.tif\nother.tif\n"
    for paths, kept in ((given, 2), (given, 2), (b"gone.tif\n", 1)):
        done = run(["extract", "--prune", "-o", catalog], paths)
        assert len(rows_of(catalog)) == kept
        assert (b"1 row dropped" in done.stderr) == (kept == 1)


def test_file_urls_are_the_local_paths_that_they_name(folder: Path, catalog: Path) -> None:
    """A file that is also given by its path counts once."""
    many_rasters(folder / "a folder", 3)
    here = f"file://{folder}/a%20folder"
    Path("list.txt").write_text(f"{here}/000001.tif\n{folder}/a folder/000001.tif\n")
    arguments: Words = ["extract", "-", "--from-file", "list.txt", "-o", catalog]
    done = run([*arguments, "--log-json"], f"{here}/000002.tif\n".encode())
    assert facts(done) == (2, 0, 1)
    done = run([*arguments, here, "--log-json"], f"{here}/000002.tif\n".encode())
    assert facts(done) == (1, 0, 5)
    expected = [os.fsencode(f"{folder}/a folder/{number:06}.tif") for number in range(3)]
    assert paths_of(catalog) == expected


@pytest.mark.parametrize("null", [[], ["-0"]])
def test_endings_are_asked_of_paths_wherever_they_come_from(catalog: Path, null: list[str]) -> None:
    """But for files that are named one by one."""
    end = b"\0" if null else b"\n"
    Path("list.txt").write_bytes(b"listed.TIF" + end + b"listed.txt" + end)
    arguments = ["extract", *null, "named.txt", "-", "--from-file", "list.txt", "--suffix", ".tif"]
    done = run([*arguments, "--log-json", "-o", catalog], end.join([b"piped.tif", b"piped.xml"]))
    assert paths_of(catalog) == [b"listed.TIF", b"named.txt", b"piped.tif"]
    assert facts(done) == (3, 3, 0)


def test_a_folder_on_standard_input_is_said_to_be_an_argument(folder: Path, catalog: Path) -> None:
    done = run(["extract", "-o", catalog], b".")
    assert b".: this is a folder, not a file: to have it walked, give it as an arg" in done.stderr


def test_a_first_run_does_not_talk_of_finished_paths(raster: Path, catalog: Path) -> None:
    arguments: Words = ["extract", "-v", raster, "-o", catalog]
    assert b"finished already" not in run(arguments).stderr
    assert b"1 path is finished already" in run(arguments).stderr


@pytest.mark.campaign
@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_sends_geotiffs_to_gdal_is_said(folder: Path, catalog: Path, workers: str) -> None:
    for number in range(5):
        write_raster(folder / f"{number}.tif")
    suffix = ["extract", "--suffix", ".tif"]
    arguments: Words = [*suffix, "-o", catalog, "--workers", workers, folder]
    assert b"GDAL" not in run(arguments).stderr
    for name in ("1.imd", "3.imd", "other.hdr", "scan.bmp"):
        (folder / name).touch()
    said = run([*arguments, "--overwrite"]).stderr.decode()
    assert "2 rasters with sidecar files were read with GDAL, which takes longer, e.g. " in said
    assert re.search(r"([13])\.tif: sidecar file \1\.imd\n", said)
    write_raster(folder / "alone.tif").rename(folder / "4.tif.ovr")
    said = run(["extract", "-o", catalog, "--overwrite", folder / "4.tif.ovr"]).stderr.decode()
    assert "finished: 1 file read" in said
    assert "GDAL" not in said


def test_a_nul_byte_is_no_separator_unless_asked_for(raster: Path, catalog: Path) -> None:
    done = run(["extract", "-o", catalog], b"./a.tif\0./b.tif\0")
    assert done.returncode == SOME_FAILED
    (row,) = rows_of(catalog)
    assert row["error_type"] == "InvalidName"
    assert "then give -0" in row["error_message"]


def test_an_output_of_no_name_is_refused(raster: Path) -> None:
    done = run(["extract", raster, "-o", ""])
    assert (done.returncode, done.stdout) == (USAGE, b"")
    assert b"-o is empty, as of a variable that is not set" in b" ".join(done.stderr.split())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_in_utf_16_is_said_to_be_one(raster: Path, catalog: Path, encoding: str) -> None:
    done = run(["extract", "-o", catalog], f"{raster.name}\nother.tif\n".encode(encoding))
    assert b"is the list UTF-16, as PowerShell writes it? Convert it: iconv -f UTF-" in done.stderr


def test_a_list_that_is_taken_for_one_path_is_not_said_whole(raster: Path, catalog: Path) -> None:
    done = run(["extract", "-v", "-o", catalog], b"\0".join([b"archive/a.tif"] * 10_000))
    assert b"then give -0" in done.stderr
    assert len(done.stderr) < 2000


def test_a_list_that_cannot_be_read(folder: Path, catalog: Path) -> None:
    done = run(["extract", "--from-file", ".", "-o", catalog])
    assert done.returncode == FAILED
    assert b".: the list of paths cannot be read" in done.stderr


@pytest.mark.campaign
def test_a_folder_is_walked(folder: Path, catalog: Path) -> None:
    many_rasters(folder / "deep", 2)
    Path("deep/notes.txt").touch()
    Path("deep/UPPER.TIF").touch()
    for suffix in ([".tif"], ["*.tif"], [" .TIF,.jp2"], [".tif", "--suffix", ".jp2"]):
        done = run(["extract", "deep", "--suffix", *suffix, "--overwrite", "-o", catalog])
        assert b"dropped" not in done.stderr
        assert paths_of(catalog) == [b"deep/000000.tif", b"deep/000001.tif", b"deep/UPPER.TIF"]


# What goes where


@pytest.mark.parametrize("options", [[], ["-o", "-"]])
def test_stream_is_strict_json(sample_archive: Path, options: list[str]) -> None:
    done = run(["extract", sample_archive, *options])
    rows = [from_json(line) for line in done.stdout.splitlines()]
    assert done.stdout.endswith(b"}\n")
    assert all(list(row) == SCHEMA.names for row in rows)
    files = {os.path.join(top, name) for top, _, names in os.walk(sample_archive) for name in names}
    files -= {str(sample_archive / "odd" / name) for name in ("README.txt", "worldfile.tfw")}
    assert sorted(row["filepath"] for row in rows) == sorted(files)
    assert (None, "nan") in [(row["nodata"], row["nodata_text"]) for row in rows]


@pytest.mark.campaign
@pytest.mark.parametrize("options", [["--batch-size", "1"], []])
def test_stream_goes_on_while_paths_come(raster: Path, options: list[str]) -> None:
    with running("extract", *options) as run:
        run.give(raster)
        assert from_json(run.line())["filepath"] == str(raster)
        run.give("missing.tif")
        assert from_json(run.line())["filepath"] == "missing.tif"


def test_reader_goes_away(folder: Path) -> None:
    """As `| head -5` does."""
    paths = [Path(os.fsdecode(path)) for path in many_rasters(folder / "many", 20)]
    with running("extract", "--batch-size", "1") as run:
        run.give(*paths[:5])
        assert [from_json(run.line())["status"] for _ in range(5)] == ["success"] * 5
        assert run.process.stdout is not None
        run.process.stdout.close()
        run.give(*paths[5:])
        assert run.wait() == READER_GONE
        assert run.process.stderr is not None
        assert run.process.stderr.read() == b""


def test_head(folder: Path) -> None:
    many_rasters(folder / "many", 300)
    done = in_shell('"$@" | head -5', "extract", "-q", "many", "--batch-size", "1")
    assert len([from_json(line) for line in done.stdout.splitlines()]) == 5
    assert done.stderr == b""


def test_standard_output_is_full(raster: Path) -> None:
    done = in_shell('"$@" >/dev/full', "extract", raster)
    assert done.returncode == FAILED
    assert done.stderr == b"rastermeta: standard output: writing failed: No space left on device\n"


@pytest.mark.parametrize("arguments", [["schema"], ["show", "good.tif"]])
def test_a_reader_that_has_gone_ends_a_small_command(raster: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(arguments, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (READER_GONE, b"")


@pytest.mark.parametrize("arguments", [["schema"], ["show", "good.tif"]])
def test_standard_output_is_full_for_a_person(raster: Path, arguments: list[str]) -> None:
    done = in_shell('"$@" >/dev/full', *arguments)
    assert done.returncode == FAILED
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_standard_output_is_closed(raster: Path) -> None:
    done = in_shell('"$@" >&-', "extract", raster)
    assert done.returncode in (FAILED, USAGE)
    assert b"standard output" in done.stderr
    assert b"Traceback" not in done.stderr


def test_standard_error_is_closed(raster: Path) -> None:
    done = in_shell('"$@" 2>&-', "extract", raster)
    assert done.returncode == OK
    assert [from_json(line)["status"] for line in done.stdout.splitlines()] == ["success"]


def test_all_standard_streams_are_closed(raster: Path, catalog: Path) -> None:
    done = in_shell('"$@" <&- >&- 2>&-', "extract", raster, "-o", catalog)
    assert done.returncode == OK
    assert len(rows_of(catalog)) == 1


def test_only_data_on_standard_output(raster: Path, catalog: Path) -> None:
    to_file = run(["extract", "-v", raster, "missing.tif", "-o", catalog])
    assert to_file.stdout == b""
    assert b"missing.tif: error: " in to_file.stderr
    to_stream = run(["extract", "-v", raster, "missing.tif"])
    assert len([from_json(line) for line in to_stream.stdout.splitlines()]) == 2
    assert b"missing.tif: error: " in to_stream.stderr


@pytest.mark.campaign
@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "good.tif", "missing.tif", "-o", "catalog.parquet", "--progress"],
        ["extract", "good.tif", "missing.tif"],
        ["extract", "--nonesuch"],
        ["extract", "--help"],
        ["show", "good.tif"],
        ["schema"],
    ],
    ids=" ".join,
)
def test_no_colour_in_a_pipe(raster: Path, arguments: list[str]) -> None:
    done = run(arguments)
    assert done.stdout + done.stderr
    assert ESCAPE not in done.stdout
    assert not COLOUR.search(done.stderr)


@pytest.mark.parametrize("no_colour", [False, True])
def test_colour_on_a_terminal(
    raster: Path, no_colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    status, shown = on_a_terminal(["extract", raster, "-o", "catalog.parquet"], streams="err")
    assert status == OK, shown
    assert b"files read" in shown
    assert bool(COLOUR.search(shown)) != no_colour


def test_messages_as_json(raster: Path) -> None:
    done = run(["extract", "--log-json", "-v", raster, "missing.tif"])
    messages = [from_json(line) for line in done.stderr.splitlines()]
    assert all(list(message)[:3] == ["time", "level", "message"] for message in messages)
    (finished,) = [message for message in messages if "finished" in message["message"]]
    assert (finished["done"], finished["failures"], finished["skipped"]) == (2, 1, 0)
    assert any("missing.tif: error:" in message["message"] for message in messages)


def test_what_went_wrong_as_json(raster: Path) -> None:
    done = run(["extract", "--log-json", raster, "-o", "nowhere/catalog.parquet"])
    (message,) = [from_json(line) for line in done.stderr.splitlines()]
    assert message["level"] == "error"
    assert "nowhere/catalog.parquet" in message["message"]


def test_quiet(raster: Path, catalog: Path) -> None:
    done = run(["extract", "-q", raster, "missing.tif", "-o", catalog])
    assert (done.returncode, done.stdout, done.stderr) == (SOME_FAILED, b"", b"")


def test_quiet_says_what_went_wrong(raster: Path) -> None:
    done = run(["extract", "-q", raster, "-o", "nowhere/catalog.parquet"])
    assert b"nowhere/catalog.parquet" in done.stderr


# Catalogs


def test_same_archive_same_bytes(sample_archive: Path, folder: Path) -> None:
    one, other = folder / "one.parquet", folder / "other.parquet"
    run(["extract", sample_archive, "-o", one, "--concurrency", "1", "--batch-size", "7"])
    files = [path for path in sample_archive.rglob("*") if path.is_file()]
    backwards = b"".join(os.fsencode(path) + b"\n" for path in sorted(files, reverse=True))
    run(["extract", "-o", other], backwards)
    assert len(rows_of(one)) == len(files) - 2  # a text and a world file
    assert one.read_bytes() == other.read_bytes()


def test_json_array(raster: Path) -> None:
    run(["extract", "b.tif", raster, "a.tif", "-o", "catalog.json"])
    rows = from_json(Path("catalog.json").read_bytes())
    assert [row["filepath"] for row in rows] == sorted([str(raster), "a.tif", "b.tif"])
    assert all(list(row) == SCHEMA.names for row in rows)


def test_empty_json_array() -> None:
    run(["extract", "-o", "catalog.json"], subprocess.DEVNULL)
    assert from_json(Path("catalog.json").read_bytes()) == []


@pytest.mark.parametrize("name", ["catalog.ndjson", "catalog.jsonl"])
def test_json_lines(raster: Path, name: str) -> None:
    run(["extract", "b.tif", "a.tif", "-o", name])
    lines = Path(name).read_bytes().splitlines()
    assert [from_json(line)["filepath"] for line in lines] == ["a.tif", "b.tif"]


def facts(done: subprocess.CompletedProcess[bytes]) -> tuple[int, int, int]:
    """Return files read, failures among them and files skipped, as ``--log-json`` says."""
    (end,) = [
        message
        for message in map(from_json, done.stderr.splitlines())
        if message["message"].startswith("finished")
    ]
    return end["done"], end["failures"], end["skipped"]


def test_again_reads_nothing(raster: Path, catalog: Path) -> None:
    arguments: Words = [
        "extract",
        "--log-json",
        raster,
        "missing.tif",
        "-o",
        catalog,
    ]
    assert facts(run(arguments)) == (2, 1, 0)
    before = catalog.read_bytes()
    again = run(arguments)
    assert (again.returncode, facts(again)) == (SOME_FAILED, (0, 0, 2))
    assert catalog.read_bytes() == before


def test_later_inputs_are_added(raster: Path, catalog: Path) -> None:
    run(["extract", "b.tif", "-o", catalog])
    added = run(["extract", "--log-json", "a.tif", "b.tif", "-o", catalog])
    assert facts(added) == (1, 1, 1)
    assert paths_of(catalog) == [b"a.tif", b"b.tif"]
    assert leftovers(catalog) == set()


def test_failed_ones_are_read_again_when_asked(raster: Path, catalog: Path) -> None:
    arguments: Words = [
        "extract",
        "--log-json",
        raster,
        "late.tif",
        "-o",
        catalog,
    ]
    assert run(arguments).returncode == SOME_FAILED
    os.link(raster, "late.tif")
    assert run(arguments).returncode == SOME_FAILED
    retried = run([*arguments, "--retry-failed"])
    assert (retried.returncode, facts(retried)) == (OK, (1, 0, 1))
    assert [row["status"] for row in rows_of(catalog)] == ["success", "success"]


def test_overwrite_starts_from_nothing(raster: Path, catalog: Path) -> None:
    run(["extract", "old.tif", "-o", catalog])
    done = run(["extract", "--overwrite", raster, "-o", catalog])
    assert done.returncode == OK, done.stderr
    assert paths_of(catalog) == [os.fsencode(raster)]


def _someone_elses_parquet(path: Path) -> None:
    pq.write_table(pa.table({"filepath": ["a.tif"]}), path)


@pytest.mark.campaign
@pytest.mark.parametrize(
    "name", ["catalog.parquet", "text.parquet", "catalog.ndjson", "catalog.json", "empty.json"]
)
def test_foreign_output(raster: Path, name: str) -> None:
    output = Path(name)
    if name == "catalog.parquet":
        _someone_elses_parquet(output)
    else:
        output.write_text("" if name == "empty.json" else '{"precious": 1}\n')
    before = output.read_bytes()
    refused = run(["extract", raster, "-o", name])
    assert refused.returncode == FAILED
    assert f"{name} was not made by rastermeta".encode() in (refused.stderr)
    assert output.read_bytes() == before
    assert not Path(f"{name}.checkpoint").exists()
    assert run(["extract", "--overwrite", raster, "-o", name]).returncode == OK
    assert os.fsencode(raster) in output.read_bytes()


# Signals


@pytest.fixture
def hangup() -> Iterator[Callable[[signal.Handlers], object]]:
    """Set what programs that are started do on SIGHUP; under nohup(1) they ignore it."""
    before = signal.getsignal(signal.SIGHUP)
    yield partial(signal.signal, signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)


@pytest.mark.campaign
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_first_signal(
    catalog: Path, raster: Path, slow: SlowFile, number: int,
    hangup: Callable[[signal.Handlers], object],
) -> None:  # fmt: skip
    """What is in flight is finished and committed, though standard input never ends."""
    hangup(signal.SIG_DFL)
    arguments: Words = ["extract", "-o", catalog, "--concurrency", "1"]
    with running(*arguments) as run_:
        run_.give(raster, slow.path)
        slow.wait_until_opened()
        run_.signal(number)
        run_.message("finishing what is in flight")
        assert run_.process.poll() is None
        slow.release()
        assert run_.wait() == SIGNALS[signal.Signals(number)]
    assert committed(catalog) == 2
    assert not catalog.exists()

    paths: list[str | Path] = [raster, slow.path, "missing.tif"]
    again = run([*arguments, "--log-json"], b"".join(os.fsencode(path) + b"\n" for path in paths))
    assert facts(again) == (1, 1, 2)
    assert sorted(paths_of(catalog)) == sorted(os.fsencode(path) for path in paths)


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)],
    ids=["SIGINT", "SIGTERM-SIGINT"],
)
def test_second_signal(
    catalog: Path, raster: Path, slow: SlowFile, first: int, second: int
) -> None:
    """It ends the run though a header read hangs; what was committed before stays."""
    arguments: Words = ["extract", "-o", catalog, "--concurrency", "1"]
    with running(*arguments, "--batch-size", "1", "--timeout", "3600") as run_:
        run_.give(raster)
        wait_until(lambda: committed(catalog) == 1)
        run_.give(slow.path)
        slow.wait_until_opened()
        run_.signal(first)
        run_.message("once more to stop at once")
        run_.signal(second)
        assert run_.wait() == SIGNALS[signal.Signals(second)]
    slow.release()
    again = run([*arguments, "--log-json"], f"{raster}\n{slow.path}\n".encode())
    assert facts(again) == (1, 0, 1)
    assert paths_of(catalog) == [os.fsencode(raster), os.fsencode(slow.path)]


def test_nohup_keeps_a_run_going(
    catalog: Path, raster: Path, hangup: Callable[[signal.Handlers], object]
) -> None:
    hangup(signal.SIG_IGN)
    with running("extract", "-o", catalog, "--batch-size", "1") as run_:
        run_.give(raster)
        wait_until(lambda: committed(catalog) == 1)
        run_.signal(signal.SIGHUP)
        run_.give("missing.tif")
        wait_until(lambda: committed(catalog) == 2)
        assert run_.process.stdin
        run_.process.stdin.close()
        assert run_.wait() == SOME_FAILED


@pytest.mark.parametrize(
    ("options", "again"), [([], b"again"), (["--overwrite"], b"again, without --overwrite,")]
)
def test_signal_while_waiting_for_paths(
    catalog: Path, raster: Path, options: list[str], again: bytes
) -> None:
    with running("extract", "-o", catalog, "--batch-size", "1", *options) as run_:
        run_.give(raster)
        wait_until(lambda: committed(catalog) == 1)
        run_.signal(signal.SIGINT)
        assert run_.wait() == SIGNALS[signal.SIGINT]
        _, messages = run_.finish()
    assert b"what was read is safe; run the same command " + again + b" to go on" in messages


def test_rows_that_wait_for_their_batch_are_committed(catalog: Path) -> None:
    with running("extract", "-v", "-o", catalog) as run_:
        run_.give("missing.tif")
        run_.message("missing.tif: error")
        assert committed(catalog) == 0
        run_.signal(signal.SIGTERM)
        assert run_.wait() == SIGNALS[signal.SIGTERM]
    assert committed(catalog) == 1


def test_signal_on_a_stream(raster: Path, slow: SlowFile) -> None:
    with running("extract", "--concurrency", "1") as run_:
        run_.give(raster, slow.path)
        slow.wait_until_opened()
        run_.signal(signal.SIGINT)
        run_.message("finishing what is in flight")
        slow.release()
        assert run_.wait() == SIGNALS[signal.SIGINT]
        written, _ = run_.finish()
    assert [from_json(line)["filepath"] for line in written.splitlines()] == [
        str(raster),
        str(slow.path),
    ]


def test_a_file_of_very_many_images_has_one_row_however_it_is_read(folder: Path) -> None:
    path = write_pages(folder / "pages.tif", 100_000)
    rows = [
        from_json(run(["extract", "-o", "-", "--workers", workers, path]).stdout)
        for workers in ("0", "2")
    ]
    shown = from_json(run(["show", "--json", path]).stdout)
    assert rows == [shown, shown]
    assert (
        shown["error_message"] == "bands, subdatasets: left out: there are more than 10,000 images"
    )
    assert (shown["count"], shown["bands"], shown["subdatasets"]) == (1, None, None)


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_world_file_may_come_just_before_its_raster(
    folder: Path, catalog: Path, workers: str
) -> None:
    archive = folder / "archive"  # not where the catalog is, whose files may be of any raster
    archive.mkdir()
    for name in ("a.tif", "b.tif", "c.tif"):
        write_raster(archive / name, transform=None, crs=None)
    asked = ("-v", "--workers", workers, "--concurrency", "1", "-o", catalog)
    with running("extract", *asked) as run_:
        run_.give(archive / "a.tif", archive / "c.tif", "missing.tif")
        run_.message("missing.tif: error")
        (archive / "b.tfw").write_text("2\n0\n0\n-2\n11\n19\n")
        time.sleep(MAX_AGE)
        run_.give(archive / "b.tif")
        run_.finish()
    found = {row["filepath"]: row["transform"] for row in rows_of(catalog)}
    with rasterio.open(archive / "b.tif") as dataset:
        assert found[str(archive / "b.tif")] == list(dataset.transform.to_gdal())
    assert found[str(archive / "a.tif")] == [0, 1, 0, 0, 0, 1]


# Files that hang


def test_a_file_that_hangs_is_a_row(raster: Path, catalog: Path, slow: SlowFile) -> None:
    done = run(["extract", slow.path, raster, "-o", catalog, "--timeout", "1"])
    assert done.returncode == SOME_FAILED, done.stderr
    assert [row["error_type"] for row in rows_of(catalog)] == [None, "Timeout"]
    assert b"1 file did not answer in time or could not be reached: once that" in done.stderr
    assert b"or with a longer --timeout, --retry-failed reads them again" in done.stderr


def test_a_file_that_hangs_once_it_is_open_is_a_row(raster: Path, catalog: Path) -> None:
    hanging = HangingFile(raster.parent)
    done = run(["extract", hanging.path, raster, "-o", catalog, "--timeout", "1"])
    assert done.returncode == SOME_FAILED, done.stderr
    assert [row["error_type"] for row in rows_of(catalog)] == [None, "Timeout"]


# One run at a time


def test_second_run_is_refused(catalog: Path, raster: Path, slow: SlowFile) -> None:
    with running("extract", slow.path, "-o", catalog) as first:
        slow.wait_until_opened()
        for options in ([], ["--overwrite"]):
            second = run(["extract", raster, "-o", catalog, *options])
            assert (second.returncode, second.stdout) == (FAILED, b"")
            assert b"catalog.parquet.checkpoint is locked: another run is" in second.stderr
        slow.release()
        assert first.wait() == OK
    assert paths_of(catalog) == [os.fsencode(slow.path)]


def test_lock_goes_with_the_process(catalog: Path, raster: Path, slow: SlowFile) -> None:
    with running("extract", slow.path, "-o", catalog) as first:
        slow.wait_until_opened()
        first.process.kill()
        first.wait()
        done = run(["extract", raster, "-o", catalog])
    assert done.returncode == OK, done.stderr
    assert paths_of(catalog) == [os.fsencode(raster)]


# The other commands


def test_show(sample_archive: Path) -> None:
    done = run(["show", sample_archive / "odd" / "map.jp2"])
    assert (done.returncode, done.stderr) == (OK, b"")
    assert re.search(r"^  driver +JP2OpenJPEG$", done.stdout.decode(), re.MULTILINE)
    assert re.search(r"^  CRS +EPSG:3035 \(.*LAEA.*\)$", done.stdout.decode(), re.MULTILINE)
    assert re.search(r"^  longitude +5\.5.* E to ", done.stdout.decode(), re.MULTILINE)


def test_show_of_a_name_that_is_no_utf_8_says_nothing_else(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"bad\xff.tif")
    Path(os.fsdecode(path)).write_bytes(b"no raster")
    done = run(["show", path])
    assert (done.returncode, done.stderr) == (3, b"")
    assert b"not recognized as being in a supported file format" in done.stdout


def test_show_as_json_is_the_row_of_the_catalog(sample_archive: Path) -> None:
    """Not a number is among the values."""
    path = next((sample_archive / "elevation").glob("*.tif"))
    done = run(["show", "--json", path])
    assert (done.returncode, done.stderr) == (OK, b"")
    assert from_json(done.stdout) == from_json(run(["extract", path]).stdout)
    assert from_json(done.stdout)["nodata_text"] == "nan"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_show_of_a_bad_file(sample_archive: Path, options: list[str]) -> None:
    done = run(["show", *options, sample_archive / "odd" / "truncated.tif"])
    assert (done.returncode, done.stderr) == (SOME_FAILED, b"")
    assert b"RasterioIOError" in done.stdout


def test_a_comparison_finds_no_difference_between_nan_and_nan(sample_archive: Path) -> None:
    path = next((sample_archive / "elevation").glob("*.tif"))
    done = run(["show", "--compare", path])
    assert (done.returncode, done.stdout.splitlines()[-1]) == (OK, b"  none")
    done = run(["show", "--compare", "--json", path])
    assert (done.returncode, from_json(done.stdout)["differences"]) == (OK, [])
    assert from_json(done.stdout)["tiff_header"]["bands"][0]["nodata_text"] == "nan"


@pytest.mark.parametrize(
    ("words", "named"),
    [(["a.tif", "--gdal-config", "USE_RRD=YES"], b"--gdal-config"), (["s3://b/a.tif"], b"local")],
)
def test_a_comparison_that_cannot_be_made_is_refused(words: list[str], named: bytes) -> None:
    done = run(["show", "--compare", *words])
    assert (done.returncode, done.stdout) == (USAGE, b"")
    assert named in done.stderr


def test_a_comparison_is_made_with_the_drivers_that_are_named(raster: Path) -> None:
    done = run(["show", "--compare", "--json", "--drivers", "JP2OpenJPEG", raster])
    assert (done.returncode, from_json(done.stdout)["rasterio"]["status"]) == (SOME_FAILED, "error")


def test_a_comparison_of_what_is_not_there_says_so(tmp_path: Path) -> None:
    done = run(["show", "--compare", tmp_path / "missing.tif"])
    assert (done.returncode, done.stderr) == (SOME_FAILED, b"")
    assert done.stdout.splitlines()[-1] == b"  does not decode it: No such file or directory"


def workers_of(catalog: Path) -> list[str]:
    """Return the workers in which both forms of the report agree."""
    workers: list[str] = from_json(run(["status", "--json", catalog]).stdout)["workers"]
    line = f"  workers   {', '.join(workers)}"
    assert (line in run(["status", catalog]).stdout.decode().splitlines()) is bool(workers)
    return workers


def processes_of(process: subprocess.Popen[bytes]) -> list[str]:
    return [f"process {child.pid}" for child in psutil.Process(process.pid).children()]


def status_of(catalog: Path) -> tuple[str, int, int]:
    """Return state, rows and failures, in which both forms of the report agree."""
    shown = run(["status", catalog])
    assert (shown.returncode, shown.stderr) == (OK, b"")
    found = from_json(run(["status", "--json", catalog]).stdout)
    lines = [line.split() for line in shown.stdout.decode().splitlines()]
    assert [catalog.name + ":", found["state"]] in lines
    assert ["rows", str(found["rows"])] in lines
    assert ["failures", str(found["failures"])] in lines
    return found["state"], found["rows"], found["failures"]


@pytest.mark.campaign
def test_status(catalog: Path, raster: Path, slow: SlowFile) -> None:
    arguments: Words = [
        "extract",
        "missing.tif",
        slow.path,
        "-o",
        catalog,
        "--batch-size",
        "1",
    ]
    with running(*arguments) as run_:
        slow.wait_until_opened()
        wait_until(lambda: committed(catalog) == 1)
        assert status_of(catalog) == ("running", 1, 1)
        wait_until(lambda: workers_of(catalog) == processes_of(run_.process))
        run_.process.kill()
        run_.wait()
    assert status_of(catalog) == ("stopped", 1, 1)
    assert workers_of(catalog) == []
    slow.release()
    run(arguments)
    assert status_of(catalog) == ("complete", 2, 1)


@pytest.mark.campaign
def test_status_looks_at_the_catalog(catalog: Path, raster: Path) -> None:
    run(["extract", raster, "-o", catalog])
    assert status_of(catalog)[0] == "complete"
    catalog.write_bytes(b"other")
    assert status_of(catalog)[0] == "changed"
    catalog.unlink()
    assert status_of(catalog)[0] == "missing"


def test_status_changes_nothing(catalog: Path, raster: Path) -> None:
    run(["extract", raster, "-o", catalog])
    before = log_of(catalog)
    run(["status", catalog])
    assert log_of(catalog) == before


def test_status_of_nothing(catalog: Path) -> None:
    done = run(["status", catalog])
    assert (done.returncode, done.stdout) == (FAILED, b"")
    assert b"no run has written" in done.stderr
    Path(f"{catalog.parent}/other.parquet.checkpoint").mkdir()
    done = run(["status", catalog.with_name("other.parquet")])
    assert (done.returncode, done.stdout) == (FAILED, b"")
    assert b"other.parquet.checkpoint is a folder: move it away" in done.stderr
    catalog.touch()
    assert b"`rastermeta summary` tells" in run(["status", catalog]).stderr
    assert b"no run has written" in run(["status", catalog.parent]).stderr
    assert not catalog.with_name("catalog.parquet.checkpoint").exists()


def test_schema() -> None:
    done = run(["schema"])
    assert (done.returncode, done.stderr) == (OK, b"")
    assert re.findall(r"^\w+", done.stdout.decode(), re.MULTILINE) == SCHEMA.names


def test_schema_as_json() -> None:
    columns = from_json(run(["schema", "--json"]).stdout)
    assert [(column["name"], column["type"]) for column in columns] == [
        (field.name, str(field.type)) for field in SCHEMA
    ]
    assert all(column["meaning"] for column in columns)


def test_sample(folder: Path, catalog: Path) -> None:
    done = run(["sample", "archive"])
    assert (done.returncode, done.stderr) == (OK, b"")
    files = [path for path in Path("archive").rglob("*") if path.is_file()]
    assert done.stdout == f"{len(files)} files in archive\n".encode()
    assert run(["extract", "archive", "-o", catalog]).returncode == SOME_FAILED
    assert {row["status"] for row in rows_of(catalog)} == {"success", "no_georef", "error"}


def test_sample_leaves_a_full_folder_alone(raster: Path) -> None:
    done = run(["sample", "."])
    assert (done.returncode, done.stdout) == (FAILED, b"")
    assert b"is not empty" in done.stderr
    assert os.listdir(".") == ["good.tif"]

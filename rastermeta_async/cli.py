"""The command line: options, and what they become. Everything heavy is imported when used."""

from __future__ import annotations

import errno
import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rastermeta_async.exits import FAILED, OK, READER_GONE, SOME_FAILED

if TYPE_CHECKING:
    from rastermeta_async.console import Console
    from rastermeta_async.sources import Source

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Stream the headers of huge raster archives into one catalog.",
)


class ReaderName(StrEnum):
    """Readers to choose from."""

    AUTO = "auto"
    RASTERIO = "rasterio"


def _version(value: bool) -> None:
    if value:
        from rastermeta_async import __version__

        typer.echo(f"rastermeta {__version__}")
        raise typer.Exit(OK)


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Stream the headers of huge raster archives into one catalog."""


@app.command(
    epilog="Exit status: 0 all read; 1 the run failed; 2 usage; 3 finished, but some inputs have "
    "error rows; 130/143 interrupted. The same command again resumes."
)
def extract(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Files, or folders to walk; - or none: paths come on standard input.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Catalog to write: .parquet, .ndjson, .jsonl or .json; - is NDJSON on standard "
            "output, which is also what happens without -o when that is no terminal.",
            show_default=False,
        ),
    ] = "",
    null: Annotated[
        bool, typer.Option("-0", "--null", help="Paths are NUL-separated (find -print0).")
    ] = False,
    from_file: Annotated[
        list[str] | None,
        typer.Option(
            "--from-file",
            metavar="LIST",
            help="Read paths from a file; may be given several times.",
            show_default=False,
        ),
    ] = None,
    suffix: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="Take only these endings from folders, e.g. .tif,.tiff,.jp2."
        ),
    ] = "",
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Rows a batch.")] = 5000,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Header opens in flight, over all workers.  [default: by cores]",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Worker processes; 0: open headers in this one.  [default: by cores and memory]",
        ),
    ] = None,
    queue_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Paths that may wait.  [default: 1024 times concurrency]"
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="S", help="Seconds for one file.")] = 60.0,
    reader: Annotated[
        ReaderName,
        typer.Option(help="auto: plain GeoTIFFs without GDAL, all else with rasterio."),
    ] = ReaderName.AUTO,
    drivers: Annotated[
        str,
        typer.Option(
            metavar="LIST|all",
            help="GDAL drivers that may open a file, e.g. GTiff,JP2OpenJPEG.  "
            "[default: raster formats that are files in their own right]",
            show_default=False,
        ),
    ] = "",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also redo paths that have an error row.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again from nothing.")
    ] = False,
    progress: Annotated[
        bool | None,
        typer.Option(
            "--progress/--no-progress",
            help="Show progress.  [default: on a terminal; else a line a minute]",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what went wrong.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name each bad file.")] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Messages as JSON lines, for machines.")
    ] = False,
) -> None:
    """Read the header of every raster into one catalog; again, to resume."""
    from rastermeta_async.memory import spare_memory

    spare_memory()  # before anything imports pyarrow
    from rastermeta_async.config import Settings, default_concurrency
    from rastermeta_async.console import Console, explained_exit
    from rastermeta_async.machine import default_workers, usable_cores, usable_memory

    if workers is None:
        workers = default_workers(usable_cores(), usable_memory())
    console = Console(quiet=quiet, verbose=verbose, as_json=log_json, bar=progress)
    with explained_exit(console):
        settings = Settings(
            batch_size=batch_size,
            concurrency=concurrency or default_concurrency(workers, usable_cores()),
            workers=workers,
            queue_size=queue_size,
            timeout=timeout,
            reader=reader.value,
            drivers=_drivers(drivers),
            retry_failed=retry_failed,
        )
        if sys.stdout is None and output in ("", "-"):
            _usage("standard output is closed: give -o FILE")
        if not output and sys.stdout.isatty():
            _usage("standard output is a terminal: give -o FILE, or -o - to see NDJSON here")
        if workers:
            from rastermeta_async.launch import launch_ahead

            launch_ahead(settings)
        source = _source(inputs or [], null, from_file or [], suffix, console)
        from rastermeta_async.run import run_extract

        status = run_extract(source, output or "-", settings, overwrite, console)
    # Threads that hang on a dead mount would keep a normal exit from ever happening.
    os._exit(status)


@app.command()
def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A raster.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    drivers: Annotated[
        str, typer.Option(metavar="LIST|all", help="GDAL drivers that may open it.")
    ] = "",
    compare: Annotated[
        bool, typer.Option("--compare", help="Show what each reader says, and what differs.")
    ] = False,
) -> None:
    """Show one file's record."""
    from rastermeta_async.api import compare_readers, read_record
    from rastermeta_async.show import as_text, comparison_as_text, comparison_to_json, to_json

    if compare:
        both = compare_readers(os.fsencode(file), drivers=_drivers(drivers))
        _say(comparison_to_json(both) if as_json else comparison_as_text(both))
        raise typer.Exit(SOME_FAILED if both.differences or not both.rasterio.ok else OK)
    record = read_record(os.fsencode(file), drivers=_drivers(drivers))
    _say(to_json(record) if as_json else as_text(record))
    raise typer.Exit(OK if record.ok else SOME_FAILED)


@app.command()
def status(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The catalog's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a running or stopped run has done so far."""
    from rastermeta_async.console import Console, explained_exit
    from rastermeta_async.status import status_of

    with explained_exit(Console()):
        found = status_of(output)
    _say(found.as_json() if as_json else found.as_text())


@app.command()
def schema(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Print the catalog's columns: name, type, meaning."""
    from rastermeta_async.show import schema_as_json, schema_as_text

    _say(schema_as_json() if as_json else schema_as_text())


@app.command()
def sample(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder, made when missing.")],
    seed: Annotated[int, typer.Option(help="Another seed gives another archive.")] = 0,
) -> None:
    """Write a small synthetic archive to try things on."""
    from rastermeta_async.console import Console, explained_exit
    from rastermeta_async.sample import write_sample

    with explained_exit(Console()):
        count = write_sample(folder, seed)
    _say(f"{count} files in {folder}")


def _say(text: str) -> None:
    """Print what was asked for, or end the program with a sentence that says why not."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        typer.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(READER_GONE)
    except OSError as error:
        if sys.stderr is not None:
            typer.echo(f"rastermeta: standard output: {error.strerror}", err=True)
        os._exit(FAILED)


def _usage(message: str) -> NoReturn:
    raise typer.BadParameter(message)


def _drivers(value: str) -> tuple[str, ...] | None:
    """Return the drivers of an option; None: the safe list; empty: all."""
    if value == "all":
        return ()
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        return None
    from rastermeta_async.drivers import unknown_drivers

    if unknown := unknown_drivers(names):
        _usage(f"--drivers: this GDAL has no driver {', '.join(unknown)}")
    return names


def _source(
    inputs: list[str], null: bool, lists: list[str], suffix: str, console: Console
) -> Source:
    from rastermeta_async.run import protected_stdin
    from rastermeta_async.sources import (
        ChainedSource,
        IterableSource,
        ListSource,
        StdinSource,
        walk,
    )

    separator = b"\0" if null else b"\n"
    endings = [ending.strip().lstrip("*").lower() for ending in suffix.split(",")]
    suffixes = tuple(os.fsencode(ending) for ending in endings if ending)
    for path in lists:
        if not os.path.exists(path):
            _usage(f"--from-file: {path} does not exist")
    sources: list[Source] = [ListSource(path, separator) for path in lists]
    named = [os.fsencode(path) for path in inputs if path != "-"]
    for path in inputs:
        if path != "-" and not os.path.lexists(path):
            console.hint(f"{path} does not exist: it gets an error row")
    if named:
        only_files = not any(map(os.path.isdir, named))
        sources.append(IterableSource(named if only_files else walk(named, suffixes)))
    if "-" in inputs or not sources:
        sources.append(StdinSource(protected_stdin(console), separator))
    return sources[0] if len(sources) == 1 else ChainedSource(sources)

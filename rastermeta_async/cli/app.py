"""The commands of the command line. Large modules are imported only when they are used."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rastermeta_async.cli import exports, options
from rastermeta_async.cli.answers import is_terminal, put, say, stream, usage
from rastermeta_async.cli.console import FAILED, OK, SOME_FAILED
from rastermeta_async.model.settings import (
    CLUSTER_QUEUE,
    CONCURRENCY,
    MEMBER_KINDS,
    Access,
    Order,
    Settings,
)
from rastermeta_async.model.text import bytes_in_words, on_a_line

_USAGE_ERROR: Any = typer.BadParameter.__base__
"""Base of all usage errors; Typer has no public name for it."""

if TYPE_CHECKING:
    from rastermeta_async.cli.console import Console


class _Program(TyperGroup):
    """The group of commands; it makes messages of usage errors safe for a terminal."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """See `TyperGroup`."""
        with _shown_safely():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """See `TyperGroup`."""
        with _shown_safely():
            return super().invoke(ctx)


@contextlib.contextmanager
def _shown_safely() -> Iterator[None]:
    """Remove secrets and control characters from a usage error: it quotes arguments."""
    try:
        yield
    except _USAGE_ERROR as error:
        from rastermeta_async.model.urls import redacted

        error.message = on_a_line(redacted(error.message))
        raise


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Stream the headers of huge raster archives into one catalog.",
    epilog="rastermeta help lists the topics that tell more.",
)


def _version(value: bool) -> None:
    if value:
        from rastermeta_async import __version__

        say(f"rastermeta {__version__}")
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
    "error rows; 129/130/143 interrupted. The same command again resumes."
)
def extract(
    inputs: options.Inputs = None,
    output: options.OutputName = None,
    null: options.Null = False,
    from_file: options.FromFile = None,
    suffix: options.Suffix = None,
    glob: options.Glob = None,
    exclude: options.Exclude = None,
    shard: options.ShardName = None,
    batch_size: options.BatchSize = Settings.batch_size,
    concurrency: options.Concurrency = CONCURRENCY,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    queue_size: options.QueueSize = None,
    timeout: options.Timeout = Settings.timeout,
    reader: options.Reader = options.ReaderName.AUTO,
    drivers: options.Drivers = "",
    members: options.Members = options.DEFAULT_KINDS,
    subdatasets: options.Subdatasets = False,
    gdal_config: options.GdalConfig = None,
    no_sign_request: options.NoSignRequest = False,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    requester_pays: options.RequesterPays = False,
    sidecars: options.Sidecars = False,
    keep_going: options.KeepGoing = False,
    update: options.Update = False,
    prune: options.Prune = False,
    prune_folders: options.PruneFolders = False,
    dry_run: options.DryRun = False,
    sort: options.Sort = None,
    strict: options.Strict = None,
    skip_offline: options.SkipOffline = False,
    retry_failed: options.RetryFailed = False,
    overwrite: options.Overwrite = False,
    progress: options.ShowProgress = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_json: options.LogJson = False,
) -> None:
    """Read the header of every raster into one catalog."""
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.model.machine import default_workers, usable_cores, usable_memory

    if cluster:
        workers, queue_size = 0, queue_size or CLUSTER_QUEUE
    if workers is None:
        workers = default_workers(usable_cores(), usable_memory())
    console = Console(quiet=quiet, verbose=verbose, as_json=log_json, bar=progress)
    with explained_exit(console):
        settings = Settings(
            batch_size=batch_size,
            concurrency=concurrency,
            workers=workers,
            queue_size=queue_size,
            timeout=timeout,
            reader=reader.value,
            drivers=_drivers(drivers),
            members=_members(members),
            subdatasets=subdatasets,
            gdal_config=tuple(gdal_config or ()),
            access=Access(no_sign_request, endpoint_url, region, profile, requester_pays, sidecars),
            keep_going=keep_going,
            update=update,
            prune=prune,
            prune_folders=prune_folders,
            skip_offline=skip_offline,
            retry_failed=retry_failed,
            strict=strict,
            sort=sort,
        )
        if (prune_folders or dry_run) and not prune:
            usage("--prune-folders and --dry-run say how to prune: give --prune, too")
        if output == "":
            usage("-o is empty, as of a variable that is not set: give -o FILE, or -o -")
        if output in (None, "-"):
            of_catalogs = bool(update or prune or sort or retry_failed or overwrite)
            _check_stream(of_catalogs, asked_for=output == "-")
        output = output or "-"
        if workers and not dry_run:
            from rastermeta_async.pools.child import launch_ahead

            launch_ahead(settings)
        from rastermeta_async.cli.inputs import Given
        from rastermeta_async.cli.run import list_lost, paths_on_stdin, run_extract

        names, lists = inputs or [], from_file or []
        given = Given(
            names, lists, null=null, suffixes=suffix or [], globs=glob or [],
            excluded=exclude or [], shard=shard, timeout=timeout,
        )  # fmt: skip
        _say_missing(given.missing, console, prune=prune, dry_run=dry_run)
        stdin = partial(paths_on_stdin, console=console, read_here=not (workers or cluster))
        if dry_run:
            _check_catalog(output)
            source = given.source(settings, stdin) if names or lists else None
            status = list_lost(output, source, settings, console, partial(_list, null=null))
        else:
            source = given.source(settings, stdin)
            status = run_extract(source, output, settings, overwrite, console, cluster)
    console.close()
    # A normal exit would wait forever for threads that hang on a dead mount.
    os._exit(status)


def _check_stream(of_catalogs: bool, *, asked_for: bool) -> None:
    """Refuse options of catalogs for rows on standard output, and an output that is unusable."""
    if of_catalogs:
        usage(
            "--update, --prune, --sort, --retry-failed and --overwrite need a catalog: give -o FILE"
        )
    if sys.stdout is None:
        usage("standard output is closed: give -o FILE")
    if sys.stdout.isatty() and not asked_for:
        usage("standard output is a terminal: give -o FILE, or -o - to see NDJSON here")


def _check_catalog(output: str) -> None:
    """Refuse a name without a catalog: opening it would make one."""
    from rastermeta_async.catalog.names import log_path
    from rastermeta_async.model.urls import local_name

    local = local_name(output)
    if not (os.path.exists(local) or os.path.exists(log_path(local))):
        usage(f"{local}: there is no catalog of this name")


def _say_missing(paths: list[bytes], console: Console, *, prune: bool, dry_run: bool) -> None:
    """Print which inputs do not exist; refuse them if ``--prune`` would drop rows below them."""
    from rastermeta_async.model.file_state import likely_mistake
    from rastermeta_async.model.urls import shown_url

    for path in paths:
        mistake = likely_mistake(path)
        text = f"{shown_url(os.fsdecode(path))} does not exist" + (mistake and f" ({mistake})")
        refused = (
            f"{text}: is a disk not mounted? With --prune nothing is read and no row dropped until "
            "it is there, or not named any more"
        )
        if prune and not dry_run:
            usage(refused)
        console.hint(refused if prune else f"{text}: it gets an error row")


@app.command()
def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A raster.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    drivers: Annotated[
        str, typer.Option(metavar="LIST|all", help="GDAL drivers that may open it.")
    ] = "",
    gdal_config: options.GdalConfig = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show what each reader says, and what differs.")
    ] = False,
) -> None:
    """Show one file's record."""
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.cli.show import as_text, comparison_as_text, comparison_to_json, to_json
    from rastermeta_async.model.streams import silence_libraries
    from rastermeta_async.model.urls import is_url
    from rastermeta_async.one_file import compare_readers, read_record
    from rastermeta_async.readers.undecodable import quiet_undecodable_messages

    silence_libraries()
    quiet_undecodable_messages()
    if compare:
        if is_url(os.fsencode(file)):
            usage("--compare is for local files: copy the object, or leave it out")
        if gdal_config:
            usage("--compare goes without --gdal-config: the reader without GDAL knows no options")
        with explained_exit(Console()):
            both = compare_readers(os.fsencode(file), drivers=_drivers(drivers))
        say(comparison_to_json(both) if as_json else comparison_as_text(both), as_json=as_json)
        raise typer.Exit(SOME_FAILED if both.differences or not both.rasterio.ok else OK)
    given = tuple(gdal_config or ())
    with explained_exit(Console()):
        record = read_record(os.fsencode(file), drivers=_drivers(drivers), gdal_config=given)
    say(to_json(record) if as_json else as_text(record), as_json=as_json)
    raise typer.Exit(OK if record.ok else SOME_FAILED)


@app.command()
def status(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The catalog's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a running or stopped run has done so far."""
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.cli.status import status_of

    with explained_exit(Console()):
        found = status_of(output)
    say(found.as_json() if as_json else found.as_text(), as_json=as_json)


@app.command()
def summary(
    catalog: Annotated[str, typer.Argument(metavar="CATALOG", help="A finished catalog.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what is in a catalog: counts, bytes, extent, errors."""
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.cli.summary import as_text, summary_of, to_json

    with explained_exit(Console()):
        found = summary_of(catalog)
    say(to_json(found) if as_json else as_text(found), as_json=as_json)


@app.command()
def report(
    catalog: Annotated[str, typer.Argument(metavar="CATALOG", help="A finished catalog.")],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="The page: .html.", show_default=False),
    ] = None,
    svg: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Also draw each chart as an SVG file in this folder."),
    ] = None,
    png: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Also draw each chart as a PNG file in this folder."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="OLD", help="Also tell what was added, has changed or is gone since OLD."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace files that are no report.")
    ] = False,
) -> None:
    """Write a page to look at a catalog: map, folders, errors.

    The page is one file that needs no network. Selecting in a chart filters all others.
    """
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.model.urls import local_name

    if not (output or svg or png):
        usage("give -o FILE.html for a page, or --svg DIR or --png DIR for pictures")
    folders = {form: folder for form, folder in (("svg", svg), ("png", png)) if folder}
    with explained_exit(Console()):
        from rastermeta_async.report.write import report as write_report

        older = local_name(compare) if compare else None
        written = write_report(
            local_name(catalog), output, folders, older=older, overwrite=overwrite
        )
    for path in written:
        say(f"{path}: {bytes_in_words(os.path.getsize(path))}")


@app.command(epilog="Exit status, as of diff: 0 nothing differs; 1 something does; 2 trouble.")
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A finished catalog.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="A later one of the same archive.")],
    listing: Annotated[
        str | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="Write each file that differs, one JSON object a line; - is standard output.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The counts as JSON.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file of the list's name.")
    ] = False,
) -> None:
    """Say what is new, gone or changed between two catalogs."""
    from rastermeta_async.cli.console import USAGE, Console
    from rastermeta_async.cli.differences import compared
    from rastermeta_async.model.errors import RastermetaError
    from rastermeta_async.model.urls import local_name

    console = Console()
    printed = partial(stream, as_json=True) if listing == "-" else None
    try:
        found = compared(local_name(old), local_name(new), listing, printed, overwrite=overwrite)
    except RastermetaError as error:
        console.error(str(error))
        console.close()
        os._exit(USAGE)
    if printed is None:
        say(found.as_json() if as_json else found.as_text(), as_json=as_json)
    else:
        console.hint(found.as_line())
        console.close()
    raise typer.Exit(FAILED if found.differs else OK)


@app.command(epilog="Exit status: 0 done; 1 it failed; 2 usage; 130/143 interrupted.")
def merge(
    catalogs: Annotated[
        list[str], typer.Argument(metavar="CATALOG", help="Finished catalogs: files or URLs.")
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The catalog to write.")
    ],
    sort: options.SortMerged = Order.PATH,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a catalog of that name.")
    ] = False,
    no_sign_request: options.NoSignRequest = False,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    requester_pays: options.RequesterPays = False,
) -> None:
    """Make one catalog of several, each path once.

    If several catalogs have a path, the row whose file has the newest time of change is taken, and
    of several such rows that of the last catalog named. A row without a time, as of a file that
    could not be reached, is taken only if no other catalog has a row with one.
    """
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.cli.run import run_merge

    console = Console()
    access = Access(no_sign_request, endpoint_url, region, profile, requester_pays)
    with explained_exit(console):
        status = run_merge(catalogs, output, sort, access, console, overwrite=overwrite)
    console.close()
    os._exit(status)


export_app = typer.Typer(help="Write a catalog in other forms.", no_args_is_help=True)
app.add_typer(export_app, name="export")
export_app.command()(exports.stac)
export_app.command()(exports.gti)
for _form in exports.TABLES:
    export_app.command(_form)(exports.table_command(_form))


@export_app.callback()
def export() -> None:
    """Write a catalog in other forms."""


@app.command("help")
def show_topic(
    name: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", help="What to read about; none: the topics.")
    ] = None,
) -> None:
    """Show a topic of the help; without one, list the topics."""
    from rastermeta_async.cli.topics import list_of_topics, topic, topics

    if name is None:
        say(list_of_topics())
        return
    if name not in topics():
        usage(f"there is no topic {on_a_line(name)}: rastermeta help lists them")
    if is_terminal():
        from rich.console import Console as Terminal
        from rich.markdown import Markdown

        Terminal().print(Markdown(topic(name)))
    else:
        say(topic(name).rstrip())


@app.command()
def schema(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Print the catalog's columns: name, type, meaning."""
    from rastermeta_async.cli.topics import schema_as_json, schema_as_text

    say(schema_as_json() if as_json else schema_as_text())


@app.command()
def sample(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder, made when missing.")],
    seed: Annotated[int, typer.Option(help="Another seed gives another archive.")] = 0,
) -> None:
    """Write a small synthetic archive to try things on."""
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.cli.sample import write_sample

    with explained_exit(Console()):
        count = write_sample(folder, seed)
    say(f"{count} files in {folder}")


def _list(path: bytes, *, null: bool) -> None:
    """Print a path of a list: its exact bytes, or readable text on a terminal."""
    if is_terminal():
        from rastermeta_async.model.record import readable

        say(on_a_line(readable(path)))
    else:
        put(path + (b"\0" if null else b"\n"))


def _members(value: str) -> tuple[str, ...]:
    """Return the kinds of archives of ``--members``."""
    if value in ("all", "none"):
        return MEMBER_KINDS if value == "all" else ()
    return tuple(dict.fromkeys(kind.strip().lower() for kind in value.split(",") if kind.strip()))


def _drivers(value: str) -> tuple[str, ...] | None:
    """Return the drivers of ``--drivers``; None: `SAFE_DRIVERS`; empty: all."""
    if value == "all":
        return ()
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        return None
    from rastermeta_async.model.gdal_options import drivers_without, unknown_drivers

    left_out = tuple(name[1:] for name in names if name.startswith("-"))
    if left_out and len(left_out) < len(names):
        usage("--drivers: give drivers to use, as GTiff,netCDF, or to leave out, as -GRIB,-netCDF")
    if unknown := unknown_drivers(left_out or names):
        usage(f"--drivers: this GDAL has no driver {', '.join(unknown)}")
    return drivers_without(left_out) if left_out else names

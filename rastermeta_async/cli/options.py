"""The options of ``rastermeta extract``: each is a type with its flag and its help text."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, TypeVar

import typer

from rastermeta_async.model.settings import DEFAULT_MEMBERS, Order

Choice = TypeVar("Choice", bound=StrEnum)


class ReaderName(StrEnum):
    """Readers to choose from."""

    AUTO = "auto"
    RASTERIO = "rasterio"


def _one_of(choices: type[Choice]) -> Callable[[str], Choice]:
    """Return a parser for an option's choices, with an error message in this program's words."""

    def parse(text: str) -> Choice:
        try:
            return choices(text)
        except ValueError:
            wrong = f"{text!r} is none of the choices: give one of {', '.join(choices)}"
            raise typer.BadParameter(wrong) from None

    return parse


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Files, or folders to walk, also as file:// URLs; URLs of objects (s3://, gs://, "
        "az://, https://) or, with a / at the end, of prefixes; - or none: paths come on standard "
        "input.",
        show_default=False,
    ),
]

OutputName = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Catalog to write: .parquet, .ndjson, .jsonl or .json, also in an object store; - "
        "is NDJSON on standard output, which is also what happens without -o when that is no "
        "terminal.",
        show_default=False,
    ),
]

Null = Annotated[bool, typer.Option("-0", "--null", help="Paths are NUL-separated (find -print0).")]

FromFile = Annotated[
    list[str] | None,
    typer.Option(
        "--from-file",
        metavar="LIST",
        help="Read paths from a file; may be given several times.",
        show_default=False,
    ),
]

Suffix = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LIST",
        help="Take only names with these endings, e.g. .tif,.tiff,.jp2; may be given several "
        "times; files that are named as INPUT are always read.",
        show_default=False,
    ),
]

Glob = Annotated[
    list[str] | None,
    typer.Option(
        "--glob",
        metavar="GLOB",
        help="Take only paths that match such a pattern of .gitignore, relative to the folder or "
        "prefix, e.g. '2024/**/*.tif'; may be given several times.",
        show_default=False,
    ),
]

Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="Leave out paths that match, and all in a folder that does, e.g. 'tmp/'; may be given "
        "several times. Files that are named as INPUT are always read.",
        show_default=False,
    ),
]

ShardName = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Take only the paths of shard I of N, from 0/N on, so that N runs, also on other "
        "machines, share the work; rastermeta merge makes one catalog of theirs.",
        show_default=False,
    ),
]

BatchSize = Annotated[int, typer.Option(min=1, metavar="N", help="Rows in a batch.")]

Concurrency = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Files read, or requests to object stores under way, at once at the most, over all "
        "workers. How many are worth having is found out.",
    ),
]

Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Worker processes; 0: open headers in this one.  [default: by cores and memory]",
    ),
]

Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Read on the workers of a Dask cluster: its scheduler's address, e.g. "
        "tcp://host:8786, or local:N.",
        show_default=False,
    ),
]

QueueSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Paths that may wait.  [default: 1024 a worker, 65536 for a cluster]",
    ),
]

Timeout = Annotated[float, typer.Option(metavar="S", help="Seconds for one file.")]

Reader = Annotated[
    ReaderName,
    typer.Option(
        parser=_one_of(ReaderName),
        metavar="|".join(ReaderName),
        help="auto: plain GeoTIFFs and JP2s without GDAL, all else with rasterio.",
    ),
]

Drivers = Annotated[
    str,
    typer.Option(
        metavar="LIST|all",
        help="GDAL drivers that may open a file, e.g. GTiff,JP2OpenJPEG; or, with a - before each, "
        "those of the default that may not, e.g. -GRIB.  "
        "[default: raster formats that are files in their own right]",
        show_default=False,
    ),
]

Members = Annotated[
    str,
    typer.Option(
        metavar="LIST|all|none",
        help="Archives of which each raster inside has a row: zip, tar, gz, tgz (all of which must "
        "be unpacked to read it).  [default: zip,tar,gz]",
        show_default=False,
    ),
]

Subdatasets = Annotated[
    bool,
    typer.Option(
        "--subdatasets",
        help="Give each subdataset (variable, table, page) of NetCDF, HDF5, GeoPackage and other "
        "containers a row of its own, too.",
    ),
]

DEFAULT_KINDS = ",".join(DEFAULT_MEMBERS)

GdalConfig = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="A GDAL configuration option, e.g. GTIFF_POINT_GEO_IGNORE=YES; may be given several "
        "times. rasterio then reads every file, and the catalog says so. Options in the "
        "environment and in GDAL's own files are not used.",
        show_default=False,
    ),
]

NoSignRequest = Annotated[
    bool, typer.Option("--no-sign-request", help="Ask object stores without credentials.")
]

EndpointUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Another server for s3:// or az:// than the cloud's own."),
]

Region = Annotated[str | None, typer.Option(metavar="NAME", help="Region of s3:// buckets.")]

Profile = Annotated[
    str | None, typer.Option(metavar="NAME", help="Profile of AWS's configuration files.")
]

RequesterPays = Annotated[
    bool, typer.Option("--requester-pays", help="Let S3 charge the requests to you.")
]

Sidecars = Annotated[
    bool,
    typer.Option("--sidecars", help="Look for sidecar files next to objects, too; far slower."),
]

KeepGoing = Annotated[
    bool,
    typer.Option(
        "--keep-going", help="Go on even if none of the first hundred objects can be read."
    ),
]

Update = Annotated[
    bool,
    typer.Option("--update", help="Also read files again whose size or time of change differs."),
]

Prune = Annotated[
    bool, typer.Option("--prune", help="Drop the rows whose local path leads to no file.")
]

PruneFolders = Annotated[
    bool,
    typer.Option("--prune-folders", help="With --prune: also where a whole folder is gone."),
]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Only list the paths that --prune would drop, on standard output."
    ),
]

Sort = Annotated[
    Order | None,
    typer.Option(
        parser=_one_of(Order),
        metavar="|".join(Order),
        help="Order of a .parquet catalog's rows: path; spatial, where rows that are near each "
        "other on the ground are near each other in the file; or none, as they come, which takes "
        "the least time at the end.  [default: the one asked for last; path]",
        show_default=False,
    ),
]

SortMerged = Annotated[
    Order,
    typer.Option(
        "--sort",
        parser=_one_of(Order),
        metavar="path|spatial",
        help="Order of the rows: path; or spatial, where rows that are near each other on the "
        "ground are near each other in the file.",
    ),
]

SkipOffline = Annotated[
    bool,
    typer.Option(
        "--skip-offline",
        help="Give files whose content is not on disk (tape, HSM) an error row: no recall.",
    ),
]

RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Also read paths again that have an error row.")
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start again from nothing.")]

ShowProgress = Annotated[
    bool | None,
    typer.Option(
        "--progress/--no-progress",
        help="Show progress.  [default: on a terminal; else a line a minute]",
        show_default=False,
    ),
]

Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--no-strict",
        help="Give each path an error row that is no raster, or none of them; such a path is then "
        "only counted.  [default: none that is found in a folder, below a prefix or on standard "
        "input]",
        show_default=False,
    ),
]

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say only what went wrong.")]

Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Name each bad file, and each that is no raster.")
]

LogJson = Annotated[bool, typer.Option("--log-json", help="Messages as JSON lines, for machines.")]

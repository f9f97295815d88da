"""Settings of a run: one frozen dataclass, validated on construction; reads no environment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.gdal_options import parsed_options

CHUNK_PATHS = 256
"""Paths of a chunk: to hand over a chunk, and to make a batch, costs as much as many fast reads."""

MAX_CHUNK_PATHS = 1024
"""Paths of the longest chunk, used when files are read fast."""

CHUNK_SECONDS = 0.25
"""A chunk is longer than `CHUNK_PATHS` only if a reader finishes it in this time."""

CHUNK_BYTES = 512 * 1024
"""A chunk of paths, or of records for one batch, closes at this size."""

BATCH_BYTES = 8 * 1024 * 1024
"""A batch closes at this size even when it has fewer rows than asked for."""

BATCH_SECONDS = 60.0
"""A batch also closes this long after the last one: a crash loses no more than that."""


STREAM_SECONDS = 0.5
"""The same for rows on standard output, where a person may read them."""

MAX_STUCK = 64
"""Threads, or worker processes, that may hang at once before the run gives up."""

READS_AT_ONCE = 4
"""Chunks of paths for each process: one or two are being read; others wait for a slow file, or
are next."""

REMOTE_OPENS = 16
"""Objects in stores that a process opens with rasterio at once: each of these threads has PROJ's
database and GDAL's buffers in memory."""

CLUSTER_QUEUE = 65_536
"""Paths that wait for the nodes of a cluster, see `Settings.queue_size`."""

MEMBER_KINDS = ("zip", "tar", "gz", "tgz")
"""Kinds of archives whose members may have rows."""

DEFAULT_MEMBERS = ("zip", "tar", "gz")
"""Kinds whose members have rows by default: not compressed tars, of which all must be unpacked."""

READERS = {
    "auto": "rastermeta_async.readers.router:make_reader",
    "rasterio": "rastermeta_async.readers.rasterio_reader:make_reader",
}
"""Readers by name: ``module:function`` makes one from drivers, access and GDAL's options."""


CONCURRENCY = 512
"""Highest number of files, or of requests to object stores, at once: remote disks and stores
answer in some 10 to 100 ms."""

REQUEST_SECONDS = 20.0
"""Timeout of one request to a store; a retry fits into the timeout of the object."""


class Order(StrEnum):
    """How the rows of a finished catalog are sorted."""

    PATH = "path"
    """By the bytes of the path."""
    SPATIAL = "spatial"
    """Along a Hilbert curve through the centres of the footprints."""
    NONE = "none"
    """Roughly in the order of reading."""


class JsonTags(StrEnum):
    """What tags are in JSON."""

    MAP = "map"
    """Objects, whose keys are the names of tags."""
    LIST = "list"
    """Lists of objects that have a key and a value: all rows have the same fields."""


@dataclass(frozen=True)
class Access:
    """Access to object stores, in addition to the environment and the clouds' own files."""

    no_sign_request: bool = False
    """Send requests without credentials."""
    endpoint_url: str | None = None
    """Server to use instead of the cloud's own, for s3:// and az://."""
    region: str | None = None
    profile: str | None = None
    """Profile in AWS's configuration files."""
    requester_pays: bool = False
    """Let S3 bill the requests to the owner of the credentials."""
    sidecars: bool = False
    """Let GDAL look for sidecar files next to objects, too."""


@dataclass(frozen=True)
class Settings:
    """How a run works. Counts are at least 1.

    Raises:
        SettingsError: a value is out of range; the message names it.
    """

    batch_size: int = 5000
    """Rows a batch: one part on disk, one line in the checkpoint log."""
    concurrency: int = CONCURRENCY
    """Highest number of files, or of requests to object stores, at once over all workers.

    The useful number is tuned during the run. If this is less than `workers`, fewer workers start.
    """
    workers: int = 0
    """Worker processes; 0: headers are opened in this process."""
    queue_size: int | None = None
    """Paths that wait between the source and the pool, in chunks of up to 512; None: 1024 for each
    reading process."""
    timeout: float = 60.0
    """Timeout of one file, in seconds."""
    reader: str = "auto"
    """auto: plain GeoTIFF headers are decoded without GDAL, with the same result; rasterio: it
    reads every file."""
    drivers: tuple[str, ...] | None = None
    """GDAL drivers that may open a file; None: `SAFE_DRIVERS`; empty: every driver."""
    gdal_config: tuple[str, ...] = ()
    """GDAL configuration options, ``KEY=VALUE``, that may change what is read. If any is given,
    rasterio reads every file. Options in the environment are not used."""
    access: Access = Access()
    """How object stores are reached."""
    members: tuple[str, ...] = DEFAULT_MEMBERS
    """Kinds of archives, of `MEMBER_KINDS`, of which each raster inside has a row; empty: none."""
    subdatasets: bool = False
    """Give each subdataset of a container, such as a NetCDF file, a row of its own after that of
    the file: 10,000 at most."""
    keep_going: bool = False
    """Go on even if all of the first files in stores fail in the same way."""
    update: bool = False
    """Also read files again whose size or modification time has changed."""
    prune: bool = False
    """Drop rows whose local path leads to no file."""
    prune_folders: bool = False
    """Drop these rows even if a whole folder is gone, or empty."""
    skip_offline: bool = False
    """Give a file whose content is not on disk an error row instead of recalling it."""
    retry_failed: bool = False
    """Also read paths again whose row is not a success."""
    strict: bool | None = None
    """Whether a path that is no raster has an error row. False: it has none, and is only counted;
    None: it has one unless it was found, in a folder, below a prefix or on standard input."""
    sort: Order | None = None
    """Order of a finished Parquet catalog; None: the order given last, or by path for a new one."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "concurrency", "queue_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} must be at least 1, not {value}")
        if self.reader not in READERS:
            raise SettingsError(f"reader must be one of {', '.join(READERS)}, not {self.reader}")
        if unknown := [kind for kind in self.members if kind not in MEMBER_KINDS]:
            raise SettingsError(
                f"members: {unknown[0]!r} is no kind of archive: give {', '.join(MEMBER_KINDS)}"
            )
        parsed_options(self.gdal_config)
        if self.workers < 0:
            raise SettingsError(f"workers must be at least 0, not {self.workers}")
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise SettingsError(f"timeout must be a positive number of seconds, not {self.timeout}")

    @property
    def reader_path(self) -> str:
        """The function that makes the reader: one of `READERS`."""
        return READERS["rasterio" if self.gdal_config else self.reader]

    @property
    def queued_paths(self) -> int:
        """Size of the path queue, in paths."""
        return self.queue_size or READS_AT_ONCE * max(1, self.workers) * CHUNK_PATHS


def local_threads(concurrency: int) -> int:
    """Return the highest number of threads that read `concurrency` local files in a process."""
    return concurrency + MAX_STUCK


def threads_for(concurrency: int) -> int:
    """Return the highest number of threads of a process that reads `concurrency` files at once."""
    files_or_objects = 2 * (local_threads(concurrency) + 1)  # one makes rows
    return files_or_objects + REMOTE_OPENS + MAX_STUCK

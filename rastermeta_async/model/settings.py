"""Settings of a run: one frozen dataclass, validated on construction; reads no environment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.gdal_options import parsed_options

CHUNK_PATHS = 256
"""Paths handed to a thread at once: a hop, and a batch, cost as much as many fast reads."""

MAX_CHUNK_PATHS = 512
"""The same where files are read fast."""

CHUNK_SECONDS = 0.25
"""A chunk is only longer than `CHUNK_PATHS` as far as a reader is done with it in this time."""

CHUNK_BYTES = 512 * 1024
"""A chunk of paths, or of records on their way back, closes at this size."""

BATCH_BYTES = 8 * 1024 * 1024
"""A batch closes at this size even when it has fewer rows than asked for."""

BATCH_SECONDS = 60.0
"""And so long after the last one: what a crash may cost."""


STREAM_SECONDS = 0.5
"""The same for rows on standard output, which somebody may be looking at."""

MAX_STUCK = 64
"""Threads, or worker processes, that may hang at once before the run gives up."""

READS_AT_ONCE = 4
"""Chunks of paths at hand for each process: one or two under way, and others that wait for a slow
file or are to be next."""

REMOTE_OPENS = 16
"""Objects in stores that a process opens with rasterio at once: each thread that does so has PROJ's
database open, and GDAL's buffers."""

READERS = {
    "auto": "rastermeta_async.readers.router:make_reader",
    "rasterio": "rastermeta_async.readers.rasterio_reader:make_reader",
}
"""What may read headers: ``module:function`` that makes a reader from drivers, access and
GDAL's options."""


CONCURRENCY = 512
"""Files that are read, or requests to object stores that are under way, at once at the most: far
disks and stores answer in some 10 to 100 ms."""

REQUEST_SECONDS = 20.0
"""For one request to a store, so that another may follow within the time of the object."""


class Order(StrEnum):
    """How the rows of a finished catalog are sorted."""

    PATH = "path"
    """By the bytes of the path."""
    SPATIAL = "spatial"
    """Along a Hilbert curve through the middles of the footprints."""
    NONE = "none"
    """As they were read, by and large."""


@dataclass(frozen=True)
class Access:
    """How object stores are reached, besides what the environment and the clouds' files say."""

    no_sign_request: bool = False
    """Ask without credentials."""
    endpoint_url: str | None = None
    """Another server than the cloud's own, for s3:// and az://."""
    region: str | None = None
    profile: str | None = None
    """Of AWS's configuration files."""
    requester_pays: bool = False
    """Let S3 charge the requests to these credentials."""
    sidecars: bool = False
    """Have GDAL look for sidecar files next to objects, too."""


@dataclass(frozen=True)
class Settings:
    """How a run works. Counts are at least 1.

    Raises:
        SettingsError: a value is out of range; the message names it.
    """

    batch_size: int = 5000
    """Rows a batch: one part on disk, one line in the checkpoint log."""
    concurrency: int = CONCURRENCY
    """Files read, or requests to object stores under way, at once at the most, over all workers.

    How many are worth having is found out. With fewer than `workers` only so many are started."""
    workers: int = 0
    """Worker processes; 0: headers are opened in this process."""
    queue_size: int | None = None
    """Paths that wait between the source and the pool, in chunks of up to 512; None: 1024 for each
    process that reads."""
    timeout: float = 60.0
    """Seconds that one file may take."""
    reader: str = "auto"
    """auto: plain GeoTIFF headers are decoded without GDAL, with the same result; rasterio: it
    reads every file."""
    drivers: tuple[str, ...] | None = None
    """GDAL drivers that may open a file; None: the safe list; empty: every driver there is."""
    gdal_config: tuple[str, ...] = ()
    """GDAL configuration options, ``KEY=VALUE``, that may change what is read; where there are any,
    rasterio reads every file. The environment's are not used."""
    access: Access = Access()
    """How object stores are reached."""
    keep_going: bool = False
    """Go on also when all of the first files in stores fail alike."""
    update: bool = False
    """Also redo the files whose size or time of change is another one."""
    prune: bool = False
    """Drop rows whose local path leads to no file."""
    prune_folders: bool = False
    """Also where a whole folder is gone, or empty."""
    skip_offline: bool = False
    """Give a file whose content is not on disk an error row, instead of having it recalled."""
    retry_failed: bool = False
    """Also redo the paths whose row is not a success."""
    sort: Order | None = None
    """Order of a finished Parquet catalog; None: the one asked for last, by path if it is new."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "concurrency", "queue_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} must be at least 1, not {value}")
        if self.reader not in READERS:
            raise SettingsError(f"reader must be one of {', '.join(READERS)}, not {self.reader}")
        parsed_options(self.gdal_config)
        if self.workers < 0:
            raise SettingsError(f"workers must be at least 0, not {self.workers}")
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise SettingsError(f"timeout must be a positive number of seconds, not {self.timeout}")

    @property
    def reader_path(self) -> str:
        """Which function makes the reader: one of `READERS`."""
        return READERS["rasterio" if self.gdal_config else self.reader]

    @property
    def queued_paths(self) -> int:
        """Bound of the path queue, in paths."""
        return self.queue_size or READS_AT_ONCE * max(1, self.workers) * CHUNK_PATHS


def local_threads(concurrency: int) -> int:
    """Return how many threads a process has at most that read so many local files at once."""
    return concurrency + MAX_STUCK


def threads_for(concurrency: int) -> int:
    """Return how many threads a process has at most that reads so many files at once."""
    files_or_objects = 2 * (local_threads(concurrency) + 1)  # one makes rows
    return files_or_objects + REMOTE_OPENS + MAX_STUCK

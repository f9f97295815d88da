"""Makes the rows of an archive: one for each raster in it.

    entries ──▶ decoders, from the bytes of the archive ──▶ GDAL, for what they do not know ──▶ rows

A member that is no raster by its name and its content is no row, nor is a sidecar of another one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rastermeta_async.model.errors import RastermetaError, StoreError
from rastermeta_async.model.record import Record, failure, path_columns, rough_bytes
from rastermeta_async.model.text import plural
from rastermeta_async.model.timeouts import Stopped
from rastermeta_async.readers.archives.entries import (
    MAX_MEMBERS,
    MAX_UNPACKED,
    Archive,
    ArchiveEntry,
    ArchiveError,
)
from rastermeta_async.readers.archives.gzip_file import GzipFile
from rastermeta_async.readers.archives.tar_headers import TarArchive
from rastermeta_async.readers.archives.zip_directory import ZipArchive
from rastermeta_async.readers.base import (
    FOREIGN,
    HEAD_BYTES,
    TIMEOUTS,
    Facts,
    HeaderDecoder,
    ReadAt,
    UnreadableError,
    Unsupported,
    note_progress,
)
from rastermeta_async.readers.geotiff.structure import GTIFF, Structure, structure_of_bytes
from rastermeta_async.readers.sidecars import ListedFolders, Neighbours
from rastermeta_async.stores.archive_names import GZ, TGZ, ZIP, kind_of

MAX_ROWS_BYTES = 32 * 1024 * 1024
"""Approximate bytes of the rows of one archive; they are kept, and committed, together."""

_RASTERS = frozenset(
    b"tif tiff gtiff btf tf8 jp2 j2k img nc nc4 h5 hdf hdf4 hdf5 he5 grb grb2 grib grib2 vrt png"
    b" jpg jpeg webp bmp gif ntf nitf sid ecw dem dt0 dt1 dt2 hgt asc bil bip bsq bt pix kea"
    b" fits".split()
)
"""Endings of names that only rasters have."""

_OTHERS = frozenset(
    b"html htm xsd xsl css js md md5 sha1 sha256 sha512 log py sh pdf doc docx safe json geojson"
    b" csv".split()
)
"""Endings of names that no raster has; GDAL, which takes ten requests to a store, is not asked."""

_OF_RASTERS = (".aux.xml", ".ovr", ".msk", ".prj", ".tfw", ".jgw", ".pgw", ".j2w", ".wld")
"""Endings of sidecars, which are no rows."""


@dataclass
class ArchiveSource:
    """An archive to read."""

    path: bytes
    """As in its rows."""
    facts: Facts
    """Of the archive; each of its rows has them."""
    read_at: ReadAt
    decoder: HeaderDecoder | None
    """None: GDAL reads all members."""
    open_with_gdal: Callable[[str], Record]
    """Returns GDAL's record of a member."""
    timeout: float
    """Of one file, seconds."""
    next_member: Callable[[], None] = lambda: None
    """Called before each member is read."""

    def failure(self, kind: str, message: str, member: str | None = None) -> Record:
        """Return an error row of the archive or a member."""
        return self.row(failure(self.path, "error", kind, message), member)

    def row(self, record: Record, member: str | None) -> Record:
        """Return the record of a member as a row of the archive."""
        shown, raw = path_columns(self.path)
        return record._replace(
            filepath=shown, filepath_bytes=raw, member=member, file_size=self.facts.size,
            mtime=self.facts.mtime, etag=self.facts.etag,
        )  # fmt: skip


def read_members(source: ArchiveSource) -> list[Record]:
    """Return the rows of an archive, sorted by member; none if it holds no raster.

    Raises:
        ArchiveError: nothing in it can be read.
        Stopped: the run ends.
        Exception: whatever `read_at` raises.
    """
    return _ArchiveReading(source).rows()


class _TooMuch(Exception):  # noqa: N818  # a finding, not an error
    """The rest of an archive is left out; the message says why."""


@dataclass
class _ArchiveReading:
    """The rows of one archive, while they are made."""

    source: ArchiveSource
    _rows: list[Record] = field(default_factory=list)
    _decoded: dict[str, tuple[Record, ArchiveEntry]] = field(default_factory=dict)
    _others: dict[str, ArchiveEntry] = field(default_factory=dict)
    """Members that GDAL has to read."""
    _names: dict[str, None] = field(default_factory=dict)
    """Of all members, each once."""
    _nested: list[str] = field(default_factory=list)
    _bytes: int = 0
    _began: float = field(default_factory=time.monotonic)

    def rows(self) -> list[Record]:
        """Return the rows."""
        archive = opened(self.source)
        left_out = ""
        try:
            left_out = self._decode_all(archive)
            self._place_decoded()
            self._ask_gdal(archive)
        except _TooMuch as reason:
            self._place_decoded()
            left_out = left_out or str(reason)
        if left_out:
            self._rows.append(self.source.failure("NotAllMembers", left_out))
        if self._nested:
            more = len(self._nested) - 1
            others = f", nor are {plural(more, 'other')} here" if more else ""
            message = f"an archive inside an archive is not followed{others}: unpack it"
            self._rows.append(self.source.failure("NestedArchive", message, self._nested[0]))
        return sorted(self._rows, key=lambda row: row.member or "")

    def _decode_all(self, archive: Archive) -> str:
        """Read all members that need no GDAL; return why others are left out, if so."""
        try:
            for entry in archive.entries():
                # GDAL, too, opens the first of several; a name may be nothing but ``./``.
                if entry.name and entry.name not in self._names:
                    self._names[entry.name] = None
                    self._add(entry)
        except ArchiveError as error:
            if not self._names:
                raise
            return f"members may be missing: {error}"
        if archive.knows_all:
            return ""
        return f"only its first {MAX_MEMBERS:,} members were read: unpack it to have all"

    def _add(self, entry: ArchiveEntry) -> None:
        self._check_limits(entry.name)
        if entry.problem:
            if _is_named_like_a_raster(entry.name):
                kind, message = entry.problem.kind, str(entry.problem)
                self._keep(self.source.failure(kind, message, entry.name))
        elif kind_of(entry.name.encode()) is not None:
            self._nested.append(entry.name)
        elif entry.name.lower().endswith(_OF_RASTERS) or _ending(entry.name) in _OTHERS:
            return
        elif record := self._decode(entry):
            self._decoded[entry.name] = record, entry
            self._bytes += rough_bytes(record)
        else:
            self._others[entry.name] = entry

    def _decode(self, entry: ArchiveEntry) -> Record | None:
        """Return the record of a member without GDAL; None: no decoder knows it."""
        decoder = self.source.decoder
        if decoder is None or entry.open is None:
            return None
        path = b"/".join([self.source.path, entry.name.encode()])
        try:
            content = entry.open()
            head = content.read_at(0, HEAD_BYTES)
            return decoder.decode(path, Facts(entry.size, None), head, content.read_at)
        except (Unsupported, StoreError):
            return None
        except (RastermetaError, Stopped, OSError, UnreadableError):
            raise
        except Exception:  # noqa: BLE001  # a fault in a decoder must not end a run
            return None

    def _place_decoded(self) -> None:
        """Make rows of what was decoded, but for members about which sidecars may say more."""
        folders = ListedFolders(name.encode() for name in self._names)
        for name, (record, entry) in self._decoded.items():
            neighbours = folders.neighbours(name.encode())
            is_unplaced = record.status == "no_georef" and neighbours is Neighbours.WORLD_FILES
            if neighbours is Neighbours.SIDECARS or is_unplaced:
                self._others[name] = entry
            else:
                self._rows.append(self.source.row(record, name))
        self._decoded.clear()

    def _ask_gdal(self, archive: Archive) -> None:
        """Have GDAL read all that is left."""
        may_list = archive.knows_all or isinstance(archive, ZipArchive)
        while self._others:
            name = next(iter(self._others))
            self._check_limits(name)
            entry = self._others.pop(name)
            if not may_list or entry.to_unpack > MAX_UNPACKED:
                if _is_named_like_a_raster(name):
                    self._keep(self._not_unpacked(entry, may_list=may_list))
                continue
            record = self.source.open_with_gdal(name)
            if not _is_no_raster(name, record):
                self._keep(self._completed(record, entry))

    def _not_unpacked(self, entry: ArchiveEntry, *, may_list: bool) -> Record:
        message = (
            f"to read its header, up to {entry.to_unpack:,} bytes would have to be unpacked, and "
            f"the limit is {MAX_UNPACKED:,}"
        )
        if not may_list:
            message = f"GDAL, which reads it, would look at more than {MAX_MEMBERS:,} members"
        return self.source.failure("TooMuchToUnpack", f"{message}: unpack the archive", entry.name)

    def _completed(self, record: Record, entry: ArchiveEntry) -> Record:
        """Return GDAL's record of a member as a row, with what only the bytes of a TIFF tell."""
        if record.driver == GTIFF:
            factors = record.bands[0].overviews if record.bands else []
            structure = Structure()
            if entry.open is not None:
                with contextlib.suppress(Unsupported):
                    read_at = entry.open().read_at
                    structure = structure_of_bytes(entry.size, read_at, factors)
            record = record._replace(**structure._asdict())
        return self.source.row(record, entry.name)

    def _keep(self, row: Record) -> None:
        self._rows.append(row)
        self._bytes += rough_bytes(row)

    def _check_limits(self, name: str) -> None:
        """Raise `_TooMuch` if a member and what follows is to be left out."""
        note_progress()
        self.source.next_member()
        seconds = TIMEOUTS * self.source.timeout
        if time.monotonic() - self._began > seconds:
            raise _TooMuch(f"{name} and what follows was not read within {seconds:g} s")
        if self._bytes > MAX_ROWS_BYTES:
            raise _TooMuch(
                f"{name} and what follows was left out, as the tags of the members before have "
                f"more than {MAX_ROWS_BYTES:,} bytes: unpack it"
            )


def opened(source: ArchiveSource) -> Archive:
    """Return the archive of a source.

    Raises:
        ArchiveError: it is no archive of the kind that its ending tells.
    """
    kind, size = kind_of(source.path), source.facts.size
    if kind == ZIP:
        return ZipArchive(source.read_at, size)
    if kind == GZ:
        return GzipFile(source.path, source.read_at, size)

    def on_block() -> None:
        note_progress()
        source.next_member()

    return TarArchive(source.read_at, size, packed=kind == TGZ, on_block=on_block)


def _is_no_raster(name: str, record: Record) -> bool:
    """Tell whether a member needs no row: GDAL does not know it, and its name is no raster's."""
    if record.ok or _is_named_like_a_raster(name):
        return False
    message = record.error_message or ""
    return FOREIGN in message or "does not exist in the file system" in message


def _is_named_like_a_raster(name: str) -> bool:
    return _ending(name) in _RASTERS


def _ending(name: str) -> bytes:
    return name.rpartition(".")[2].lower().encode()

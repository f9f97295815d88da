r"""The append-only checkpoint log: the only authority on what is finished.

Each entry is one line: its CRC-32 as eight hexadecimal digits, a space, the entry as JSON, a
newline. The first line is the header. A last line that is bad, or has no newline, was being
written when the run ended; it is dropped. A bad line before the last, or a bad header, means that
the file was damaged. Then nothing is changed until a person has looked at it.

A `part` line names a finished batch. A `sealing` line names the content that is about to take the
output's name, and the file in the parts folder that holds the rows of no rasters, if there are any.
A `sealed` line says that it took the name and that the parts are no longer needed.
An `uploaded` line names the object that may be replaced in an object store.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import IO, Any, ClassVar, get_args, get_type_hints

from rastermeta_async.catalog.durable import (
    Identity,
    Rights,
    created,
    explained,
    lock,
    open_locked,
    publish,
    remove,
    sync_file,
    temporaries_beside,
    temporary_beside,
)
from rastermeta_async.catalog.names import is_no_rasters, part_number
from rastermeta_async.model.errors import CheckpointError
from rastermeta_async.model.settings import Order
from rastermeta_async.model.streams import write_all

LOG_VERSION = 4
READABLE_VERSIONS = (2, 3, LOG_VERSION)
"""Logs of version 2 have no `LogHeader.replaced`, and their parts have other names; logs of version
3 know of no rasters."""

MAX_LOG_BYTES = 256 * 1024 * 1024
"""Limit of a log; the log of a catalog of 10^8 rows has 10 MB."""

_NO = object()
"""Equals no value of a field."""

_MOST = 1 << 53
"""Every number in a log is below this."""


@dataclass(frozen=True)
class LogHeader:
    """The first line of a log."""

    kind: ClassVar[str] = "header"
    version: int = LOG_VERSION
    output: str = ""
    """Base name of the output that the log belongs to."""
    replaces: bool = False
    """Whether an existing output is to be replaced, whoever made it."""
    replaced: str | None = None
    """The existing output, see `Identity.lasting`; "": there was none; None: any output."""
    url: str | None = None
    """Where the finished output is copied to, "" if nowhere; None: the log is older than this
    field."""
    order: str | None = None
    """The `Order` that was asked for last; None: no order was ever asked for."""
    gdal_config: str = ""
    """GDAL's options that the rows were read with, as by `gdal_options.options_as_json`."""


@dataclass(frozen=True)
class Part:
    """A batch that is safely on disk."""

    kind: ClassVar[str] = "part"
    seq: int
    """Position among all parts of this output, from 1; the later row of a path wins."""
    name: str
    """File name in the parts folder."""
    rows: int
    failures: int
    """Rows whose status is neither a success nor one of `NO_RASTERS`."""
    size: int
    """Bytes."""
    digest: str
    """See `digest.Digest`."""
    time: float = field(default_factory=time.time)
    """When the part was finished, in seconds since 1970."""
    sidecars: int = 0
    """Rows of files that belong to a raster."""
    others: int = 0
    """Rows of other files that are no rasters."""

    @property
    def no_rasters(self) -> int:
        """Rows of paths that are no rasters."""
        return self.sidecars + self.others


@dataclass(frozen=True)
class Sealing:
    """The content that is about to be renamed to the output's name."""

    kind: ClassVar[str] = "sealing"
    seq: int
    """Highest number of a part that the content includes."""
    rows: int
    failures: int
    size: int
    digest: str
    time: float = field(default_factory=time.time)
    sidecars: int = 0
    """Rows in the file of no rasters that are of files that belong to a raster."""
    others: int = 0
    """Other rows in the file of no rasters."""
    no_rasters_name: str = ""
    """File name of the rows of no rasters in the parts folder, "" if there are none."""
    no_rasters_size: int = 0
    no_rasters_digest: str = ""
    several: bool = False
    """Whether a path has several rows, of members or subdatasets."""

    @property
    def no_rasters(self) -> Part | None:
        """The file of no rasters, which is read like a part; None: there is none."""
        if not self.no_rasters_name:
            return None
        return Part(
            self.seq, self.no_rasters_name, self.sidecars + self.others, 0, self.no_rasters_size,
            self.no_rasters_digest, self.time, self.sidecars, self.others,
        )  # fmt: skip


@dataclass(frozen=True)
class Sealed(Sealing):
    """The output has this content; parts up to `seq` may be removed."""

    kind: ClassVar[str] = "sealed"


@dataclass(frozen=True)
class Uploaded:
    """The object at the output's URL that the next upload may replace.

    It is the last upload, or the object that existed when the user allowed to replace it.
    """

    kind: ClassVar[str] = "uploaded"
    etag: str


Entry = LogHeader | Part | Sealing | Uploaded
_KINDS: dict[str, type[LogHeader] | type[Part] | type[Sealing] | type[Uploaded]] = {
    entry.kind: entry for entry in (LogHeader, Part, Sealing, Sealed, Uploaded)
}
_OPTIONAL = {
    kind: {one.name: one.default for one in fields(entry) if one.default is not MISSING}
    for kind, entry in _KINDS.items()
    if kind != LogHeader.kind
}
"""Fields that a line leaves out if they have their defaults: most logs know of no rasters."""

_TYPES = {kind: get_type_hints(entry) for kind, entry in _KINDS.items()}


def encode(entry: Entry) -> bytes:
    """Return the log line of an entry."""
    defaults = _OPTIONAL.get(entry.kind, {})
    told = {
        name: value for name, value in asdict(entry).items() if value != defaults.get(name, _NO)
    }
    body = json.dumps({"kind": entry.kind, **told}, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode(line: bytes) -> Entry | None:
    """Return the entry of a log line (without its newline); None if the line is damaged."""
    told = _fields(line)
    try:
        entry = _KINDS[told.pop("kind")](**told)
    except (KeyError, TypeError):  # the line is intact, but this version writes none like it
        return None
    return entry if _is_sound(entry) else None


def _is_sound(entry: Entry) -> bool:
    """Tell whether each field has its type and a valid value."""
    types = _TYPES[entry.kind]
    return all(_fits(value, name, types[name]) for name, value in vars(entry).items())


def _fits(value: Any, name: str, hint: Any) -> bool:
    kinds = get_args(hint) or (hint,)
    if type(value) not in kinds and not (float in kinds and type(value) is int):
        return False
    if isinstance(value, int | float):
        return 0 <= value < _MOST
    if name == "name":
        return part_number(value) is not None
    if name == "no_rasters_name":
        return not value or is_no_rasters(value)
    if name.endswith("digest"):
        return re.fullmatch("[0-9a-f]*", value) is not None
    return name != "order" or value is None or value in tuple(Order)


def _fields(line: bytes) -> dict[str, Any]:
    """Return the fields of a log line, empty if the line is damaged."""
    crc, _, body = line.partition(b" ")
    if not body or crc != b"%08x" % zlib.crc32(body):
        return {}
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):  # the line is intact, but no version writes one like it
        return {}
    return told if isinstance(told, dict) else {}


def read_entries(data: bytes, path: str) -> list[Entry]:
    """Return the entries of a log's content, without a torn last line.

    Raises:
        CheckpointError: a line before the last, or the header, is damaged, or the log has another
            version.
    """
    lines = data.split(b"\n")
    torn = lines.pop()  # b"" after a last newline
    if lines and (first := _fields(lines[0])):
        _check_version(first, path)
    entries: list[Entry] = []
    offset = 0
    for number, line in enumerate(lines, 1):
        entry = decode(line)
        if entry is None:
            if number == len(lines) > 1 and not torn:
                break
            raise damaged(path, f"line {number} at byte {offset} is damaged")
        entries.append(entry)
        offset += len(line) + 1
    if data and not entries:  # a crash cannot tear the header: a rename puts it in place whole
        raise damaged(path, "line 1 at byte 0 is damaged")
    return entries


def log_content(file: IO[bytes], path: str) -> bytes:
    """Return the content of a log.

    Raises:
        CheckpointError: it is larger than `MAX_LOG_BYTES`.
    """
    content = file.read(MAX_LOG_BYTES + 1)
    if len(content) > MAX_LOG_BYTES:
        raise damaged(path, f"it has more than {MAX_LOG_BYTES:,} bytes")
    return content


def damaged(path: str, what: str) -> CheckpointError:
    """Return the error for a file that is not as it was written; `what` says what is wrong."""
    return CheckpointError(
        f"{path}: {what}. Nothing was changed: restore the file from a backup, or give "
        "--overwrite to start again from nothing."
    )


def _check_version(header: dict[str, Any], path: str) -> None:
    if header.get("version") not in READABLE_VERSIONS:
        raise CheckpointError(
            f"{path} is not a checkpoint log of this version of rastermeta. Nothing was changed: "
            "use the version that made it, or give --overwrite to start again from nothing."
        )


@dataclass(frozen=True)
class History:
    """The state of an output according to its log."""

    parts: tuple[Part, ...] = ()
    """Committed parts that are in no sealed output yet, oldest first."""
    sealed: Sealed | None = None
    """The last content that certainly took the output's name."""
    sealing: Sealing | None = None
    """A later content that may have taken the output's name."""
    uploaded: Uploaded | None = None
    """The object at the output's URL, as far as the log knows."""

    @property
    def last_seq(self) -> int:
        """Number of the last part ever committed, 0 when there is none."""
        sealed = self.sealed.seq if self.sealed else 0
        return max([sealed, *(part.seq for part in self.parts)])


def history(entries: Sequence[Entry]) -> History:
    """Return the state that a log's entries lead to."""
    parts: list[Part] = []
    sealed: Sealed | None = None
    sealing: Sealing | None = None
    uploaded: Uploaded | None = None
    for entry in entries:
        match entry:
            case Part():
                parts.append(entry)
            case Sealed():
                sealed, sealing = entry, None
                parts = [part for part in parts if part.seq > entry.seq]
            case Sealing():
                sealing = entry
            case Uploaded():
                uploaded = entry
            case LogHeader():
                pass
    return History(tuple(parts), sealed, sealing, uploaded)


class CheckpointLog:
    """The log of one output, locked for this process while it is open.

    Not for use by two threads at once.
    """

    def __init__(
        self,
        path: str,
        output: str,
        url: str = "",
        *,
        order: Order | None = None,
        gdal_config: str | None = None,
        overwrite: bool = False,
        rights: Rights | None = None,
    ) -> None:
        """Open and lock the log of `output` at `path`; make the log if it is missing.

        With `overwrite` the log may be damaged. Only the names of its parts count, and `rewrite`
        then replaces it. From the first `rewrite` on, the header holds `url` ("": the output is
        copied nowhere), `order` and `gdal_config`. If one of the last two is None, the header keeps
        the value that it had.

        Raises:
            OutputLockedError: another run has the lock.
            CheckpointError: the log is damaged; nothing was changed.
            ForeignOutputError: the log is not a regular file, or it belongs to another user.
        """
        self.path = path
        self._output = os.path.basename(output)
        self._url = url
        with explained(path, "opening the checkpoint log"):
            self._fd = open_locked(path, rights)
        try:
            content = self._content()
            self.entries = [] if overwrite else read_entries(content, path)
            found = map(decode, content.split(b"\n"))
            self.part_names = frozenset(entry.name for entry in found if isinstance(entry, Part))
            """Names of all parts that the log names when it is opened, also sealed ones."""
        except BaseException:
            self.close()
            raise
        asked = self._header.order if self._header else None
        self.order = order or (Order(asked) if asked else None)
        """The order of rows that was asked for last; None: no order was ever asked for."""
        self.had_gdal_config = self._header.gdal_config if self._header else ""
        """GDAL's options that the rows so far were read with."""
        self.gdal_config = self.had_gdal_config if gdal_config is None else gdal_config
        """GDAL's options that all rows are read with."""

    def _content(self) -> bytes:
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            return log_content(file, self.path)

    @property
    def rights(self) -> Rights:
        """Who may read and write the log."""
        return Rights.of(os.fstat(self._fd))

    @property
    def replaced(self) -> str | None:
        """The output that is to be replaced, see `LogHeader.replaced`."""
        return self._header.replaced if self._header else None

    @property
    def replaces(self) -> bool:
        """Whether an existing output is to be replaced, whoever made it."""
        return self._header is not None and self._header.replaces

    @property
    def url(self) -> str | None:
        """Where the output is copied to, "" if nowhere; None: the log does not say."""
        return self._header.url if self._header else None

    @property
    def _header(self) -> LogHeader | None:
        first = self.entries[0] if self.entries else None
        return first if isinstance(first, LogHeader) else None

    def rewrite(
        self, entries: Sequence[Entry], *, replaces: bool = False, replaced: str | None = None
    ) -> None:
        """Replace the whole log atomically by a header and `entries`; the lock stays.

        A run starts with this. It drops a torn line, and it makes durable what an earlier run may
        have written but failed to sync (after a failed sync the page cache looks clean).

        Args:
            entries: all entries except the header.
            replaces: see `LogHeader`.
            replaced: see `LogHeader`.
        """
        header = LogHeader(
            output=self._output, replaces=replaces, replaced=replaced, url=self._url,
            order=self.order, gdal_config=self.gdal_config,
        )  # fmt: skip
        lines = [header, *entries]
        with explained(self.path, "rewriting the checkpoint log"):
            temporary = temporary_beside(self.path)
            with ExitStack() as failing:
                with created(temporary, self.rights) as file:
                    for entry in lines:
                        write_all(file.fileno(), encode(entry))
                    new = os.dup(file.fileno())
                    failing.callback(os.close, new)
                lock(new, self.path)
                publish(temporary, self.path, Identity.of(os.fstat(self._fd)))
                failing.pop_all()
            for leftover in temporaries_beside(self.path):
                remove(leftover)
        self.close()
        self._fd = new
        self.entries = lines

    def append(self, entry: Entry) -> None:
        """Write one line; the line is on the disk when this returns.

        Raises:
            WriteError: the line may or may not be on the disk; do not use the log any more.
        """
        with explained(self.path, "writing the checkpoint log"):
            write_all(self._fd, encode(entry))
            sync_file(self._fd)
        self.entries.append(entry)

    def close(self) -> None:
        """Close the log and release the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

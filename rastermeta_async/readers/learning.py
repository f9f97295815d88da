"""Decoders that learn from rasterio what the headers of one kind have in common.

rasterio reads the first file of each kind. Its record becomes the template for the other files of
that kind, but only if the decoder returns the same record, equal to the last bit. So every process
compares each kind of file with rasterio once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Generic, Protocol, TypeVar

from rastermeta_async.model.record import Record, differing_columns, path_columns
from rastermeta_async.model.timeouts import done_in
from rastermeta_async.readers.base import Facts, ReadAt, Unplaced, Unsupported
from rastermeta_async.readers.fence import fence_thread
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.sparse_file import sparse_copy

MAX_TEMPLATES = 512
"""Kinds that a decoder keeps."""


class DecodedHeader(Protocol):
    """What differs between files of the same kind."""

    @property
    def kind(self) -> Hashable:
        """Key of all other properties: files with an equal kind share them."""

    @property
    def transform(self) -> tuple[float, ...] | None:
        """Geotransform in GDAL's order; None if there is none."""


H = TypeVar("H", bound=DecodedHeader)
H_contra = TypeVar("H_contra", bound=DecodedHeader, contravariant=True)


class RecordTemplate(Protocol[H_contra]):
    """The columns that all files of a kind share; a file's header gives the other columns."""

    def record(self, header: H_contra, path: bytes, facts: Facts) -> Record:
        """Return the record of a file of this kind."""


class LearningDecoder(ABC, Generic[H]):
    """Decodes headers of kinds; see `HeaderDecoder`.

    Args:
        rasterio: reads the first file of each kind.
    """

    copy_name: bytes
    """Name of the copy of a header that rasterio reads."""

    def __init__(self, rasterio: RasterioReader) -> None:
        self._rasterio = rasterio
        self.templates: dict[Hashable, RecordTemplate[H] | None] = {}
        """Templates by kind of header. None: rasterio reads all files of this kind."""
        self._lock = Lock()
        # One thread for all readers: each thread that uses rasterio keeps PROJ's database open.
        self._learning = ThreadPoolExecutor(1, "rastermeta-templates", fence_thread)

    @abstractmethod
    def read_header(self, path: bytes, head: bytes, size: int, read_at: ReadAt) -> H:
        """Return the header of a file; for the arguments and errors see `HeaderDecoder.decode`."""

    @abstractmethod
    def template_of(self, record: Record) -> RecordTemplate[H]:
        """Return the template that rasterio's record of a file makes.

        Raises:
            Unsupported: the columns of such a record differ in what no header tells.
        """

    def completed(self, record: Record, header: H) -> Record:  # noqa: ARG002  # for subclasses
        """Return the record of a copy with those columns that depend on bytes it does not have."""
        return record

    def decode(
        self,
        path: bytes,
        facts: Facts,
        head: bytes,
        read_at: ReadAt,
        reference: Record | None = None,
    ) -> Record:
        """See `HeaderDecoder.decode`."""
        parts = {0: head}

        def kept(offset: int, size: int) -> bytes:
            parts[offset] = content = read_at(offset, size)
            return content

        header = self.read_header(path, head, facts.size, kept)
        if facts.has_world_file and header.transform is None:
            raise Unplaced("only a file next to it tells where it lies")
        if reference is not None:
            if not reference.ok or reference.error_type:
                raise Unsupported("rasterio has a problem with the file")
            return self.template_of(reference).record(header, path, facts)
        try:
            template = self.templates[header.kind]
        except KeyError:  # the file is the first of its kind
            learn = partial(self._learn_once, header, path, facts, parts)
            return done_in(self._learning, learn)
        return self._by_template(template, header, path, facts)

    def _by_template(
        self, template: RecordTemplate[H] | None, header: H, path: bytes, facts: Facts
    ) -> Record:
        if template is None:
            raise Unsupported("rasterio says otherwise")
        return template.record(header, path, facts)

    def _learn_once(
        self, header: H, path: bytes, facts: Facts, parts: Mapping[int, bytes]
    ) -> Record:
        """Return the record of a file; learn the template if the file is the first of its kind.

        rasterio reads the same bytes that were decoded, even if the file has changed since then.
        The bytes between them are zeros.
        """
        if header.kind in self.templates:  # another thread was first
            learnt = self.templates.get(header.kind)  # None also if it was evicted just now
            return self._by_template(learnt, header, path, facts)
        with sparse_copy(self.copy_name, parts, facts.size) as copy:
            record = self._rasterio.read(copy, is_ours=True)
        try:
            template, decoded = self._checked(record, header, path, facts)
        except Unsupported:
            self._remember(header, None)
            raise
        self._remember(header, template)
        return decoded

    def _checked(
        self, record: Record, header: H, path: bytes, facts: Facts
    ) -> tuple[RecordTemplate[H], Record]:
        """Return the template that a record makes, and the record that the template makes of it."""
        if not record.ok or record.error_type:
            raise Unsupported("rasterio has a problem with the header")
        shown, raw = path_columns(path)
        record = self.completed(record, header)._replace(
            filepath=shown, filepath_bytes=raw, mtime=facts.mtime, etag=facts.etag
        )
        template = self.template_of(record)
        decoded = template.record(header, path, facts)
        # Such a footprint comes from control points or RPCs, which differ from file to file.
        of_points = header.transform is None and (record.gcp_count or record.has_rpcs)
        if of_points or differing_columns(record, decoded):
            raise Unsupported("rasterio says otherwise")
        return template, decoded

    def _remember(self, header: H, template: RecordTemplate[H] | None) -> None:
        with self._lock:
            if len(self.templates) >= MAX_TEMPLATES:
                del self.templates[next(iter(self.templates))]
            self.templates[header.kind] = template

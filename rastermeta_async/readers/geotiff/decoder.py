"""The decoder of plain GeoTIFF headers.

rasterio reads the first file of each kind (see `header`). Its record becomes the template for the
other files of that kind, but only if the decoder returns the same record, equal to the last bit.
So every process compares each kind of file with rasterio once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from rastermeta_async.model.record import Record, differing_columns, path_columns
from rastermeta_async.model.timeouts import done_in
from rastermeta_async.readers.base import Facts, ReadAt, Unplaced, Unsupported
from rastermeta_async.readers.fence import fence_thread
from rastermeta_async.readers.geotiff.header import Header, read_header
from rastermeta_async.readers.geotiff.template import Template
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.sparse_file import sparse_copy

MAX_TEMPLATES = 512


class GeoTiffDecoder:
    """Decodes plain GeoTIFFs; see `HeaderDecoder`.

    Args:
        rasterio: reads the first file of each kind.
    """

    def __init__(self, rasterio: RasterioReader) -> None:
        self._rasterio = rasterio
        self.templates: dict[Hashable, Template | None] = {}
        """Templates by kind of header. None: rasterio reads all files of this kind."""
        self._lock = Lock()
        # One thread for all readers: each thread that uses rasterio keeps PROJ's database open.
        self._learning = ThreadPoolExecutor(1, "rastermeta-templates", fence_thread)

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

        header = read_header(head, facts.size, kept)
        if facts.has_world_file and header.transform is None:
            raise Unplaced("only a file next to it tells where it lies")
        if reference is not None:
            if not reference.ok or reference.error_type:
                raise Unsupported("rasterio has a problem with the file")
            return Template(reference).record(header, path, facts)
        if header.kind in self.templates:
            return self._by_template(header, path, facts)
        return done_in(self._learning, lambda: self._learn_once(header, path, facts, parts))

    def _by_template(self, header: Header, path: bytes, facts: Facts) -> Record:
        template = self.templates.get(header.kind)  # None also if it was evicted just now
        if template is None:
            raise Unsupported("rasterio says otherwise")
        return template.record(header, path, facts)

    def _learn_once(
        self, header: Header, path: bytes, facts: Facts, parts: Mapping[int, bytes]
    ) -> Record:
        """Return the record of a file; learn the template if the file is the first of its kind.

        rasterio reads the same bytes that were decoded, even if the file has changed since then.
        The bytes between them are zeros.
        """
        if header.kind in self.templates:  # another thread was first
            return self._by_template(header, path, facts)
        with sparse_copy(b"header.tif", parts, facts.size) as copy:
            record = self._rasterio.read(copy, is_ours=True)
        if not record.ok or record.error_type:
            self._remember(header, None)
            raise Unsupported("rasterio has a problem with the header")
        shown, raw = path_columns(path)
        record = record._replace(
            filepath=shown, filepath_bytes=raw, mtime=facts.mtime, etag=facts.etag,
            # The arrays of block offsets may be among the zeros.
            cog=not header.cog_problems, cog_problems=header.cog_problems,
        )  # fmt: skip
        template = Template(record)
        decoded = template.record(header, path, facts)
        # Such a footprint comes from control points or RPCs, which differ from file to file.
        of_points = header.transform is None and (record.gcp_count or record.has_rpcs)
        if of_points or differing_columns(record, decoded):
            self._remember(header, None)
            raise Unsupported("rasterio says otherwise")
        self._remember(header, template)
        return decoded

    def _remember(self, header: Header, template: Template | None) -> None:
        with self._lock:
            if len(self.templates) >= MAX_TEMPLATES:
                del self.templates[next(iter(self.templates))]
            self.templates[header.kind] = template

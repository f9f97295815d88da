"""The decoder of plain GeoTIFF headers.

rasterio is asked about the first file of each kind (see `header`), and what it says becomes the
template for the others of that kind, but only if it is what the decoder would have said, to the
last bit. So each kind of file is compared with rasterio once in every process.
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
        rasterio: is asked about the first file of each kind.
    """

    def __init__(self, rasterio: RasterioReader) -> None:
        self._rasterio = rasterio
        self.templates: dict[Hashable, Template | None] = {}
        """By kind of header; None: rasterio reads all files of this kind."""
        self._lock = Lock()
        # One, however many read: each thread that asks rasterio has PROJ's database open.
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
        template = self.templates.get(header.kind)  # None as well where it was forgotten just now
        if template is None:
            raise Unsupported("rasterio says otherwise")
        return template.record(header, path, facts)

    def _learn_once(
        self, header: Header, path: bytes, facts: Facts, parts: Mapping[int, bytes]
    ) -> Record:
        """Return the record of the first file of a kind, once for all threads that wait for it.

        rasterio is asked about the very bytes that were decoded, whatever the file is by now. What
        lies between them is taken for zeros.
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
            # Arrays that tell where blocks are may be among the zeros.
            cog=not header.cog_problems, cog_problems=header.cog_problems,
        )  # fmt: skip
        template = Template(record)
        decoded = template.record(header, path, facts)
        # An outline is made from control points or RPCs, which differ from file to file.
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

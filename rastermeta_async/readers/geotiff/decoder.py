"""The decoder of plain GeoTIFF headers; see `learning`."""

from __future__ import annotations

from rastermeta_async.model.record import Record
from rastermeta_async.readers.base import ReadAt
from rastermeta_async.readers.geotiff.header import Header, read_header
from rastermeta_async.readers.geotiff.template import Template
from rastermeta_async.readers.learning import LearningDecoder


class GeoTiffDecoder(LearningDecoder[Header]):
    """Decodes plain GeoTIFFs; see `HeaderDecoder`."""

    copy_name = b"header.tif"

    def read_header(self, path: bytes, head: bytes, size: int, read_at: ReadAt) -> Header:  # noqa: ARG002  # a name says nothing of a TIFF
        """See `LearningDecoder.read_header`."""
        return read_header(head, size, read_at)

    def template_of(self, record: Record) -> Template:
        """See `LearningDecoder.template_of`."""
        return Template(record)

    def completed(self, record: Record, header: Header) -> Record:
        """See `LearningDecoder.completed`: the arrays of block offsets may not be in the copy."""
        problems = header.cog_problems
        return record._replace(cog=not problems, cog_problems=problems)

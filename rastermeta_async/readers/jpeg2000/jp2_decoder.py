"""The decoder of usual JP2 headers; see `learning`."""

from __future__ import annotations

from rastermeta_async.model.record import Record
from rastermeta_async.readers.base import ReadAt
from rastermeta_async.readers.jpeg2000.jp2_header import Jp2Header, read_header
from rastermeta_async.readers.jpeg2000.jp2_template import Jp2Template
from rastermeta_async.readers.learning import LearningDecoder


class Jp2Decoder(LearningDecoder[Jp2Header]):
    """Decodes usual JP2 files; see `HeaderDecoder`."""

    copy_name = b"header.jp2"

    def read_header(self, path: bytes, head: bytes, size: int, read_at: ReadAt) -> Jp2Header:
        """See `LearningDecoder.read_header`."""
        return read_header(path, head, size, read_at)

    def template_of(self, record: Record) -> Jp2Template:
        """See `LearningDecoder.template_of`."""
        return Jp2Template(record)

"""The files that a VRT refers to, and whether they are there.

GDAL opens a VRT whose sources are missing as long as the VRT describes them itself. Reading its
pixels fails later. So the names are taken from the VRT's XML, and the system is asked for each
one; no source is opened.

Reference: GDAL, "VRT -- GDAL Virtual Format": SourceFilename, SourceDataset, relativeToVRT.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from xml.etree.ElementTree import ParseError, XMLParser

MAX_SOURCES = 10_000
"""Most files of a VRT that the system is asked for."""

MAX_BYTES = 32 * 1024 * 1024
"""Most bytes of a VRT that are searched for names of sources."""

_BLOCK_BYTES = 1024 * 1024
_NAMES = frozenset({"SourceFilename", "SourceDataset"})
"""Elements that hold the name of a source."""

_NO_FILE = re.compile(r"/vsi|[A-Za-z][A-Za-z0-9_+.-]*:|<")
"""The start of a name that GDAL does not take for a local file: a virtual file system, a URL, a
name with a driver's prefix, or another VRT as text."""


def missing_sources(vrt: bytes) -> int:
    """Return how many local files that a VRT names do not exist.

    At most `MAX_SOURCES` different files are counted, from at most `MAX_BYTES` of XML. What is no
    local file does not count: objects in stores, members of archives, subdatasets.

    Args:
        vrt: path of the VRT.

    Raises:
        OSError: the VRT cannot be read.
    """
    folder = os.path.dirname(os.path.realpath(vrt))  # GDAL follows links, too
    return sum(_is_missing(name) for name in _local_sources(vrt, os.fsdecode(folder)))


def _is_missing(name: str) -> bool:
    try:
        os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # nobody can tell
        return False
    return False


def _local_sources(vrt: bytes, folder: str) -> set[str]:
    """Return the paths of local files that a VRT names."""
    sources = _Sources(folder)
    # expat limits how much entities grow (since 2.4.1), and loads nothing from elsewhere.
    parser = XMLParser(target=sources)  # noqa: S314
    left = MAX_BYTES
    # An error ends the search: GDAL reads XML that no strict parser takes.
    with open(vrt, "rb") as file, suppress(ParseError):
        while left > 0 and len(sources.paths) < MAX_SOURCES and (some := file.read(_BLOCK_BYTES)):
            parser.feed(some)
            left -= len(some)
    return sources.paths


class _Sources:
    """Collects the names of sources while a parser goes through a VRT; builds no tree."""

    def __init__(self, folder: str) -> None:
        self.paths: set[str] = set()
        self._folder = folder
        self._text: list[str] | None = None
        self._is_relative = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        self._text = [] if tag in _NAMES else None
        self._is_relative = attributes.get("relativeToVRT") == "1"

    def data(self, text: str) -> None:
        """Take some text of an element."""
        if self._text is not None:
            self._text.append(text)

    def end(self, tag: str) -> None:
        """End an element."""
        if self._text is None or tag not in _NAMES:
            return
        name, self._text = "".join(self._text), None
        if name and not _NO_FILE.match(name) and len(self.paths) < MAX_SOURCES:
            self.paths.add(os.path.join(self._folder, name) if self._is_relative else name)

    def close(self) -> None:
        """End the document."""

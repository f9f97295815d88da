"""Turn the paths of a catalog into links of STAC items.

References: RFC 3986, section 2.1 (percent-encoding) and 4.2 (a first segment with a colon); RFC
3987, section 2.2 (IRIs, which the schema of items has as links); RFC 8089 (the file scheme); STAC
1.1.0, item specification, "Relative vs Absolute links".
"""

from __future__ import annotations

import os
import posixpath
import re
from functools import cached_property
from urllib.parse import quote, unquote_to_bytes, urlsplit

from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.record import readable
from rastermeta_async.model.urls import is_url
from rastermeta_async.stores.archive_names import name_inside, subdataset_at

_IN_A_PATH = "/!$&'()*+,;=@~"
"""Characters that a path keeps unquoted; not the colon, as text before it looks like a scheme."""

_IN_A_URL = "/!$&'()*+,;=@~:?#[]%"
_IN_A_KEY = "/!$&'()*+,;=@~:#?%"
"""The same for keys of object stores: nobody decodes them, so most characters stay."""

_STORES = ("s3://", "gs://", "az://")
_LOCAL = "file://"


class Links:
    """Turns paths into links.

    An absolute local path becomes a ``file://`` URL. A relative one is taken from the current
    folder, and its link is relative to the folder of the items.

    Args:
        base_url: URL before local paths; None: no URL.
        folder: the folder of the items; None: the current folder.

    Raises:
        SettingsError: a path cannot follow `base_url`, or it is not a URL.
    """

    def __init__(self, base_url: str | None = None, folder: str | None = None) -> None:
        self._base = None if base_url is None else _checked(base_url)
        self._folder = folder

    def of(self, path: bytes) -> str:
        """Return the link to a path, percent-encoded as needed."""
        if is_url(path):
            store = path.startswith(tuple(map(str.encode, _STORES)))
            return quote(path, safe=_IN_A_KEY if store else _IN_A_URL)
        if self._base is not None:
            return f"{self._base}/{_below(path, self._base)}"
        if path.startswith(b"/"):
            return _LOCAL + _quoted(re.sub(rb"^//+", b"/", path))
        return _quoted(posixpath.normpath(self._from_items + path))

    def inside(self, path: bytes, member: str) -> str:
        """Return the name under which GDAL opens a member of an archive; it is no URL."""
        return name_inside(self._outer(path), member)

    def subdataset(self, path: bytes, name: str) -> str:
        """Return the name under which GDAL opens a subdataset of a container; it is no URL.

        Args:
            path: of the container, or of the archive that it is in.
            name: as in the column `subdataset`.
        """
        return name if is_url(path) else subdataset_at(name, readable(path), self._outer(path))

    def _outer(self, path: bytes) -> str:
        """Return the path or URL under which GDAL is to open an archive or container."""
        outer = os.fsdecode(path if is_url(path) else os.path.abspath(path))
        if self._base is not None and not is_url(path):
            link = self.of(path)
            local = link.startswith(_LOCAL)
            outer = os.fsdecode(unquote_to_bytes(urlsplit(link).path)) if local else link
        return outer

    @cached_property
    def _from_items(self) -> bytes:
        return _way_back(self._folder)


def is_relative(link: str) -> bool:
    """Tell whether a link is relative to the file that it stands in."""
    return "://" not in link


def is_encoded_file(link: str) -> bool:
    """Tell whether a link to a local file has percent-encoded characters."""
    return link.startswith(_LOCAL) and "%" in link


def _way_back(folder: str | None) -> bytes:
    """Return the relative path from a folder to the current one; empty if it is that."""
    way = os.path.relpath(os.fsencode(os.getcwd()), os.fsencode(folder or os.curdir))
    return b"" if way == b"." else way + b"/"


_NOT_ASCII = re.compile("(?:%[89A-F][0-9A-F])+")


def _quoted(path: bytes) -> str:
    """Return a local path as part of an IRI, in which letters that are not ASCII stay.

    No reader of ``file://`` URLs that builds on rasterio or pystac decodes them.
    """
    return _NOT_ASCII.sub(_letters, quote(path, safe=_IN_A_PATH))


def _letters(encoded: re.Match[str]) -> str:
    try:
        text = unquote_to_bytes(encoded[0]).decode()
    except UnicodeDecodeError:
        return encoded[0]
    return text if text.isprintable() else encoded[0]


def _below(path: bytes, base: str) -> str:
    relative = posixpath.normpath(path).lstrip(b"/")
    while relative.startswith(b"../"):  # links stay below the base
        relative = relative[3:]
    if base.startswith(_LOCAL):
        return _quoted(relative)
    return quote(relative, safe=_IN_A_KEY if base.startswith(_STORES) else _IN_A_PATH)


def _checked(base_url: str) -> str:
    parts = urlsplit(base_url)
    if not parts.scheme or not (parts.netloc or parts.scheme == "file"):
        raise SettingsError(f"--base-url: {base_url!r} is no URL, like https://example.com/data")
    if (
        parts.query
        or parts.fragment
        or "@" in parts.netloc
        or re.search(r"[\s\x00-\x1f\x7f<>\"{}|\\^`]", base_url)
    ):
        raise SettingsError(
            f"--base-url: {base_url!r} must be a URL without password, ?, # and spaces, as paths "
            "follow it in every link"
        )
    if parts.scheme == "file":  # file:/mnt is the same (RFC 8089, appendix B)
        return f"{_LOCAL}{parts.netloc}{parts.path.rstrip('/')}"
    return base_url.rstrip("/")

"""Paths as links: whatever bytes a path holds, its link is a valid URI reference.

References: RFC 3986, sections 2 (characters) and 4.2 (relative references).
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote, urlsplit

from rastermeta_async.errors import SettingsError
from rastermeta_async.urls import is_url

_IN_A_PATH = "/!$&'()*+,;=@~"
"""What stays as it is in a path; a colon does not, as a name before one looks like a scheme."""

_IN_A_URL = "/!$&'()*+,;=@~:?#[]%"
_IN_A_KEY = "/!$&'()*+,;=@~:#?%"
"""Keys of object stores are never unquoted: what can stay stays."""

_STORES = ("s3://", "gs://", "az://")


class Hrefs:
    """Turns paths into links.

    Args:
        base_url: where local paths are found; None: the paths themselves are the links.

    Raises:
        SettingsError: it is no URL that a path can follow.
    """

    def __init__(self, base_url: str | None = None) -> None:
        self._base = None if base_url is None else _checked(base_url)

    def of(self, path: bytes) -> str:
        """Return the link to a path, quoted where that is needed."""
        if is_url(path):
            store = path.startswith(tuple(map(str.encode, _STORES)))
            return quote(path, safe=_IN_A_KEY if store else _IN_A_URL)
        if self._base is None:
            return quote(re.sub(rb"^//+", b"/", path), safe=_IN_A_PATH)
        relative = posixpath.normpath(path).lstrip(b"/")
        while relative.startswith(b"../"):  # nothing is above the base
            relative = relative[3:]
        safe = _IN_A_KEY if self._base.startswith(_STORES) else _IN_A_PATH
        return f"{self._base}/{quote(relative, safe=safe)}"


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
    return base_url.rstrip("/")

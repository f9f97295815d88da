"""Archives whose members are rows, and GDAL's names of members and subdatasets.

Reference: GDAL, "Virtual File Systems", /vsizip/, /vsitar/ and /vsigzip/.
"""

from __future__ import annotations

import re
from typing import Self

from rastermeta_async.model.urls import is_url
from rastermeta_async.stores.credentials import gdal_name

ZIP, TAR, TGZ, GZ = "zip", "tar", "tgz", "gz"

KINDS = {b".zip": ZIP, b".tar": TAR, b".tar.gz": TGZ, b".tgz": TGZ, b".gz": GZ}
"""Kinds of archives, by the ending of their names in lower case; the longest ending counts."""

_LONGEST = max(map(len, KINDS))
_PREFIXES = {ZIP: "/vsizip/", TAR: "/vsitar/", TGZ: "/vsitar/"}


class MemberPath(bytes):
    """The path or URL of an archive, and a member in it that GDAL is to open."""

    member: str
    """Its name inside the archive."""

    def __new__(cls, path: bytes, member: str) -> Self:
        """Return the path of an archive with the name of a member."""
        made = super().__new__(cls, path)
        made.member = member
        return made


def kind_of(path: bytes) -> str | None:
    """Return the kind of an archive by the ending of its path or URL; None: it is no archive."""
    if is_url(path):
        path = path.partition(b"?")[0]
    end = path[-_LONGEST:].lower()
    return next((kind for ending, kind in KINDS.items() if end.endswith(ending)), None)


def endings_of(kinds: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the endings of the names of archives of some kinds."""
    return tuple(ending for ending, kind in KINDS.items() if kind in kinds)


def name_inside(path: str, member: str) -> str:
    """Return the name under which GDAL opens a member of an archive.

    Args:
        path: of the archive: a local path, or a URL.
        member: its name inside the archive.
    """
    outer = gdal_name(path) if is_url(path.encode("utf-8", "surrogateescape")) else path
    return name_in(outer, member, kind_of(path.encode("utf-8", "surrogateescape")))


def name_in(outer: str, member: str, kind: str | None) -> str:
    """Return the same for an archive of a kind, of which `outer` is the name that GDAL has."""
    prefix = _PREFIXES.get(kind or ZIP)
    if prefix is None:  # a single file, whose name inside GDAL does not ask for
        return f"/vsigzip/{outer}"
    if _is_balanced(outer):
        return f"{prefix}{{{outer}}}/{member}"
    return f"{prefix}{outer}/{member}"  # GDAL finds the end of the archive by its ending


def subdataset_at(name: str, path: str, other: str) -> str:
    """Return the name of a subdataset with another name of its container.

    Args:
        name: under which GDAL opens it: ``DRIVER:file:part``, with quotes or without.
        path: of the container, or of the archive that it is in.
        other: the same, e.g. as an absolute path. If `path` is not in the name, it stays.
    """
    found = re.match(rf'((?:\w+:)+?"?(?:/vsi\w+/\{{?)?)(?:\./)?{re.escape(path)}', name)
    return f"{found[1]}{other}{name[found.end() :]}" if found else name


def _is_balanced(name: str) -> bool:
    """Tell whether each brace in a name has its partner, as GDAL counts them."""
    depth = 0
    for letter in name:
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            return False
    return not depth

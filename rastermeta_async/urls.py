"""URLs of object stores among the paths: how they are told, and what may be shown of them."""

from __future__ import annotations

import re

SCHEMES = (b"s3://", b"gs://", b"az://", b"https://", b"http://")
"""How a path begins that is no local file."""

_SECRET = re.compile(
    r"^(?:x-(?:amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id"
    r"|sv|ss|srt|sp|se|st|spr|sig|sr|si|skoid|sktid|skt|ske|sks|skv"
    r"|.*token|api_?key|key|auth|password|secret)$",
    re.IGNORECASE,
)
"""Parameters that sign a URL, or are signed with it: S3 and Google (version 2 and 4), Azure's
shared access signatures, CloudFront, and the names that others mostly use."""

_QUERY = re.compile(r"\?[^\s'\"<>)]*")
_HELD = re.compile(r"(?<=://)[^/\s'\"@?]+@")


def is_url(path: bytes) -> bool:
    """Whether a path is in an object store."""
    return path.startswith(SCHEMES)


def is_prefix(path: str) -> bool:
    """Whether a URL names a bucket, or all objects below a prefix."""
    rest = path.partition("://")[2]
    return is_url(path.encode("utf-8", "surrogateescape")) and (
        path.endswith("/") or ("/" not in rest and not path.startswith("http"))
    )


def without_secrets(url: bytes) -> bytes:
    """Return a path as it may be kept: a signed URL without signature, password and expiry.

    So it stays the same path when it is signed anew.
    """
    if not url.startswith((b"http://", b"https://")) or not (b"?" in url or b"@" in url):
        return url
    text = url.decode("utf-8", "surrogateescape")
    address, _, query = text.partition("?")
    kept = [item for item in query.split("&") if item and not _SECRET.match(item.partition("=")[0])]
    shown = _HELD.sub("", address) + ("?" + "&".join(kept) if kept else "")
    return shown.encode("utf-8", "surrogateescape")


def redacted(message: str) -> str:
    """Return a library's message without what URLs in it may give away."""
    return _QUERY.sub("", _HELD.sub("", message))

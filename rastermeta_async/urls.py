"""URLs of object stores among the paths: how they are told, and what may be shown of them."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Self
from urllib.parse import quote, unquote_to_bytes, urlsplit

from rastermeta_async.errors import SettingsError, StoreError

SCHEMES = (b"s3://", b"gs://", b"az://", b"https://", b"http://")
"""How a path begins that is no local file."""

LOCAL_SCHEME = "file"
_LOCAL = re.compile(rb"file:(?://(?:localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)
"""How the URL of a file on this machine begins (RFC 8089, section 2 and appendix B)."""

_SIGNING = re.compile(
    r"^(?:x-(?:amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id"
    r"|sv|ss|srt|sp|se|st|spr|sig|sr|si|skoid|sktid|skt|ske|sks|skv)$",
    re.IGNORECASE,
)
"""Parameters that sign a URL, or are signed with it: S3 and Google (version 2 and 4), Azure's
shared access signatures, CloudFront."""

_SIGNED = re.compile(r"(?:^|[?&])(?:x-(?:amz|goog)-[^=&]*|signature|sig)=", re.IGNORECASE)
_SECRET = re.compile(
    r"^(?:(?:api|subscription)[_-]?key|auth|pass(?:word)?|pwd|(?:.*[_-])?secret|hmac|hdne[as]|hdnts)$",
    re.IGNORECASE,
)
"""Parameters that are nothing but a secret; the last ones are Akamai's."""

_TELLING = re.compile(r"^.*(?:token|key)$", re.IGNORECASE)
"""Parameters that may be a secret, and may be all that tells one file from another."""

_LONE_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")
_QUERY = re.compile(r"\?[^\s'\"<>)]*")
_HELD = re.compile(r"(?<=://)[^/\s'\"?#]+@")
_HTTP = re.compile(rb"(?:/vsi\w+/)*(?!(?:s3|gs|az)://)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
"""How a path begins that may hold secrets: also where it is none that can be read, for want of a
lower-case scheme, with another scheme (``ftp://``), or as GDAL names it."""

_GIVEN = re.compile(
    r"((?:SECRET_ACCESS_KEY|SESSION_TOKEN|STORAGE_ACCESS_KEY|SAS_TOKEN|CONNECTION_STRING"
    r"|AccountKey|SharedAccessSignature)['\"]?\s*[:=]\s*['\"]?)[^;'\"\s]+"
)
"""Configuration with its value, as libraries print it."""


class Listed(bytes):
    """The URL of an object, with what the listing says of it."""

    size: int
    etag: str | None

    @classmethod
    def of(cls, url: str, size: int, etag: str | None) -> Self:
        """Return a URL with its object's bytes and entity tag."""
        path = cls(url.encode())
        path.size, path.etag = size, etag
        return path


def is_url(path: bytes) -> bool:
    """Whether a path is in an object store."""
    return path.startswith(SCHEMES)


def local_path(path: bytes) -> bytes:
    """Return the local path that a ``file:`` URL names; any other path as it is."""
    if path[:5].lower() == b"file:" and (found := _LOCAL.match(path)):
        return unquote_to_bytes(path[found.end() :])
    return path


def is_prefix(path: str) -> bool:
    """Whether a URL names a bucket, or all objects below a prefix."""
    rest = path.partition("://")[2]
    return is_url(path.encode("utf-8", "surrogateescape")) and (
        path.endswith("/") or ("/" not in rest and not path.startswith("http"))
    )


def local_name(output: str) -> str:
    """Return the file that an output is made in; that of a URL is in the current folder.

    Raises:
        SettingsError: nothing can be uploaded there.
    """
    if not is_url(os.fsencode(output)):
        return output
    name = output.rpartition("/")[2]
    if output.startswith("http") or not name:
        raise SettingsError(
            f"{shown_url(output)}: a catalog can be uploaded to a file in s3://, gs:// or az:// "
            "only"
        )
    return name


def parts_of(url: str) -> tuple[str, str, str]:
    """Return scheme, host (or bucket) and path; keys of buckets are taken as they are.

    Raises:
        StoreError: there is no bucket in it.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("http", "https"):
        try:
            split = urlsplit(url)
        except ValueError:
            raise StoreError(f"{shown_url(url)}: this is no URL") from None
        return scheme, split.netloc, split.path.lstrip("/")
    host, _, key = rest.partition("/")
    if not host:
        raise StoreError(f"{url}: there is no bucket in this URL")
    return scheme, host, key


def requested(url: str) -> str:
    """Return a URL of a web server as it is asked for: what none may hold is percent-encoded.

    That is spaces, control characters, quotes, letters beyond ASCII (RFC 3986, section 2), and a
    percent sign that begins no escape; whatever else is taken as meant.
    """
    return quote(_LONE_PERCENT.sub("%25", url), safe="%:/?#[]@!$&'()*+,;=")


def without_secrets(url: bytes) -> bytes:
    """Return a path as it may be kept: a signed URL without signature, password and expiry.

    So it stays the same path when it is signed anew. Of a parameter that may be all that tells
    two files apart a fingerprint stays.
    """
    if b"://" not in url or not _HTTP.match(url):
        return url
    text, hash_sign, fragment = url.decode("utf-8", "surrogateescape").partition("#")
    address, mark, query = text.partition("?")
    signed = _SIGNED.search(f"{query}&{fragment}") is not None
    shown = _HELD.sub("", address)
    for sign, items in ((mark, query), (hash_sign, fragment)):
        kept = "&".join(filter(None, (_kept(item, signed) for item in items.split("&"))))
        shown += sign + kept if kept else ""
    return shown.encode("utf-8", "surrogateescape")


def _kept(item: str, signed: bool) -> str:
    """Return what is kept of one parameter of a query."""
    name, _, value = item.partition("=")
    if _SECRET.match(name) or (signed and _SIGNING.match(name)):
        return ""
    if _TELLING.match(name) and not value.startswith("~"):  # else it is shown already
        digest = hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=6)
        return f"{name}=~{digest.hexdigest()}"
    return item


def shown_url(url: str) -> str:
    """Return a URL as it may be shown."""
    return without_secrets(url.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")


def redacted(message: str) -> str:
    """Return a library's message without what URLs and settings in it may give away."""
    return _GIVEN.sub(r"\1...", _QUERY.sub("", _HELD.sub("", message)))

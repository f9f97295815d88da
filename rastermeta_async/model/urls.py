"""Recognise URLs of object stores among the paths, and remove secrets from URLs and messages."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from functools import partial
from typing import Self
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from rastermeta_async.model.errors import SettingsError, StoreError

SCHEMES = (b"s3://", b"gs://", b"az://", b"https://", b"http://")
"""Beginnings of paths that are objects, not local files."""

LOCAL_SCHEME = "file"
_LOCAL = re.compile(rb"file:(?://(?:localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)
"""Beginning of the URL of a file on this machine (RFC 8089, section 2 and appendix B)."""

_HARMLESS = re.compile(
    r"alt|amp|area|assets?|bands?|bbox(?:sr)?|bidx|bounds|collections?|column|comp|coverages?"
    r"|coverageid|crs|dataset|date(?:time)?|day|dl|download|dt|end|export|ext(?:ent)?|f|file(?:name)?"
    r"|fmt|format|from|height|id|identifier|ids|image(?:sr)?|items?|lang|lat|layers?|level|lon|month"
    r"|name|outputformat|overview|page|part|path|product|projection|raw|request|res(?:olution)?"
    r"|response-(?:cache-control|content-(?:disposition|encoding|language|type)|expires)|restype"
    r"|rev(?:ision)?|row|scale|scene|service|size|snapshot|srs(?:name)?|start|styles?|subset|suffix"
    r"|tile(?:col|row|matrix|matrixset)?|time|to|transparent|type|url|v|var(?:iable)?|ver(?:sions?)?"
    r"|versionid|width|x|x-id|xml|y|year|z|zoom"
)
"""Parameters that select data: by name, place, time or format. Their values are no secrets."""

_SIGNED = re.compile(r"x-(?:amz|goog)-.*|.*signature|sig")
_SIGNING = re.compile(
    r"awsaccesskeyid|googleaccessid|expires|policy|key-pair-id"
    r"|sv|ss|srt|sp|se|st|spr|sr|si|skoid|sktid|skt|ske|sks|skv"
)
"""Parameters of signed URLs: S3 and Google (version 2 and 4), Azure's shared access signatures,
CloudFront."""

_SECRET = re.compile(
    r".*(?:secret|passw(?:or)?d|passphrase|credentials?|authori[sz]ation|sess(?:ion)?[_-]?id)"
    r"|(?:.*[._-])?(?:(?:api|subscription)[_-]?key|auth|cookie|hdne[as]|hdnts|hmac|jwt|pass|pwd"
    r"|session|userpwd)"
)
"""Parameters that are always secrets; ``hdn…`` are Akamai's."""

_TELLING = re.compile(r".*(?:token|key)")
"""Parameters that may be a secret, or the only difference between two files."""

_FINGERPRINT_BYTES = 12
_FINGERPRINT = re.compile(r"~(?:[0-9a-f]{12}|[0-9a-f]{24})[.:]*")
"""A fingerprint in place of a hidden value; catalogs of earlier versions have the short form."""

_FILE_NAME = re.compile(r".*\.[A-Za-z]\w{1,4}")
_LONE_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")

_SCHEME = r"(?<![a-z0-9+.-])(?:[a-z][a-z0-9+.-]*://|(?:https?|s3|gs|az):/)"
"""A scheme with a single slash is a typing error, but secrets may follow it, too."""
_VSI = r"/vsi(?:7z|adls|az|crypt|curl|gs|gzip|hdfs|oss|rar|s3|sparse|subfile|swift|tar|webhdfs|zip)"
_VSI += r"(?:_streaming)?[/?]"
_FOREIGN = re.compile(
    rf"[\s'\"\ufeff]*+(?:(?={_VSI}|{_SCHEME})|(?![./])(.*?)(?={_SCHEME}))",
    re.IGNORECASE | re.DOTALL,
)
"""Text before a URL, or before a GDAL name, in a path that is not a local file. Such a path may be
unreadable, for example with blanks before the URL, or with ``ftp://``."""

_SUSPICIOUS = re.compile(
    r"[?#@%=]|bearer|(?:[_-]\w+|account\w+|passw\w+|signature|authorization|cookie)['\"]?\s*:",
    re.IGNORECASE,
)
"""Every path or text with a secret contains a match of this."""

_PLAIN_OBJECT = re.compile(rb"(?:s3|gs|az|https?)://[^?#@%=:]*+")
"""A match without "bearer" in it has no secret; this test is ten times as fast."""

_BUCKET = re.compile(r"(?:s3|gs|az)://")
_ENCODED = re.compile(r"%(?:25){0,3}(?:23|26|3b|3f|40)", re.IGNORECASE)
"""One of ``#&;?@``, percent-encoded once or more, in a URL or a part of one inside a URL. Libraries
differ in which other characters they encode there."""

_MAX_DEPTH = 3
"""Number of encodings after the first that are decoded."""

_PIECE = re.compile(r"(?<=[?&;#])[^?&;#\s'\"<>]+|[^/?&;#\s'\"<>]+")
"""A part of a URL that may hold another URL: a parameter, or a component of the path."""

_USER = re.compile(
    r"(?:(?<=://)|(?<=[ps3z]:/)(?!/))(?:[^/\s'\"?#]*@|(?!\[)[^/@:\s'\"]{1,256}:(?!\d*(?:[/?#]|$))[^@\s'\"]{0,256}@)"
)
"""User and password in a URL; a password may hold forbidden characters, as S3 keys do."""

_OF_PATH = re.compile(r"(;)([^;/?#=]+=[^;/]*)")
_OF_QUERY = re.compile(r"([?&;#])([^?&;#]*)")

_IN_TEXT = rf"(?:{_VSI})*{_SCHEME}[^\s'\"<>`]*[^\s'\"<>`.,:;)\]}}]|{_VSI}[^\s'\"<>`]*"
_URL = re.compile(_IN_TEXT, re.IGNORECASE)
_URL_OR_PART = re.compile(
    rf"{_IN_TEXT}|(?<![^\s'\"<>`])[^\s'\"<>`?&]*[?&][^\s'\"<>`]*", re.IGNORECASE
)
_HEADER = re.compile(
    r"((?:proxy-)?authorization['\"]?\s*[:=]\s*['\"]?|(?:set-)?cookie['\"]?:\s*['\"]?"
    r"|\bbearer\s+(?=\S*\d))[^'\"\r\n]+",
    re.IGNORECASE,
)
_SETTING = re.compile(r"(?<![\w/%.-])([\w%.-]+)(['\"]?\s*[:=]\s*['\"]?)(?!//)([^\s&;,'\"<>)}\]]+)")
"""A setting with its value, as libraries print it."""

_SECRET_SETTING = re.compile(
    r"accountkey|sharedaccesssignature|.*connection_string|.*[_-](?:key|token)"
)


class FoundPath(bytes):
    """A path that was found, in a folder, a store or a list: if it is no raster, that is no error.

    Any other path was named by somebody who means it to be a raster.
    """

    __slots__ = ()


class Listed(FoundPath):
    """The URL of an object, with its size and entity tag from the listing."""

    size: int
    etag: str | None

    @classmethod
    def of(cls, url: str, size: int, etag: str | None) -> Self:
        """Return a URL with its object's size in bytes and entity tag."""
        path = cls(url.encode())
        path.size, path.etag = size, etag
        return path


def is_url(path: bytes) -> bool:
    """Tell whether a path is in an object store."""
    return path.startswith(SCHEMES)


def without_query(path: bytes) -> bytes:
    """Return the URL of a web server without its parameters; any other path unchanged."""
    return path.partition(b"?")[0] if path.startswith(b"http") else path


def local_path(path: bytes) -> bytes:
    """Return the local path that a ``file:`` URL names; any other path unchanged."""
    if path[:5].lower() == b"file:" and (found := _LOCAL.match(path)):
        return type(path)(unquote_to_bytes(path[found.end() :]))
    return path


def is_prefix(path: str) -> bool:
    """Tell whether a URL names a bucket, or all objects below a prefix."""
    rest = path.partition("://")[2]
    return is_url(path.encode("utf-8", "surrogateescape")) and (
        path.endswith("/") or ("/" not in rest and not path.startswith("http"))
    )


def local_name(output: str) -> str:
    """Return the local file for an output; for a URL it is in the current folder.

    Raises:
        SettingsError: the program cannot upload a file to this URL.
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
    """Return scheme, host (or bucket) and path; the key in a bucket stays unchanged.

    Raises:
        StoreError: it is malformed, or has no bucket.
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
        raise StoreError(f"{shown_url(url)}: there is no bucket in this URL")
    return scheme, host, key


def requested(url: str) -> str:
    """Return a web server's URL for a request: characters that no URL may have are percent-encoded.

    These are spaces, control characters, quotes, non-ASCII letters (RFC 3986, section 2), and a
    percent sign that begins no escape; everything else stays unchanged.
    """
    return quote(_LONE_PERCENT.sub("%25", url), safe="%:/?#[]@!$&'()*+,;=")


def without_secrets(path: bytes) -> bytes:
    """Return a path without secrets: a URL without user, signature, password and expiry.

    So it stays the same path when it is signed again. Parameters known as harmless keep their
    values. Any other value becomes a fingerprint, as it may be the only difference between two
    files. In a bucket, parameters are part of the key: there only values that look like secrets
    become fingerprints. A local path is returned unchanged.
    """
    if b":/" not in path and b"/vsi" not in path:  # nearly all
        return path
    if _PLAIN_OBJECT.fullmatch(path) and b"bearer" not in path.lower():  # nearly all objects
        return path
    text = path.decode("utf-8", "surrogateescape")
    if not _SUSPICIOUS.search(text):
        return path
    if (before := _FOREIGN.match(text)) is None:
        return path
    start = before.end()
    shown = text[:start] + _shown(text[start:], is_url=not before[1])
    return shown.encode("utf-8", "surrogateescape")


def all_without_secrets(paths: Sequence[bytes]) -> Sequence[bytes]:
    """Return paths without secrets; see `without_secrets`."""
    text = b"\n".join(paths)  # one look at all is far faster than one at each
    if b":/" not in text and b"/vsi" not in text:
        return paths
    return list(map(without_secrets, paths))


def shown_url(url: str) -> str:
    """Return a URL for a message, without secrets."""
    return without_secrets(url.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")


def redacted(text: str, own: str = "", *, remote: bool = False) -> str:
    """Return a text without the secrets of URLs and settings in it.

    Args:
        text: a message from any source.
        own: the local path that the message is about; it stays unchanged.
        remote: whether the message is about an object: then ``a?b=c`` is a part of a URL.
    """
    if own and _redacted(own, remote) != own:
        return own.join(_redacted(piece, remote) for piece in text.split(own))
    return _redacted(text, remote)


def _redacted(text: str, remote: bool) -> str:
    if not _SUSPICIOUS.search(text):  # nearly all
        return text
    urls = _URL_OR_PART if remote else _URL
    text = urls.sub(lambda found: _shown(found[0]), _PIECE.sub(_decoded_and_shown, text))
    return _SETTING.sub(_setting, _HEADER.sub(r"\1...", _USER.sub("", text)))


def _setting(found: re.Match[str]) -> str:
    """Return a setting with its value, or with dots in place of a secret value."""
    name, sign, value = _plain(found[1]), found[2], found[3]
    in_url = found.string.endswith(("?", "&", ";", "#"), 0, found.start())
    secret = _is_secret(name) or _SECRET_SETTING.fullmatch(name)
    if ":" in sign and not re.search("[_-]|account|passw|signature", name):
        secret = None  # this is a sentence, not a setting
    telling = secret or (in_url and _TELLING.fullmatch(name))
    return f"{found[1]}{sign}..." if telling and not _FINGERPRINT.fullmatch(value) else found[0]


def _shown(url: str, *, is_url: bool = True, in_key: bool = False, depth: int = 0) -> str:
    """Return a URL, from its scheme on, without secrets.

    Args:
        url: the whole URL, or a part.
        is_url: whether it ends with the path; then secrets are removed. Else they become
            fingerprints, as the text after them may distinguish files.
        in_key: whether it is a part of a key or of a file name, where a text like ``a=b`` need not
            be a parameter.
        depth: number of URLs around it, one inside the other.
    """
    if depth <= _MAX_DEPTH:
        url = _PIECE.sub(partial(_decoded_and_shown, depth=depth), url)
    url = _USER.sub("", url)
    address = re.split(r"[?#]" if "://" in url else r"[?#&]", url, maxsplit=1)[0]
    query = url[len(address) :]
    items = [*_OF_PATH.findall(address), *_OF_QUERY.findall(query)]
    if not items:
        return url
    names = {_plain(item.partition("=")[0]) for _, item in items}
    signed = any(map(_SIGNED.fullmatch, names))
    in_bucket = in_key or _BUCKET.match(url) is not None
    is_packed = url.startswith("/vsi")

    def kept(item: str) -> str | None:
        may_go = is_url and not in_bucket and not (is_packed and re.search("[/}]", item))
        return _kept(item, signed=signed, in_bucket=in_bucket, may_go=may_go)

    shown = _OF_PATH.sub(lambda found: _joined(found[1], kept(found[2])), address)
    mark = ""
    for sign, item in _OF_QUERY.findall(query):
        mark = sign if sign in "?#" else mark
        left = kept(item) if item else item
        if left is not None:
            shown += (mark or sign) + left
            mark = ""
    return shown


def _joined(sign: str, item: str | None) -> str:
    return "" if item is None else sign + item


def _kept(item: str, *, signed: bool, in_bucket: bool, may_go: bool) -> str | None:
    """Return one parameter without its secret; None: remove all of it."""
    name, equals, value = item.partition("=")
    if not value.strip("="):  # a value without a name
        name, equals, value = "", "", item
    if _FINGERPRINT.fullmatch(value):
        return item
    word = _plain(name or value)
    secret = name and (_is_secret(word) or (signed and _SIGNING.fullmatch(word)))
    if secret and may_go:
        return None
    if in_bucket:
        harmless = not name or not _TELLING.fullmatch(word)
    else:
        harmless = bool(_HARMLESS.fullmatch(word) or (not name and _FILE_NAME.fullmatch(value)))
    if harmless and not secret:
        return item
    digest = hashlib.blake2b(
        value.encode("utf-8", "surrogateescape"), digest_size=_FINGERPRINT_BYTES
    )
    return f"{name}{equals}~{digest.hexdigest()}"


def _plain(name: str) -> str:
    """Return the name of a parameter or setting, decoded and in lower case."""
    return unquote(name).strip().lower()


def _is_secret(name: str) -> bool:
    return (_SECRET.fullmatch(name) or _SIGNED.fullmatch(name)) is not None


def _decoded_and_shown(piece: re.Match[str], depth: int = 0) -> str:
    """Return a piece of a URL, without the secrets of a percent-encoded URL in it."""
    if not (found := _ENCODED.search(piece[0])):
        return piece[0]
    name, equals, value = (
        piece[0].partition("=") if "=" in piece[0][: found.start()] else ("", "", piece[0])
    )
    inner = unquote(value, "utf-8", "surrogateescape")
    is_url = "://" in inner
    if not is_url and ("=" not in inner or _BUCKET.match(piece.string)):
        return piece[0]  # a name with odd characters
    in_key = not (is_url or name)
    shown = _shown(inner, is_url=is_url, in_key=in_key, depth=depth + 1)
    return (
        piece[0]
        if shown == inner
        else f"{name}{equals}{quote(shown, '', 'utf-8', 'surrogateescape')}"
    )

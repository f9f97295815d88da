"""Object stores: finds the store and key of a URL, lists objects, uploads catalogs.

obstore does the work; it is imported when the first URL is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import unquote

from rastermeta_async.model.errors import MissingExtraError, RastermetaError, StoreError
from rastermeta_async.model.raster_folders import ListedStores
from rastermeta_async.model.settings import Access
from rastermeta_async.model.urls import (
    FoundPath,
    Listed,
    parts_of,
    redacted,
    requested,
    shown_url,
)
from rastermeta_async.stores.credentials import CONNECT_SECONDS, endpoint_of, for_obstore
from rastermeta_async.stores.problems import first_line, problem_of
from rastermeta_async.stores.raw_keys import Key, ObjectBytes, S3Bucket, is_odd

MAX_STORES = 64
"""Most buckets and hosts whose connections are kept."""

PAGE = 1000
"""Objects in a page of a listing, the most that S3 returns (ListObjectsV2)."""

RETRIES = 8
"""Retries of a request for a page of a listing, or for a part of a catalog in an upload."""

ONE_REQUEST_BYTES = 60 * 1024 * 1024
"""Largest catalog that is uploaded in one request, and held in memory meanwhile. The parts of a
larger one take as much memory, and obstore can set no condition for an upload in parts."""

_PIECE_BYTES = 5 * 1024 * 1024
_RETRY_SECONDS = 120
_ODD = "s3 by boto3"
_LOST = "\ufffd"
"""What `unquote` makes of bytes that are not UTF-8."""


class Located(NamedTuple):
    """Where an object is."""

    store: Any
    """An ``obstore`` store, or an `S3Bucket` for odd keys."""
    key: str

    def get(self, start: int, end: int) -> ObjectBytes:
        """Return bytes of the object; errors are those of obstore or boto3, see `problem_of`."""
        if isinstance(self.store, S3Bucket):
            return self.store.get(self.key, start, end)
        import obstore

        found = obstore.get(self.store, self.key, options={"range": (start, end)})
        content, meta = bytes(found.bytes()), found.meta
        return ObjectBytes(content, meta["size"], meta["last_modified"], meta["e_tag"])


class Found(NamedTuple):
    """What a store says of an object."""

    size: int
    """Bytes."""
    etag: str | None
    version: str | None = None
    """None: the store has no versions. GCS takes only a version as a condition."""

    @property
    def condition(self) -> dict[str, str]:
        """What a store compares, at obstore's request, before it replaces an object."""
        known = {"e_tag": self.etag, "version": self.version}
        return {name: value for name, value in known.items() if value is not None}


class Replaced(Exception):  # noqa: N818  # it is always caught
    """The object at a URL is not the one that may be replaced."""


class Stores:
    """The stores that a run reads from, lists or writes to; any thread may call `locate`.

    Args:
        access: how they are reached.
        timeout: seconds for one request.
        retries: of one request, by obstore itself.
    """

    def __init__(self, access: Access, timeout: float = 30.0, retries: int = 0) -> None:
        self._access = access
        self._timeout = timeout
        self._retries = retries
        self._stores: OrderedDict[str, Any] = OrderedDict()
        self._lock = Lock()

    def locate(self, url: str) -> Located:
        """Return the store and key of a URL.

        Raises:
            MissingExtraError: obstore is not installed.
            StoreError: the store cannot be set up.
        """
        if url.startswith("http"):
            url = requested(url)
        scheme, host, path = parts_of(url)
        if scheme in ("http", "https"):
            name = unquote(path)
            if "?" in url or "@" in host or "%2f" in path.lower() or is_odd(name) or _LOST in name:
                # Decoding and encoding it again would give another URL.
                return Located(self._new(scheme, url), "")
            return Located(self._kept(scheme, f"{scheme}://{host}/"), name)
        if not is_odd(path):
            return Located(self._kept(scheme, host), path)
        if scheme != "s3":
            raise StoreError(
                "a key with a control character, or with an empty, . or .. step, is read in s3:// "
                "only: copy the object"
            )
        return Located(self._kept(_ODD, host), path)

    def _kept(self, scheme: str, name: str) -> Any:
        key = f"{scheme} {name}"
        with self._lock:
            if key not in self._stores:
                if len(self._stores) >= MAX_STORES:
                    self._stores.popitem(last=False)
                self._stores[key] = self._new(scheme, name)
            self._stores.move_to_end(key)
            return self._stores[key]

    def _new(self, scheme: str, name: str) -> Any:
        try:
            from obstore import store
        except ImportError:
            raise MissingExtraError(
                f"{scheme}:// paths need the extra cloud, in a clone: pip install '.[cloud]'"
            ) from None
        cloud = scheme.partition(" ")[0]
        endpoint = name if cloud in ("http", "https") else endpoint_of(cloud, self._access)
        common: dict[str, Any] = {
            "client_options": {
                "timeout": dt.timedelta(seconds=self._timeout),
                "connect_timeout": dt.timedelta(seconds=min(CONNECT_SECONDS, self._timeout)),
                "allow_http": (endpoint or "").startswith("http://"),
                "user_agent": "rastermeta-async",
            },
            "retry_config": {
                "max_retries": self._retries,
                "retry_timeout": dt.timedelta(seconds=_RETRY_SECONDS),
            },
        }
        try:
            if scheme == _ODD:
                return S3Bucket(name, self._access, self._timeout, self._retries)
            if scheme in ("http", "https"):
                return store.HTTPStore.from_url(name, **common)
            kinds = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}
            return kinds[scheme](name, **for_obstore(scheme, self._access), **common)
        except (StoreError, MissingExtraError):
            raise
        except Exception as error:
            said = redacted(first_line(error), remote=True)
            raise StoreError(f"{shown_url(name)}: this store cannot be set up: {said}") from error

    async def walk(
        self, url: str, suffixes: tuple[str, ...] = ()
    ) -> AsyncIterator[list[FoundPath]]:
        """Yield all objects below a prefix, a page at a time; a Zarr store is yielded like one.

        Raises:
            StoreError: the store cannot be listed.
        """
        scheme, host, prefix = parts_of(url)
        if scheme in ("http", "https"):
            raise StoreError(f"{shown_url(url)}: a web server cannot be listed: pipe the URLs in")
        store = self._kept(scheme, host)
        import obstore

        last = ""
        listed = partial(_listed, f"{scheme}://{host}/", suffixes, ListedStores())
        try:
            async for page in obstore.list(store, prefix, chunk_size=PAGE):
                keys = [Key(found["path"], found["size"], found["e_tag"]) for found in page]
                last = keys[-1].name
                yield listed(keys)
        except Exception as error:
            if not (scheme == "s3" and "invalid path" in str(error)):
                raise _not_listed(url, error) from error
        else:
            return
        try:  # there is an odd key among the next ones
            bucket: S3Bucket = self._kept(_ODD, host)
            pages = bucket.pages(prefix, last)
            # An empty page need not be the last, as some servers cut a listing short.
            while (more := await asyncio.to_thread(lambda: next(pages, None))) is not None:
                yield listed(more)
        except Exception as error:
            raise _not_listed(url, error) from error

    def place(self, url: str) -> Located:
        """Return the store and key that a file is to be uploaded to.

        Raises:
            MissingExtraError, StoreError: as for `locate`; also if no upload is possible there.
        """
        located = self.locate(url)
        if isinstance(located.store, S3Bucket):
            raise StoreError(
                f"{url}: no catalog can be uploaded under a key with an empty, . or .. step, or "
                "with a control character: give another -o"
            )
        return located

    async def look(self, url: str) -> Found | None:
        """Return what a store says of an object; None: there is none.

        Raises:
            StoreError: the store does not tell.
        """
        store, key = self.place(url)
        import obstore

        try:
            meta = await obstore.head_async(store, key)
        except Exception as error:
            problem = problem_of(error)
            if problem.kind in ("NotFound", "NoBucket"):  # the upload reports a NoBucket
                return None
            raise StoreError(
                f"{url}: it cannot be told whether a catalog stands there: {problem.message}"
            ) from error
        return Found(meta["size"], meta["e_tag"], meta["version"])

    async def content(self, url: str) -> AsyncIterator[bytes]:
        """Yield all bytes of an object.

        Raises:
            StoreError: the object cannot be read.
        """
        store, key = self.locate(url)
        import obstore

        try:
            async for some in (await obstore.get_async(store, key)).stream():
                yield some
        except Exception as error:
            why = problem_of(error).message
            raise StoreError(f"{shown_url(url)}: cannot be read: {why}") from error

    async def upload(
        self, file: str, url: str, stood: Found | None, *, regardless: bool = False
    ) -> str | None:
        """Copy a local file to a URL; return the entity tag that it has there.

        By a condition, the store itself makes sure that nothing else is replaced. It cannot if
        the file has more than `ONE_REQUEST_BYTES`, or if it knows no conditions. Then it is asked
        for the present object after the whole file is sent, right before the upload completes.

        Args:
            file: the file.
            url: the destination.
            stood: the object that may be replaced; None: there must be none.
            regardless: whether any object may be replaced.

        Raises:
            Replaced: there is another object.
            StoreError: the upload fails; an object that stood there before still does.
        """
        try:
            store, key = self.place(url)
            size = os.stat(file).st_size
            if size <= ONE_REQUEST_BYTES:
                condition = "create" if stood is None else stood.condition
                with contextlib.suppress(_NoConditionsError):
                    return await _put(store, key, file, "overwrite" if regardless else condition)
            await self._send(store, key, file, url, None if regardless else (stood,))
            with contextlib.suppress(StoreError):  # otherwise its content identifies it
                there = await self.look(url)
                return there.etag if there and there.size == size else None
            return None
        except Replaced:
            raise
        except Exception as error:
            why = str(error) if isinstance(error, RastermetaError) else problem_of(error).message
            raise StoreError(
                f"{url}: the catalog cannot be uploaded: {why}. It is complete in {file}; mend "
                "that, then run the same command again to upload it."
            ) from error

    async def _send(
        self, store: Any, key: str, file: str, url: str, stood: tuple[Found | None] | None
    ) -> None:
        """Send a file in parts; the store drops them if another object stands there by then."""
        import obstore

        with open(file, "rb") as content:  # noqa: ASYNC230  # read in threads
            async with obstore.open_writer_async(store, key) as out:
                while some := await asyncio.to_thread(content.read, _PIECE_BYTES):
                    await out.write(some)
                if stood is not None and await self.look(url) != stood[0]:
                    raise Replaced


class _NoConditionsError(Exception):
    """A store does not support conditions on the object that is replaced."""


async def _put(store: Any, key: str, file: str, mode: Any) -> str | None:
    """Copy a local file to a store in one request; return its entity tag there."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    with open(file, "rb") as content:  # noqa: ASYNC230  # obstore reads it in its threads
        try:
            done = await obstore.put_async(store, key, content, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError) as error:
            raise Replaced from error
        except Exception as error:
            if problem_of(error).status == HTTPStatus.NOT_IMPLEMENTED:
                raise _NoConditionsError from error
            raise
    etag: str | None = done["e_tag"]
    return etag


def _listed(
    base: str, suffixes: tuple[str, ...], stores: ListedStores, keys: list[Key]
) -> list[FoundPath]:
    """Return the URLs of objects, and of the Zarr stores that the others lie in."""
    found: list[FoundPath] = []
    for key in keys:
        store = stores.store_of(key.name)
        if not (store or key.name).lower().endswith(suffixes or ""):
            continue
        if store is None:
            if not _is_folder(key):
                found.append(Listed.of(base + key.name, key.size, key.etag))
        elif stores.is_next(store):
            found.append(FoundPath(f"{base}{store}".encode()))
    return found


def _is_folder(key: Key) -> bool:
    """Whether an object is only a marker of a folder, as consoles make it: empty, no ending."""
    return not key.size and "." not in key.name.rpartition("/")[2]


def _not_listed(url: str, error: Exception) -> StoreError:
    why = str(error) if isinstance(error, RastermetaError) else problem_of(error).message
    return StoreError(f"{url}: cannot be listed: {why}")

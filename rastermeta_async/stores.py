"""Object stores: which store and key a URL means, listings, and catalogs on their way there.

obstore, which does the work, is imported when the first URL turns up.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from rastermeta_async.config import Access
from rastermeta_async.credentials import endpoint_of, for_obstore
from rastermeta_async.errors import MissingExtraError, StoreError
from rastermeta_async.problems import first_line, problem_of
from rastermeta_async.urls import Listed, parts_of, redacted, shown_url
from rastermeta_async.vsi import CONNECT_SECONDS

MAX_STORES = 64
"""Buckets and hosts that connections are kept to."""

PAGE = 1000
"""Objects a page of a listing, the most that S3 returns (ListObjectsV2)."""

RETRIES = 8
"""Of a request for a page of a listing, or for a part of a catalog on its way."""

_RETRY_SECONDS = 120


class Located(NamedTuple):
    """Where an object is."""

    store: Any
    """An ``obstore`` store."""
    key: str


class Stores:
    """The stores that a run reads from, lists or writes to.

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

    def locate(self, url: str) -> Located:
        """Return the store and key of a URL.

        Raises:
            MissingExtraError: obstore is not installed.
            StoreError: the store cannot be set up.
        """
        scheme, host, path = parts_of(url)
        if scheme in ("http", "https"):
            if "?" in url or "@" in host or _is_odd(path):  # this is to be sent as it stands
                return Located(self._new(scheme, url), "")
            return Located(self._kept(scheme, f"{scheme}://{host}/"), unquote(path))
        return Located(self._kept(scheme, host), path)

    def _kept(self, scheme: str, name: str) -> Any:
        key = f"{scheme} {name}"
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
                f"{scheme}:// paths need the extra cloud: pip install 'rastermeta-async[cloud]'"
            ) from None
        endpoint = name if scheme in ("http", "https") else endpoint_of(scheme, self._access)
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
            if scheme in ("http", "https"):
                return store.HTTPStore.from_url(name, **common)
            kinds = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}
            return kinds[scheme](name, **for_obstore(scheme, self._access), **common)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(
                f"{shown_url(name)}: this store cannot be set up: {redacted(first_line(error))}"
            ) from error

    async def walk(self, url: str, suffixes: tuple[str, ...] = ()) -> AsyncIterator[list[Listed]]:
        """Yield all objects below a prefix, a page at a time.

        Raises:
            StoreError: the store does not let itself be listed.
        """
        scheme, host, prefix = parts_of(url)
        if scheme in ("http", "https"):
            raise StoreError(f"{shown_url(url)}: a web server cannot be listed: pipe the URLs in")
        store = self._kept(scheme, host)
        import obstore

        base = f"{scheme}://{host}/"
        try:
            async for page in obstore.list(store, prefix, chunk_size=PAGE):
                yield [
                    Listed.of(base + found["path"], found["size"], found["e_tag"])
                    for found in page
                    if found["path"].lower().endswith(suffixes or "") and not _is_folder(found)
                ]
        except Exception as error:
            problem = problem_of(error)
            raise StoreError(f"{url}: cannot be listed: {problem.message}") from error

    async def upload(self, file: str, url: str) -> None:
        """Copy a local file to a URL.

        Raises:
            StoreError: it does not get there; what stood there before still does.
        """
        try:
            store, key = self.locate(url)
            import obstore

            with open(file, "rb") as content:  # noqa: ASYNC230  # obstore reads it in its threads
                await obstore.put_async(store, key, content)
        except Exception as error:
            why = str(error) if isinstance(error, StoreError) else problem_of(error).message
            raise StoreError(
                f"{url}: the catalog cannot be uploaded: {why}. It is complete in {file}; mend "
                "that, then run the same command again to upload it."
            ) from error


def _is_folder(found: Any) -> bool:
    """Whether an object only stands for a folder, as consoles make them: empty, without ending."""
    return not found["size"] and "." not in found["path"].rpartition("/")[2]


def _is_odd(path: str) -> bool:
    """Whether a URL's path is another one when it is decoded and encoded again."""
    steps = path.split("/")
    return "%2f" in path.lower() or any(unquote(step) in ("", ".", "..") for step in steps)

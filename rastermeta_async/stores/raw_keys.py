"""Lists and reads keys of S3 that obstore cannot name, such as ``a//b``, with boto3.

For obstore a key is a path without control characters and without empty, ``.`` and ``..``
segments; for S3 it is any text.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from rastermeta_async.model.settings import Access
from rastermeta_async.stores.credentials import boto3_session, endpoint_of


class ObjectBytes(NamedTuple):
    """Some bytes of an object, and what the store says of it."""

    content: bytes
    size: int
    """Bytes of the object."""
    mtime: dt.datetime | None
    etag: str | None


class Key(NamedTuple):
    """An object in a listing."""

    name: str
    size: int
    etag: str | None


_ODD_STEPS = frozenset(["", ".", ".."])
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_odd(key: str) -> bool:
    """Whether obstore cannot name a key."""
    return not _ODD_STEPS.isdisjoint(key.split("/")) or _CONTROL.search(key) is not None


class S3Bucket:
    """A bucket that boto3 reads and lists; blocks, and several threads may use it.

    Args:
        name: of the bucket.
        access: how it is reached.
        timeout: seconds for one request.
        retries: of one request.
    """

    def __init__(self, name: str, access: Access, timeout: float, retries: int) -> None:
        session = boto3_session(access)
        from botocore import UNSIGNED
        from botocore.config import Config

        config = Config(
            signature_version=UNSIGNED if access.no_sign_request else None,
            connect_timeout=timeout,
            read_timeout=timeout,
            retries={"total_max_attempts": 1 + retries},
        )
        self._client: Any = session.client(
            "s3", region_name=access.region, endpoint_url=endpoint_of("s3", access), config=config
        )
        self._common: dict[str, str] = {"Bucket": name}
        if access.requester_pays:
            self._common["RequestPayer"] = "requester"

    def get(self, key: str, start: int, end: int) -> ObjectBytes:
        """Return bytes of an object.

        Raises:
            botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: the request fails.
        """
        found = self._client.get_object(**self._common, Key=key, Range=f"bytes={start}-{end - 1}")
        size = int(found["ContentRange"].rpartition("/")[2])
        return ObjectBytes(found["Body"].read(), size, found["LastModified"], found["ETag"])

    def pages(self, prefix: str, after: str) -> Iterator[list[Key]]:
        """Yield the keys below a prefix that come after `after`, in pages; errors as for `get`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            **self._common, Prefix=prefix, StartAfter=after
        )
        for page in pages:
            found = page.get("Contents", [])
            yield [Key(item["Key"], item["Size"], item["ETag"]) for item in found]

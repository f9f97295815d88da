"""Upload a finished catalog to its URL, where it replaces only an object that it may replace."""

from __future__ import annotations

import contextlib
from functools import partial

from rastermeta_async.catalog.digest import Digest
from rastermeta_async.catalog.output import Output
from rastermeta_async.model.errors import ForeignOutputError, StoreError
from rastermeta_async.model.settings import Access
from rastermeta_async.model.timeouts import to_the_end
from rastermeta_async.stores.clients import RETRIES, Found, Replaced, Stores

UPLOAD_SECONDS = 600.0
"""Timeout of a request with content: 60 MiB, or twelve parts of 5 MiB at once. At one megabit a
second it takes most of this time. `Settings.timeout` is for reading headers."""


class Upload:
    """Uploads one output to its URL.

    Args:
        output: open, with a URL; its log records which object may be replaced there.
        access: how the store is reached.
    """

    def __init__(self, output: Output, access: Access) -> None:
        self._output = output
        self._looking = Stores(access, retries=RETRIES)
        self._carrying = Stores(access, UPLOAD_SECONDS, RETRIES)
        self._stood: Found | None = None
        self._is_blind = False

    async def check(self, *, overwrite: bool) -> None:
        """Make sure that the object at the URL may be replaced, and record it in the log.

        Args:
            overwrite: any object may be replaced. The log records it, so that an upload that fails
                can be repeated without this.

        Raises:
            ForeignOutputError: the object is not from runs in this folder, or was changed.
            StoreError: nothing can be uploaded there, or the store does not answer.
        """
        url = self._output.url
        self._looking.place(url)
        # Credentials may allow writing only. Then the object stays unknown, and is not recorded.
        self._is_blind = overwrite
        with contextlib.suppress(*[StoreError] if overwrite else []):
            found = self._stood = await self._looking.look(url)
            self._is_blind = found is not None and not found.condition
            if found is None or (found.etag and found.etag == self._output.uploaded):
                return
            if not (overwrite or await self._is_ours(found)):
                raise ForeignOutputError(
                    f"{url} was not uploaded by runs in this folder, or was changed since. Run in "
                    "the folder that it was made in, give another -o, or give --overwrite to "
                    "start again from nothing and replace it."
                )
            await self._remember(found.etag)

    async def send(self) -> None:
        """Upload the finished catalog; it replaces only the object that `check` found, if any.

        Raises:
            ForeignOutputError: another object was put there meanwhile; it is left alone.
            StoreError: the upload failed; the earlier object is still there.
            WriteError: the upload succeeded, but the log cannot be written.
        """
        try:
            etag = await self._upload(self._stood)
        except Replaced:
            etag = await self._once_more()
        await self._remember(etag)

    async def _upload(self, stood: Found | None) -> str | None:
        path, url = self._output.path, self._output.url
        return await self._carrying.upload(path, url, stood, regardless=self._is_blind)

    async def _once_more(self) -> str | None:
        """Return the entity tag of the catalog after a store refused to replace its object.

        The object may be the catalog itself, if a response was lost and the request was sent again.
        The object may also be gone; then the catalog is uploaded again.
        """
        with contextlib.suppress(Replaced):
            found = await self._looking.look(self._output.url)
            if found is None:
                return await self._upload(None)
            if await self._is_ours(found):
                return found.etag
        raise ForeignOutputError(
            f"{self._output.url} was put there or changed by another program while this one was "
            f"at work, and is left as it is. The catalog is complete in {self._output.path}: move "
            "that object away, then run the same command again to upload it, or give --overwrite "
            "to start again from nothing and replace it."
        )

    async def _is_ours(self, found: Found) -> bool:
        """Tell whether an object of unknown origin is the catalog that was sealed last.

        A run may be killed after the upload and before the log records it. Another catalog may have
        the same size, and an etag cannot be predicted (it depends on how the store splits and
        encrypts objects). So the content decides; it is downloaded only if the size is the same.
        """
        sealed = self._output.sealed
        if sealed is None or found.size != sealed.size:
            return False
        digest = Digest()
        async for some in self._carrying.content(self._output.url):
            digest.update(some)
        return digest.hexdigest() == sealed.digest

    async def _remember(self, etag: str | None) -> None:
        if etag:
            await to_the_end(partial(self._output.note_uploaded, etag))

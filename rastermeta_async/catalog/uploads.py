"""A finished catalog on its way to its URL, where it replaces nothing but what it may."""

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
"""For one request with content. That is 60 MiB, or twelve parts of 5 MiB at once: a line of one
megabit a second takes most of this. `Settings.timeout` is about headers that are read."""


class Upload:
    """The way of one output to its URL.

    Args:
        output: is open, and has a URL; its log remembers what may be replaced there.
        access: how the store is reached.
    """

    def __init__(self, output: Output, access: Access) -> None:
        self._output = output
        self._looking = Stores(access, retries=RETRIES)
        self._carrying = Stores(access, UPLOAD_SECONDS, RETRIES)
        self._stood: Found | None = None
        self._is_blind = False

    async def check(self, *, overwrite: bool) -> None:
        """Make sure that whatever stands at the URL may be replaced, and remember it.

        Args:
            overwrite: anything may; it is remembered, so that an upload that fails can be made
                up for without saying so again.

        Raises:
            ForeignOutputError: another one put it there.
            StoreError: nothing can be uploaded there, or the store does not tell.
        """
        url = self._output.url
        self._looking.place(url)
        # Credentials that may only write need not be able to look: then the leave is not kept.
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
        """Copy the finished catalog to its URL, in place of what `check` found there or nothing.

        Raises:
            ForeignOutputError: another one was put there meanwhile; it is left alone.
            StoreError: it does not get there; what stood there before still does.
            WriteError: it did, but the log cannot be written.
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
        """Return the entity tag of the catalog where a store refused to replace what it has.

        That may be the catalog itself, when the answer to a request was lost and it was sent
        again; or it is gone.
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
        """Tell whether an object of unknown origin is the catalog as it was finished last.

        A run may be killed after the store had it all and before the log said so. The size alone
        could be another catalog's, and an etag cannot be foretold (it depends on how the store
        cuts and encrypts objects): so the content decides, which costs a download, but only then.
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

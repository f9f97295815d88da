"""An output as the last run left it, however that ended, brought into one state.

The log says what there should be. Whatever contradicts it is refused, and nothing is changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection

from rastermeta_async.catalog.checkpoint import (
    CheckpointLog,
    Entry,
    History,
    Part,
    Sealed,
    Sealing,
    damaged,
    history,
)
from rastermeta_async.catalog.content import Counted
from rastermeta_async.catalog.digest import VerifiedFile, digest_of, undamaged
from rastermeta_async.catalog.durable import explained
from rastermeta_async.catalog.formats import Format, ParquetFormat
from rastermeta_async.catalog.names import is_own, log_path, part_number, parts_folder
from rastermeta_async.catalog.reading import checked
from rastermeta_async.environment import options_in_words
from rastermeta_async.errors import ForeignOutputError


def check_unlogged(path: str, form: Format) -> None:
    """Raise ForeignOutputError where there is no log, but what only a log can explain."""
    folder = parts_folder(path)
    if os.path.exists(path):
        form.check(path)
        form.order(path)  # or the run would adopt what it cannot go on with
    if os.path.isdir(folder) and os.listdir(folder):
        raise ForeignOutputError(
            f"{folder} holds parts, but their log {log_path(path)} is missing. Put the log back, "
            "or give --overwrite to start again from nothing."
        )


def start_over(log: CheckpointLog, folder: str) -> None:
    """Forget all that was committed.

    The log comes first: parts that no log names are nothing, a log of parts that are gone is
    damage. The old catalog stays readable until the new one is sealed.
    """
    log.rewrite([], replaces=True)
    remove_unlogged(folder, ())


class Recovery:
    """Brings the log, the parts and the output into one state.

    Args:
        path: of the output.
        url: where it is copied to, "" if nowhere.
        form: of the output.
        log: its log, which is locked.
        gdal_config: GDAL's options that further rows are read with; None: there will be none.
    """

    def __init__(
        self, path: str, url: str, form: Format, log: CheckpointLog, gdal_config: str | None = None
    ) -> None:
        self._path = path
        self._gdal_config = gdal_config
        self._url = url
        self._log = log
        self._format = form
        self._parts = parts_folder(path)

    def run(self) -> None:
        """Do it.

        Raises:
            CheckpointError: the log or a part that it names is damaged; nothing was changed.
            ForeignOutputError: the output is not what the log says; nothing was changed.
        """
        state = history(self._log.entries)
        self._check_log_names_parts(state)
        if state.sealing and self._holds(state.sealing):
            state = history([*self._log.entries, Sealed(**vars(state.sealing))])
        replaces = self._log.replaces and not state.sealed
        entries: list[Entry] = list(state.parts)
        if state.sealed and not os.path.exists(self._path):
            if state.parts:
                raise ForeignOutputError(
                    f"{self._path} is gone, but parts that add to it are there. Put it back, or "
                    "give --overwrite to start again from nothing."
                )
            # The catalog was deleted: nothing of it is left to protect.
            state = History(uploaded=state.uploaded)
        if state.sealed or state.parts:
            self._check_url()
            self._check_gdal_config(self._log.had_gdal_config)
        if state.sealed:
            self._check_unchanged(state.sealed)
            entries.insert(0, state.sealed)
        elif os.path.exists(self._path) and not replaces:
            self._format.check(self._path)
            self._check_gdal_config(self._format.gdal_config(self._path))
            entries.insert(0, self._adopt())
        self._check_parts(state.parts)
        if state.uploaded and self._log.url == self._url:
            entries.append(state.uploaded)
        self._log.rewrite(entries, replaces=replaces)
        remove_unlogged(self._parts, {part.name for part in state.parts})

    def _check_log_names_parts(self, state: History) -> None:
        """Refuse a log that lacks its end: a crash leaves one part at most that it does not name.

        A log that was begun anew, as with `overwrite`, may stand next to parts of the old one.
        """
        if self._log.replaces or not os.path.isdir(self._parts):
            return
        numbers = map(part_number, os.listdir(self._parts))
        unnamed = sum(number > state.last_seq for number in numbers if number is not None)
        if unnamed > 1:
            what = f"it does not name {unnamed} parts that are in {self._parts}: its end is missing"
            raise damaged(self._log.path, what)

    def _check_url(self) -> None:
        """Refuse to mix the rows of two catalogs whose URLs end in one name."""
        if self._log.url in (None, self._url):
            return
        before, now = (url or f"the local {self._path}" for url in (self._log.url, self._url))
        raise ForeignOutputError(
            f"{log_path(self._path)} belongs to the output {before}, not to {now}: their rows "
            "would be mixed. Run it in another folder, give -o another name, or give --overwrite "
            "to start again from nothing."
        )

    def _check_gdal_config(self, before: str) -> None:
        """Refuse to mix rows that GDAL gives with some options and with others."""
        if self._gdal_config in (None, before):
            self._log.gdal_config = before
            return
        raise ForeignOutputError(
            f"{self._path} has rows that were read {options_in_words(before)}, and this run "
            f"is {options_in_words(self._gdal_config or '')}: they would be mixed. Give the same "
            "options, another -o, or --overwrite to start again from nothing."
        )

    def _holds(self, sealing: Sealing) -> bool:
        """Tell whether the output's content is the one named."""
        try:
            if os.path.getsize(self._path) != sealing.size:
                return False
            with open(self._path, "rb") as file:
                return digest_of(file) == sealing.digest
        except FileNotFoundError:
            return False

    def _check_unchanged(self, sealed: Sealed) -> None:
        size = os.path.getsize(self._path)
        if size != sealed.size:
            raise ForeignOutputError(
                f"{self._path} has {size} bytes, but {log_path(self._path)} says {sealed.size}: it "
                "was changed by another program. Put it back, give --overwrite to start again "
                "from nothing, or give another -o."
            )
        if isinstance(self._format, ParquetFormat):
            self._format.check(self._path)

    def _adopt(self) -> Sealed:
        """Return the entry of a catalog that this program made but whose log is gone."""
        with open(self._path, "rb") as file:
            digest = digest_of(file)
            size = file.tell()
        with undamaged(self._path), VerifiedFile(self._path, digest) as file:
            rows = Counted(checked(self._format.read(file)))
            for _ in rows:
                pass
        return Sealed(0, rows.rows, rows.failures, size, digest)

    def _check_parts(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            path = os.path.join(self._parts, part.name)
            size = os.path.getsize(path) if os.path.exists(path) else None
            if size != part.size:
                found = "is missing" if size is None else f"has {size} bytes"
                what = f"{found}, but the log says {part.size} bytes"
                raise damaged(path, what)


def remove_unlogged(folder: str, named: Collection[str]) -> None:
    """Remove from a parts folder what no log names, and the folder itself once it is empty."""
    if not os.path.isdir(folder):
        return
    with explained(folder, "removing leftovers"):
        others = False
        for name in os.listdir(folder):
            others = others or not is_own(name)
            if name not in named and is_own(name):
                _remove_all(os.path.join(folder, name))
        if not named and not others:
            os.rmdir(folder)


def _remove_all(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)

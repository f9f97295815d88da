"""Recovery: bring an output into a consistent state, however the last run ended.

The log says what should exist. Anything that contradicts it is refused, and nothing is changed.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Collection, Sequence
from dataclasses import replace

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
from rastermeta_async.catalog.digest import Counted, VerifiedFile, digest_of, undamaged
from rastermeta_async.catalog.durable import Identity, explained, open_folder, open_regular
from rastermeta_async.catalog.formats import Format, ParquetFormat
from rastermeta_async.catalog.names import (
    is_no_rasters,
    is_own,
    log_path,
    part_number,
    parts_folder,
    sealed_temporaries,
)
from rastermeta_async.catalog.reading import checked
from rastermeta_async.model.errors import ForeignOutputError
from rastermeta_async.model.gdal_options import options_in_words
from rastermeta_async.model.text import plural

log = logging.getLogger(__name__)


def check_unlogged(path: str, form: Format) -> None:
    """Raise ForeignOutputError if there are files without a log that only a log can explain."""
    folder = parts_folder(path)
    if os.path.exists(path):
        form.check(path)
        form.order(path)  # raises for a catalog that the run could not continue
    listed = os.listdir(folder) if os.path.isdir(folder) else []
    # Without their log, rows of no rasters are of no use: the paths are read again.
    names = [name for name in listed if not is_no_rasters(name)]
    if any(map(is_own, names)):
        raise ForeignOutputError(
            f"{folder} holds parts, but their log {log_path(path)} is missing. Put the log back, "
            "or give --overwrite to start again from nothing."
        )
    if names:
        raise ForeignOutputError(
            f"{folder} stands there already, and no log says what is in it: move it away, or give "
            "another -o."
        )


def start_over(log: CheckpointLog, folder: str, stood: Identity | None) -> None:
    """Forget all that was committed.

    The log is rewritten first: parts that no log names are harmless, but a log that names missing
    parts is damaged. The old catalog stays readable until the new one is sealed.

    Args:
        log: of the output, locked.
        folder: of its parts.
        stood: the file that has the output's name and may be replaced.
    """
    log.rewrite([], replaces=True, replaced=stood.lasting if stood else "")
    remove_unlogged(folder, (), log.part_names)


class Recovery:
    """Brings the log, the parts and the output into a consistent state.

    Args:
        path: of the output.
        url: where the output is copied to, "" if nowhere.
        form: of the output.
        log: of the output, locked.
        stood: the file that had the output's name before any check.
        gdal_config: GDAL's options that further rows are read with; None: there are no further
            rows.
    """

    def __init__(
        self,
        path: str,
        url: str,
        form: Format,
        log: CheckpointLog,
        stood: Identity | None,
        gdal_config: str | None = None,
    ) -> None:
        self._path = path
        self._stood = stood
        self._gdal_config = gdal_config
        self._url = url
        self._log = log
        self._format = form
        self._parts = parts_folder(path)

    def run(self) -> None:
        """Check everything, then rewrite the log and remove leftovers.

        Raises:
            CheckpointError: the log or a part that it names is damaged; nothing was changed.
            ForeignOutputError: the output is not what the log says; nothing was changed.
        """
        state = history(self._log.entries)
        self._check_log_names_parts(state)
        if state.sealing and self._holds(state.sealing):
            self._check_moved_out(state.sealed, state.sealing)
            state = history([*self._log.entries, Sealed(**vars(state.sealing))])
        replaces = self._log.replaces and not state.sealed
        entries: list[Entry] = list(state.parts)
        if state.sealed and not os.path.exists(self._path):
            if state.parts:
                raise ForeignOutputError(
                    f"{self._path} is gone, but parts that add to it are there. Put it back, or "
                    "give --overwrite to start again from nothing."
                )
            # The catalog was deleted, so there is nothing left to protect.
            state = History(uploaded=state.uploaded)
        if state.sealed or state.parts:
            self._check_url()
            self._check_gdal_config(self._log.had_gdal_config)
        others: list[Part] = []
        if state.sealed:
            self._check_unchanged(state.sealed)
            sealed = self._without_lost(state.sealed)
            others += [sealed.no_rasters] if sealed.no_rasters else []
            entries.insert(0, sealed)
        elif self._stood and replaces:
            self._check_replaced(self._stood)
        elif self._stood:
            self._format.check(self._path)
            self._check_gdal_config(self._format.gdal_config(self._path))
            self._check_alone(state)
            entries.insert(0, self._adopt())
        self._check_parts([*others, *state.parts])
        if state.uploaded and self._log.url == self._url:
            entries.append(state.uploaded)
        self._log.rewrite(entries, replaces=replaces, replaced=self._log.replaced)
        named = {part.name for part in (*others, *state.parts)}
        remove_unlogged(self._parts, named, self._log.part_names)

    def _without_lost(self, sealed: Sealed) -> Sealed:
        """Return the entry of a catalog, without its file of no rasters if that was removed.

        No row of the catalog is lost with it: where these paths are inputs, they are read again.
        """
        path = os.path.join(self._parts, sealed.no_rasters_name)
        if not sealed.no_rasters or os.path.lexists(path):
            return sealed
        count = plural(sealed.no_rasters.rows, "file")
        log.warning(
            "%s was removed: the %s that it named as no rasters may be read again", path, count
        )
        return replace(
            sealed, sidecars=0, others=0, no_rasters_name="", no_rasters_size=0,
            no_rasters_digest="",
        )  # fmt: skip

    def _check_log_names_parts(self, state: History) -> None:
        """Refuse a log that lacks its end; a crash leaves at most one part that the log lacks.

        A log that was started again (`overwrite`) may stand next to parts of the old log.
        """
        if self._log.replaces or not os.path.isdir(self._parts):
            return
        numbers = map(part_number, os.listdir(self._parts))
        unnamed = sum(number > state.last_seq for number in numbers if number is not None)
        if unnamed > 1:
            what = f"it does not name {unnamed} parts that are in {self._parts}: its end is missing"
            raise damaged(self._log.path, what)

    def _check_url(self) -> None:
        """Refuse to mix the rows of two catalogs whose URLs end in the same name."""
        if self._log.url in (None, self._url):
            return
        before, now = (url or f"the local {self._path}" for url in (self._log.url, self._url))
        raise ForeignOutputError(
            f"{log_path(self._path)} belongs to the output {before}, not to {now}: their rows "
            "would be mixed. Run it in another folder, give -o another name, or give --overwrite "
            "to start again from nothing."
        )

    def _check_gdal_config(self, before: str) -> None:
        """Refuse to mix rows that were read with different options of GDAL."""
        if self._gdal_config in (None, before):
            self._log.gdal_config = before
            return
        raise ForeignOutputError(
            f"{self._path} has rows that were read {options_in_words(before)}, and this run "
            f"is {options_in_words(self._gdal_config or '')}: they would be mixed. Give the same "
            "options, another -o, or --overwrite to start again from nothing."
        )

    def _check_moved_out(self, sealed: Sealed | None, sealing: Sealing) -> None:
        """Refuse to remove another program's file that exchanged names with the catalog.

        A run may be killed after it exchanged the names and before it checked the other file. After
        a power cut, the catalog may have both names.
        """
        ours = {sealing.digest, sealed.digest if sealed else sealing.digest}
        for path in sealed_temporaries(self._parts):
            if self._log.replaces or os.path.samefile(path, self._path):
                continue
            if _digest_at(path) not in ours:
                raise ForeignOutputError(
                    f"{path} was put under the name {self._path} by another program, and changed "
                    "places with the catalog when a run was killed. Move it away, then run the "
                    "same command again."
                )

    def _check_replaced(self, stood: Identity) -> None:
        """Refuse to replace a file other than the one that `overwrite` was given for."""
        if self._log.replaced not in (None, stood.lasting):
            raise ForeignOutputError(
                f"{self._path} is not what stood there when --overwrite was given: another "
                "program put it there or changed it. Move it away and run the same command again "
                "to go on, or give --overwrite to start again from nothing and replace it."
            )

    def _check_alone(self, state: History) -> None:
        """Refuse a catalog that appeared after parts were made for a new catalog."""
        if state.parts:
            raise ForeignOutputError(
                f"{self._path} is a catalog that was put there after parts were made for a new "
                "one: their rows would be mixed. Move it away and run the same command again to "
                "go on, or give --overwrite to start again from nothing and replace it."
            )

    def _holds(self, sealing: Sealing) -> bool:
        """Tell whether the output has the content that `sealing` names."""
        try:
            if os.path.getsize(self._path) != sealing.size:
                return False
            return _digest_at(self._path) == sealing.digest
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
        """Return a new log entry for a catalog that this program made and whose log is gone."""
        with open(open_regular(self._path), "rb") as file:
            digest = digest_of(file)
            size = file.tell()
        with undamaged(self._path), VerifiedFile(self._path, digest) as file:
            rows = Counted(checked(self._format.read(file)))
            for _ in rows:
                pass
        return Sealed(0, rows.rows, rows.failures, size, digest)

    def _check_parts(self, parts: Sequence[Part]) -> None:
        for part in parts:
            path = os.path.join(self._parts, part.name)
            size = os.path.getsize(path) if os.path.exists(path) else None
            if size != part.size:
                found = "is missing" if size is None else f"has {size} bytes"
                what = f"{found}, but the log says {part.size} bytes"
                raise damaged(path, what)


def _digest_at(path: str) -> str:
    with open(open_regular(path), "rb") as file:
        return digest_of(file)


def remove_unlogged(
    folder: str, named: Collection[str], known: Collection[str] = frozenset()
) -> None:
    """Remove what the log does not name from a parts folder; remove the folder if it is empty.

    Only names with the program's mark, or names in `known`, are removed. All other files belong to
    somebody else.

    Args:
        folder: of the parts; it may be missing.
        named: names that stay.
        known: names that a log has given, with or without the mark.
    """
    if not os.path.lexists(folder):
        return
    with explained(folder, "removing leftovers"):
        fd = open_folder(folder)  # works on the same folder even if its name changes
        try:
            names = set(os.listdir(fd))
            own = {name for name in names if is_own(name) or name in known}
            for name in own.difference(named):
                _remove_all(name, fd)
        finally:
            os.close(fd)
        if not named and own == names:
            os.rmdir(folder)


def _remove_all(name: str, folder: int) -> None:
    if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)

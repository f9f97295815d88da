"""Note beside the parts of a run which workers read, for `status`. Nothing else depends on it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence

from rastermeta_async.catalog.durable import Rights, create, open_regular
from rastermeta_async.catalog.names import part_temporary, workers_note
from rastermeta_async.model.errors import ForeignOutputError
from rastermeta_async.model.streams import write_all

_MOST_BYTES = 1024 * 1024


def note_workers(folder: str, names: Sequence[str], rights: Rights) -> bool:
    """Write the names of the workers into a parts folder; return False if that is not possible.

    The folder is missing before the first part, and a full disk is an error of the next part.
    """
    temporary = part_temporary(folder)
    try:
        fd = create(temporary, rights)
        try:
            write_all(fd, json.dumps(names).encode())
        finally:
            os.close(fd)
        os.replace(temporary, workers_note(folder))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        return False
    return True


def noted_workers(folder: str) -> list[str]:
    """Return the names of the workers of the run that writes into a parts folder."""
    try:
        with open(open_regular(workers_note(folder)), "rb") as file:
            names = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError, ForeignOutputError):  # there is no note
        return []
    return [str(name) for name in names] if isinstance(names, list) else []

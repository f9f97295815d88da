"""Files whose content is not on disk: on tape, or in another store that brings it when it is read.

Systems that move files away (Lustre HSM, IBM Spectrum Archive and Spectrum Protect on GPFS, DMF)
leave name, size and times, and give back the blocks. To read one byte has the file recalled, which
may take minutes each; to ask for its size does not.
"""

from __future__ import annotations

import os
import stat

from rastermeta_async.record import Record, failure

_MESSAGE = (
    "the content is not on disk, and to read it would have it recalled; once it is there, run the "
    "same command again with --retry-failed"
)


def offline_row(path: bytes) -> Record | None:
    """Return the row of a file that has a size but no blocks (stat(2)); None: it may be read.

    What cannot be asked is for the reader to say.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    is_away = stat.S_ISREG(status.st_mode) and status.st_size and not status.st_blocks
    return failure(path, "error", "Offline", _MESSAGE) if is_away else None

"""``rastermeta`` and ``python -m rastermeta_async``."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line."""
    # Until a run hears signals itself, Ctrl-C simply ends the program, also within a library.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _occupy_standard_streams()
    from rastermeta_async.model.gdal_options import enter_program

    enter_program()
    from rastermeta_async.model.machine import spare_memory

    spare_memory()  # before any command imports pyarrow or rasterio
    from rastermeta_async.cli.app import app

    app(prog_name="rastermeta")


def _occupy_standard_streams() -> None:
    """Keep the numbers of closed standard streams from being given to files that we open.

    `sys.stdin` and its like are None for these, and stay so.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


if __name__ == "__main__":
    main()

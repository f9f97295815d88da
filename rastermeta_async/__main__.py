"""``rastermeta`` and ``python -m rastermeta_async``."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from rastermeta_async.cli import app

    app(prog_name="rastermeta")


if __name__ == "__main__":
    main()

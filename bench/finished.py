"""What the same command costs when many paths are finished already.

    python -m bench.finished --rows 10000000

The rows are those of short headers under as many other paths as it takes. The cases run one after
the other on one catalog: sealing it, the same command again, and with files that are new.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from bench import archive
from bench.common import DEFAULT_DIR, MIB, context, rastermeta, write_report
from bench.measure import measure
from bench.scenes import Spec
from bench.sealing import parts_of, read_rows

FILES = 10_000
NEW_FILES = 1000


def short_rows(rows: Any) -> Any:
    """Return rows without their tags."""
    from rastermeta_async.model.record import from_batch, to_batch

    bare = [
        row._replace(dataset_tags={}, band_tags={}, imagery_tags={}) for row in from_batch(rows)
    ]
    import pyarrow as pa

    return pa.Table.from_batches([to_batch(bare)])


def commit(output: Path, listed: Path, rows: Any, count: int) -> None:
    """Commit `count` rows as a run does, and write their paths to a list."""
    from rastermeta_async.catalog.output import Output

    target = Output(str(output))
    with listed.open("wb") as names:
        for part in parts_of(rows, count):
            target.log.append(target.sink.commit(part))
            names.writelines(f"{name}\n".encode() for name in part["filepath"].to_pylist())
    target.close()


def new_files(directory: Path) -> Iterator[Path]:
    """Yield files of the archive; the catalog has them under other paths."""
    return islice(sorted(directory.rglob("*.tif")), NEW_FILES)


def run(output: Path, listed: Path, count: int) -> dict[str, float]:
    """Run the command over a list of `count` paths; return what it took."""
    command = [rastermeta(), "extract", "-q", "--from-file", str(listed), "-o", str(output)]
    taken = asdict(measure([command], cwd=output.parent))
    return {
        "wall_s": taken["wall_s"],
        "cpu_us_per_path": taken["cpu_s"] / count * 1e6,
        "peak_mib": taken["peak_pss"] / MIB,
        "bytes": os.path.getsize(output),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="bench.finished", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="archives are kept here")
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/finished-DATE.json")
    args = parser.parse_args()
    directory = args.dir.resolve() / f"archive-{FILES}-1-0"
    archive.make(directory, Spec(FILES))
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        output, listed = Path(name).resolve() / "catalog.parquet", Path(name) / "list"
        commit(output, listed, short_rows(read_rows(directory)), args.rows)
        found["sealing"] = run(output, listed, args.rows)
        found["again"] = run(output, listed, args.rows)
        with listed.open("ab") as names:
            names.writelines(f"{path}\n".encode() for path in new_files(directory))
        found[f"{NEW_FILES} new files"] = run(output, listed, args.rows)
    report: dict[str, Any] = {
        "benchmark": "finished",
        "context": context(),
        "settings": {"rows": args.rows, "files": FILES},
        "finished": found,
    }
    print(json.dumps(found, indent=2))
    print(write_report(report, args.out, "finished"))


if __name__ == "__main__":
    main()

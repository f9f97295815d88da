"""An archive as archives are: rasters, what belongs to them, texts, and rasters that are broken."""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
import zipfile
from pathlib import Path

from command import write_raster

from rastermeta_async.catalog.checkpoint import history, read_entries
from rastermeta_async.catalog.names import log_path, parts_folder
from rastermeta_async.catalog.parts import part_rows
from rastermeta_async.model.row_ops import path_keys

GOOD = {"a.tif", "b.JP2", "c.img", "envi", "d.bil", "plain.bin", "deep/LC_1_B1.TIF", "deep/e.tiff"}
"""Rasters."""

BROKEN = {
    "garbage.tif": b"garbage",
    "empty.tif": b"",
    "cut.bin": b"II*\0garbage",
    "cut": b"\x89HDF\r\n\x1a\n",
    "cut.jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "deep/Broken.PNG": b"\x89PNG\r\n\x1a\n",
    "text.vrt": b"text",
}
"""Rasters by their name or by their first bytes, which cannot be read."""

SIDECARS = {
    "a.tif.aux.xml": b"<PAMDataset></PAMDataset>",
    "a.tfw": b"2.0\n0.0\n0.0\n-2.0\n0.0\n0.0\n",
    "a.tifw": b"2.0\n0.0\n0.0\n-2.0\n0.0\n0.0\n",
    "a.wld": b"2.0\n0.0\n0.0\n-2.0\n0.0\n0.0\n",
    "a.prj": b'PROJCS["a"]',
    "a.rpb": b"satId = 1;\n",
    "a.IMD": b"version = 1;\n",
    "a.tab": b"!table\n",
    "a_RPC.TXT": b"LINE_OFF: 1\n",
    "a_metadata.xml": b"<a/>",
    "a.xml": b"<a/>",
    "a.tif.xml": b"<a/>",
    "b.j2w": b"2.0\n0.0\n0.0\n-2.0\n0.0\n0.0\n",
    "b.JP2.aux.xml": b"<PAMDataset></PAMDataset>",
    "c.ige": b"ERDAS_IMG_EXTERNAL_RASTER",
    "deep/LC_1_MTL.txt": b"GROUP = L1_METADATA_FILE\n",
}
"""Files that belong to one of these."""

MADE_SIDECARS = {"a.tif.ovr", "a.tif.msk", "c.rrd", "envi.hdr", "d.hdr", "d.prj"}
"""More of them, which GDAL opens or writes."""

OTHERS = {
    "README": b"read me",
    "readme.txt": b"read me",
    "empty": b"",
    "empty.txt": b"",
    "sums.md5": b"0 a.tif\n",
    "a.tif.sha256": b"0 a.tif\n",
    "paper.pdf": b"%PDF-1.4\n%%EOF\n",
    "list.csv": b"x,y\n1,2\n",
    "points.csv": b"x,y,z\n1,2,3\n4,5,7\n9,1,2\n",
    "item.json": b"{}",
    "page.html": b"<html></html>",
    "lonely.tfw": b"2.0\n0.0\n0.0\n-2.0\n0.0\n0.0\n",
    "lonely.prj": b'PROJCS["a"]',
    "notes\udcff.txt": b"notes",
    "lonely.aux.xml": b"<PAMDataset></PAMDataset>",
    "deep/run.log": b"2020 12 1 log\n",
    "bytes.dat": bytes(range(256)),
    "manifest.safe": b"<xfdu></xfdu>",
    "deep/style.qml": b"<qgis/>",
    "II.txt": b"II is a number",
}
"""Files that are no rasters."""

PACKED = {"scene.zip", "scene.tar", "scene.tar.gz", "table.sqlite", "vector.gpkg"}
"""More of them, which hold others."""


def write_mixed(folder: Path, *, broken: bool = True) -> None:
    """Write the archive, with or without what is broken."""
    (folder / "deep").mkdir(parents=True)
    for name in ("a.tif", "deep/LC_1_B1.TIF", "deep/e.tiff", "plain.bin"):
        write_raster(folder / name)
    write_raster(folder / "b.JP2", driver="JP2OpenJPEG", width=64, height=64)
    write_raster(folder / "c.img", driver="HFA")
    (folder / "c.rrd").write_bytes((folder / "c.img").read_bytes())
    write_raster(folder / "envi", driver="ENVI")
    write_raster(folder / "d.bil", driver="EHdr")
    write_raster(folder / "a.tif.ovr", width=2, height=2)
    write_raster(folder / "a.tif.msk")
    for name in ("envi.aux.xml", "d.bil.aux.xml", "c.img.aux.xml"):
        (folder / name).unlink(missing_ok=True)
    for name, content in (SIDECARS | OTHERS | (BROKEN if broken else {})).items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "scene.zip", "w") as packed:
        packed.write(folder / "readme.txt", "readme.txt")
    with tarfile.open(folder / "scene.tar", "w") as tar:
        tar.add(folder / "readme.txt", "readme.txt")
    with tarfile.open(folder / "scene.tar.gz", "w:gz") as tar:
        tar.add(folder / "readme.txt", "readme.txt")
    for name in ("table.sqlite", "vector.gpkg"):
        database = sqlite3.connect(folder / name)
        database.execute("create table things (name text)")
        database.commit()
        database.close()
    names = {
        os.path.relpath(os.path.join(top, name), folder)
        for top, _, found in os.walk(folder)
        for name in found
    }
    everything = (
        GOOD | {*SIDECARS} | MADE_SIDECARS | {*OTHERS} | PACKED | {*(BROKEN if broken else ())}
    )
    assert names == everything, names ^ everything


def no_rasters_of(catalog: Path) -> dict[bytes, str]:
    """Return path and status of what a finished catalog does not have, each once."""
    log = log_path(str(catalog))
    state = history(read_entries(Path(log).read_bytes(), log))
    assert state.sealed is not None
    if (part := state.sealed.no_rasters) is None:
        return {}
    rows = [
        (path, status)
        for batch in part_rows(parts_folder(str(catalog)), [part])
        for path, status in zip(
            path_keys(batch).to_pylist(), batch["status"].to_pylist(), strict=True
        )
    ]
    found = dict(rows)
    assert len(found) == len(rows) == part.rows
    statuses = list(found.values())
    assert (part.sidecars, part.others) == (statuses.count("sidecar"), statuses.count("no_raster"))
    return found


def as_json(text: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]

"""Archives: each raster inside has a row, equal to what rasterio says of its name in GDAL."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import random
import shutil
import struct
import tarfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import rasterio
import rasterio.shutil
from command import (
    calls_of,
    killed_at,
    leftovers,
    rows_of,
    run,
    traced,
    write_pages,
    write_raster,
)
from factory import in_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from range_server import Server, serving, serving_apart
from rasterio.errors import NotGeoreferencedWarning

import rastermeta_async
from rastermeta_async import Access, Record, Settings
from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.record import as_rows, differing_columns, from_batch, is_same
from rastermeta_async.model.timeouts import Stopped
from rastermeta_async.pools.header_pool import HeaderPool
from rastermeta_async.readers import base
from rastermeta_async.readers.archives import deflated, entries, member_rows, zip_directory
from rastermeta_async.readers.archives.entries import ArchiveError
from rastermeta_async.readers.archives.tar_headers import TarArchive
from rastermeta_async.readers.archives.zip_directory import ZipArchive
from rastermeta_async.readers.members import MembersReader, with_members
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router, make_reader
from rastermeta_async.stores.archive_names import name_inside

ALL = ("zip", "tar", "gz", "tgz")
Members = Sequence[tuple[str, bytes]]

OF_THE_FILE = {"filepath", "filepath_bytes", "member", "file_size", "mtime", "etag", "reader",
               "subdatasets", "error_message"}  # fmt: skip
"""Columns that differ between a member and the same file beside the archive."""

NEED_GDAL = {"described.tif", "pages.tif", "reduced.tif", "unplaced.tif"}
"""Members that have sidecars, or several pages. In a compressed tar their structure is not told."""


def zipped(path: Path, members: Members, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", how) as archive:
        warnings.filterwarnings("ignore", "Duplicate name")
        for name, content in members:
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: Members, how: Literal["w:", "w:gz"] = "w:") -> Path:
    with tarfile.open(path, how) as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def stored(path: Path, members: Members) -> Path:
    return zipped(path, members, zipfile.ZIP_STORED)


def packed_tar(path: Path, members: Members) -> Path:
    return tarred(path, members, "w:gz")


MAKERS: dict[str, Callable[[Path, Members], Path]] = {
    "deflated.zip": zipped, "stored.ZIP": stored, "plain.tar": tarred, "packed.tar.gz": packed_tar,
    "packed.tgz": packed_tar,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep GDAL's own threads, which read NetCDF, from adding files; in a run the fence does."""
    monkeypatch.setenv("CPL_VSIL_GZIP_WRITE_PROPERTIES", "NO")


@pytest.fixture(scope="module")
def reader() -> MembersReader:
    found = with_members(make_reader(None), ALL, 60.0)
    assert isinstance(found, MembersReader)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rasters of several formats, some with sidecars, and other files."""
    folder = tmp_path_factory.mktemp("files")
    plain = write_raster(folder / "plain.tif")
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    write_raster(folder / "tiled.tif", width=64, height=64, **tiles)
    write_pages(folder / "pages.tif", 3)
    for driver, name in [("JP2OpenJPEG", "a.jp2"), ("PNG", "b.png"), ("HFA", "c.img"),
                         ("netCDF", "d.nc"), ("COG", "cog.tif")]:  # fmt: skip
        rasterio.shutil.copy(plain, folder / name, driver=driver)
    for name in ("described.tif", "unplaced.tif", "reduced.tif"):
        shutil.copyfile(plain, folder / name)
    (folder / "described.tif.aux.xml").write_text(
        "<PAMDataset><Metadata><MDI key='SEEN'>yes</MDI></Metadata></PAMDataset>"
    )
    write_unplaced(folder / "unplaced.tif")
    (folder / "unplaced.tfw").write_text("1\n0\n0\n-1\n500000\n5000000\n")
    rasterio.shutil.copy(folder / "tiled.tif", folder / "reduced.tif")
    shutil.copyfile(plain, folder / "reduced.tif.ovr")
    (folder / "notes.txt").write_text("nothing")
    (folder / "sums.md5").write_text("d41d8cd98f00b204e9800998ecf8427e  plain.tif\n")
    (folder / "broken.tif").write_bytes(b"II*\0" + bytes(100))
    (folder / "empty.tif").write_bytes(b"")
    (folder / "odd.bin").write_bytes(plain.read_bytes())
    return folder


def write_unplaced(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint8"}
        rasterio.open(path, "w", **profile).close()


@contextmanager
def opened(archive: Path, member: str) -> Iterator[Any]:
    """Open a member by its name in GDAL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(name_inside(str(archive), member)) as dataset:
            yield dataset


def content_of(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def rows(reader: MembersReader, archive: Path) -> dict[str | None, Record]:
    found = as_rows(in_thread(reader.read, bytes(archive)))
    assert [row.member or "" for row in found] == sorted(row.member or "" for row in found)
    assert len({row.member for row in found}) == len(found)
    return {row.member: row for row in found}


@pytest.mark.parametrize("name", MAKERS)
def test_members_have_the_records_that_rasterio_gives_for_their_names(
    reader: MembersReader, files: Path, tmp_path: Path, name: str
) -> None:
    archive = MAKERS[name](tmp_path / name, content_of(files))
    found = rows(reader, archive)
    rasters = {"a.jp2", "b.png", "c.img", "cog.tif", "d.nc", "described.tif", "odd.bin",
               "pages.tif", "plain.tif", "reduced.tif", "tiled.tif", "unplaced.tif"}  # fmt: skip
    assert set(found) == rasters | {"broken.tif", "empty.tif"}
    assert {name for name, row in found.items() if not row.ok} == {"broken.tif", "empty.tif"}
    reference = RasterioReader()
    for member in rasters:
        row, (alone,) = found[member], as_rows(in_thread(reference.read, bytes(files / member)))
        different = [one for one in differing_columns(row, alone) if one not in OF_THE_FILE]
        if name.startswith("packed") and member in NEED_GDAL:
            different = [one for one in different if one not in ("tiled", "cog", "cog_problems")]
        assert not different, (member, [(getattr(row, n), getattr(alone, n)) for n in different])
        with opened(archive, member) as dataset:
            assert (dataset.driver, dataset.width, dataset.count) == (
                row.driver, row.width, row.count,
            )  # fmt: skip
            assert tuple(dataset.transform.to_gdal()) == row.transform
            assert dataset.tags() == row.dataset_tags
            assert (dataset.crs and dataset.crs.to_string()) == row.crs
    status = archive.stat()
    for row in found.values():
        assert (row.filepath, row.file_size) == (str(archive), status.st_size)
        assert row.mtime is not None
        assert round(row.mtime.timestamp() * 1e6) == status.st_mtime_ns // 1000
    assert sorted(tmp_path.iterdir()) == [archive]  # GDAL would add a file of properties


def test_plain_members_need_no_gdal(reader: MembersReader, files: Path, tmp_path: Path) -> None:
    plain = (files / "plain.tif").read_bytes()
    for name, make in MAKERS.items():
        found = rows(reader, make(tmp_path / name, [("x/plain.tif", plain)]))
        assert found["x/plain.tif"].reader == "tiff_header"


def test_a_single_compressed_file(reader: MembersReader, files: Path, tmp_path: Path) -> None:
    for name in ("plain.tif", "b.png", "a.jp2"):
        archive = tmp_path / f"{name}.gz"
        archive.write_bytes(gzip.compress((files / name).read_bytes()))
        found = rows(reader, archive)
        assert list(found) == [name]
        with opened(archive, name) as dataset:
            assert (dataset.width, found[name].driver) == (found[name].width, dataset.driver)
    text = tmp_path / "notes.txt.gz"
    text.write_bytes(gzip.compress(b"nothing"))
    (row,) = rows(reader, text).values()
    assert (row.status, row.member, row.file_size) == ("error", None, text.stat().st_size)
    assert "not recognized" in (row.error_message or "")
    assert not list(tmp_path.glob("*.properties"))


def test_rasterio_alone_reads_the_same(files: Path, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", content_of(files))
    both = [
        rows(MembersReader(made, ALL, 60.0), archive)
        for made in (make_reader(None), RasterioReader())
        if isinstance(made, Router | RasterioReader)
    ]
    assert set(both[0]) == set(both[1])
    for member, row in both[0].items():
        other = both[1][member]
        assert is_same(row._replace(reader=None), other._replace(reader=None)), member
        assert other.reader in ("rasterio", None)


# Names


def test_odd_names(reader: MembersReader, files: Path, tmp_path: Path) -> None:
    plain = (files / "plain.tif").read_bytes()
    names = ["./", "a b.tif", "ä.tif", "x}y{.tif", "s/u/b.tif", "./dot.tif", "../up.tif",
             "/abs.tif",
             "back\\slash.tif", "same.tif"]  # fmt: skip
    shown = {name.removeprefix("./").replace("\\", "/") for name in names} - {""}
    for archive in (
        zipped(tmp_path / "a.zip", [(name, plain) for name in [*names, "same.tif"]]),
        tarred(tmp_path / "a.tar", [(name, plain) for name in [*names, "same.tif"]]),
    ):
        found = rows(reader, archive)
        assert set(found) == shown
        assert all(row.ok for row in found.values())
        for name in shown - {"/abs.tif"}:
            if archive.suffix == ".zip" or name.isascii():
                with opened(archive, name) as dataset:
                    assert dataset.width == found[name].width
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "a.zip"]


def test_names_that_are_no_utf8_have_a_row_that_says_so(
    reader: MembersReader, files: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(files / "plain.tif", "a\udcff.tif")
        archive.add(files / "plain.tif", "b.tif")
        archive.add(files / "notes.txt", "c\udcff.txt")
    found = rows(reader, path)
    assert set(found) == {"a\\xff.tif", "b.tif"}
    assert found["a\\xff.tif"].error_type == "InvalidName"


def test_the_first_of_several_members_of_one_name_counts(
    reader: MembersReader, files: Path, tmp_path: Path
) -> None:
    first, second = ((files / name).read_bytes() for name in ("plain.tif", "tiled.tif"))
    for name, make in MAKERS.items():
        archive = make(tmp_path / name, [("a.tif", first), ("a.tif", second)])
        found = rows(reader, archive)
        with opened(archive, "a.tif") as dataset:
            assert found["a.tif"].width == dataset.width


def test_folders_and_links_are_no_members(
    reader: MembersReader, files: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind, name in [(tarfile.DIRTYPE, "d.tif"), (tarfile.SYMTYPE, "l.tif"),
                           (tarfile.FIFOTYPE, "f.tif")]:  # fmt: skip
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "plain.tif"
            archive.addfile(header)
        archive.add(files / "plain.tif", "plain.tif")
    assert set(rows(reader, path)) == {"plain.tif"}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zip_archive:
        zip_archive.mkdir("d.tif")
        zip_archive.write(files / "plain.tif", "d.tif/plain.tif")
    assert set(rows(reader, tmp_path / "a.zip")) == {"d.tif/plain.tif"}


# What is left out, and why


def test_archives_inside_are_not_followed(
    reader: MembersReader, files: Path, tmp_path: Path
) -> None:
    inner = zipped(tmp_path / "inner.zip", [("x.tif", (files / "plain.tif").read_bytes())])
    archive = zipped(
        tmp_path / "a.zip",
        [("in.zip", inner.read_bytes()), ("b.tar.gz", b""), ("c.gz", b""),
         ("plain.tif", (files / "plain.tif").read_bytes())],
    )  # fmt: skip
    found = rows(reader, archive)
    assert set(found) == {"in.zip", "plain.tif"}
    assert found["in.zip"].error_type == "NestedArchive"
    assert found["in.zip"].error_message == (
        "an archive inside an archive is not followed, nor are 2 others here: unpack it"
    )


def test_encrypted_members_say_so(reader: MembersReader, files: Path, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", [("x.tif", (files / "plain.tif").read_bytes()),
                                          ("y.txt", b"")])  # fmt: skip
    content = bytearray(archive.read_bytes())
    at = -1
    while (at := content.find(b"PK\1\2", at + 1)) >= 0:
        content[at + 8] |= 1
    archive.write_bytes(content)
    (row,) = rows(reader, archive).values()
    assert (row.member, row.error_type, row.error_message) == (
        "x.tif", "Encrypted", "it is encrypted: unpack it with its password",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tif.gz"])
@pytest.mark.parametrize("content", [b"", b"nothing", bytes(2000), b"PK\5\6" + b"\xff" * 18])
def test_no_archive_at_all(
    reader: MembersReader, tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    (row,) = rows(reader, path).values()
    assert (row.status, row.member, row.file_size) == ("error", None, len(content))
    if content != bytes(2000) or name != "a.tar":
        assert row.error_type == "DamagedArchive"
        assert "or a damaged one" in (row.error_message or "")


def test_a_raster_with_the_ending_of_an_archive_stays_one(
    reader: MembersReader, files: Path, tmp_path: Path
) -> None:
    for name in ("a.zip", "a.tar", "a.gz"):
        shutil.copyfile(files / "plain.tif", tmp_path / name)
        (row,) = rows(reader, tmp_path / name).values()
        assert (row.ok, row.member) == (True, None)


def test_an_archive_without_rasters_has_the_row_of_any_such_file(
    reader: MembersReader, tmp_path: Path
) -> None:
    for name, make in MAKERS.items():
        archive = make(tmp_path / name, [("a.txt", b"nothing"), ("b.prj", b"")])
        (row,) = rows(reader, archive).values()
        assert (row.status, row.member, row.error_type) == ("error", None, "RasterioIOError")
        assert "not recognized" in (row.error_message or "")


PROBLEMS = ("DamagedArchive", "NotAllMembers", "RasterioIOError", "TooMuchToUnpack")


@pytest.mark.parametrize("name", [*MAKERS, "a.tif.gz"])
def test_of_a_cut_archive_there_are_rows_or_it_says_so(
    reader: MembersReader, files: Path, tmp_path: Path, name: str
) -> None:
    plain = (files / "plain.tif").read_bytes() + random.Random(1).randbytes(5000)
    path = tmp_path / name
    if name in MAKERS:
        MAKERS[name](path, [(f"{number}.tif", plain) for number in range(9)])
    else:
        path.write_bytes(gzip.compress(plain))
    whole = path.read_bytes()
    for share in (0.001, 0.1, 0.5, 0.7, 0.9):
        path.write_bytes(whole[: int(len(whole) * share) + 7])
        found = rows(reader, path)
        if len([row for row in found.values() if row.ok]) < (9 if name in MAKERS else 1):
            problem = found.get(None) or next(row for row in found.values() if not row.ok)
            assert problem.error_type in PROBLEMS
            assert problem.error_message


def test_the_number_of_members_is_bounded(
    reader: MembersReader, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (zip_directory, member_rows):
        monkeypatch.setattr(module, "MAX_MEMBERS", 5)
    monkeypatch.setattr("rastermeta_async.readers.archives.tar_headers.MAX_MEMBERS", 5)
    plain, png = ((files / name).read_bytes() for name in ("plain.tif", "b.png"))
    for name, make in MAKERS.items():
        members = [(f"{number}.tif", plain) for number in range(4)]
        archive = make(tmp_path / name, [*members, ("x.png", png), ("5.tif", plain)])
        found = rows(reader, archive)
        assert {"0.tif", "1.tif", "2.tif", "3.tif", "x.png", None} == set(found)
        message = "only its first 5 members were read: unpack it to have all"
        assert found[None].error_message == message
        # GDAL would look at all headers of a tar; of a ZIP archive it reads the directory.
        assert found["x.png"].ok is (make in (zipped, stored))
        exact = rows(reader, make(tmp_path / name, [*members, ("x.png", png)]))
        assert None not in exact


def test_a_huge_directory_is_not_read(
    reader: MembersReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(tmp_path / "a.zip", [(f"{number}.txt", b"") for number in range(1000)])
    monkeypatch.setattr(zip_directory, "MAX_DIRECTORY_BYTES", 40_000)
    (row,) = rows(reader, archive).values()
    assert row.error_type == "TooManyMembers"
    assert "it has 1,000 members, and their directory" in (row.error_message or "")


def test_a_million_members_take_bounded_time_and_memory(
    reader: MembersReader, tmp_path: Path
) -> None:
    name = b"%07d.tif"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, 100, 100, 11, 0, 0, 0, 0,
                        0, 0)  # fmt: skip
    directory = b"".join(entry + name % number for number in range(1_000_000))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF - 1, 0xFFFF - 1, len(directory), 0, 0)
    (tmp_path / "a.zip").write_bytes(directory + end)
    began = time.process_time()
    (row,) = rows(reader, tmp_path / "a.zip").values()
    assert row.error_type == "TooManyMembers"
    assert time.process_time() - began < 1


def test_what_would_have_to_be_unpacked_is_bounded(
    reader: MembersReader, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_rows, "MAX_UNPACKED", 10_000)
    monkeypatch.setattr(deflated, "MAX_HEAD_BYTES", 20_000)
    plain = (files / "plain.tif").read_bytes()
    far = bytearray(plain) + bytes(50_000)  # its header is at its end
    far += plain[8:]
    far[4:8] = struct.pack("<I", len(plain) + 50_000)
    members = [("bomb.png", bytes(100_000)), ("bomb.txt", bytes(100_000)), ("far.tif", bytes(far)),
               ("near.tif", plain + bytes(100_000))]  # fmt: skip
    found = rows(reader, zipped(tmp_path / "a.zip", members))
    assert set(found) == {"bomb.png", "far.tif", "near.tif"}
    assert found["near.tif"].ok
    for name in ("bomb.png", "far.tif"):
        assert found[name].error_type == "TooMuchToUnpack"
        assert "bytes would have to be unpacked, and the limit is 10,000" in (
            found[name].error_message or ""
        )
    assert len(rows(reader, stored(tmp_path / "b.zip", members))) == 3


def test_a_bomb_takes_little_time_and_memory(reader: MembersReader, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("a.tif", "w") as member,
    ):
        member.write(b"II*\0\xf0\xff\xff\x40")  # its header is far behind
        for _ in range(11):
            member.write(bytes(100_000_000))
    began = time.process_time()
    (row,) = rows(reader, archive).values()
    assert row.error_type == "TooMuchToUnpack"
    assert time.process_time() - began < 1


def test_rows_are_bounded_by_their_bytes(
    reader: MembersReader, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_rows, "MAX_ROWS_BYTES", 300)
    plain = (files / "plain.tif").read_bytes()
    archive = zipped(tmp_path / "a.zip", [(f"{number}.tif", plain) for number in range(9)])
    found = rows(reader, archive)
    assert 1 < len(found) < 10
    assert "was left out, as the tags of the members before" in (found[None].error_message or "")


def test_time_is_bounded_and_each_member_counts_as_progress(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = (files / "plain.tif").read_bytes()
    archive = zipped(tmp_path / "a.zip", [(f"{number}.tif", plain) for number in range(9)])
    made = make_reader(None)
    assert isinstance(made, Router)
    late = MembersReader(made, ALL, 0.0)
    found = rows(late, archive)
    assert list(found) == [None]
    assert found[None].error_message == "0.tif and what follows was not read within 0 s"
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1
        if counted == 5:
            raise Stopped

    def read() -> None:
        base.watch_progress("test", count)
        with pytest.raises(Stopped):
            MembersReader(made, ALL, 60.0).read(bytes(archive))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert counted == 5


def test_an_archive_may_take_longer_than_a_file(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = (files / "plain.tif").read_bytes()
    archive = zipped(tmp_path / "a.zip", [(f"{number}.tif", plain) for number in range(9)])
    decode = Router.decode

    def slow(*given: Any) -> Record:
        time.sleep(0.1)
        return decode(*given)

    monkeypatch.setattr(Router, "decode", slow)

    def statuses(seconds: float) -> list[str]:
        made = make_reader(None)
        several = with_members(made, ALL, seconds)

        async def read() -> list[str]:
            async with HeaderPool(several, made, Settings(timeout=seconds)) as pool:
                rows = [batch async for batch in pool.read([bytes(archive)])]
                return [status for batch in rows for status in batch["status"].to_pylist()]

        return asyncio.run(read())

    assert statuses(0.5) == ["success"] * 9
    assert statuses(0.05) == ["fatal"]  # this is too short for one of them


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([*MAKERS, "a.tif.gz"]))
def test_any_bytes_give_rows(
    reader: MembersReader, files: Path, tmp_path_factory: pytest.TempPathFactory, seed: int,
    name: str,
) -> None:  # fmt: skip
    dice = random.Random(seed)
    path = tmp_path_factory.mktemp("mutants") / name
    plain = (files / "plain.tif").read_bytes()
    if name in MAKERS:
        MAKERS[name](path, [("a.tif", plain), ("b.txt", b"x"), ("c.tif", plain)])
    else:
        path.write_bytes(gzip.compress(plain))
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice([1, 3, 30])):
        content[dice.randrange(len(content))] = dice.choice([0, 1, 0xFF, dice.randrange(256)])
    path.write_bytes(content)
    found = rows(reader, path)
    assert found
    assert all(row.ok or row.error_message for row in found.values())


def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    content = header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(content)

    def read_at(offset: int, size: int) -> bytes:
        return content[offset : offset + size]

    archive = TarArchive(read_at, len(content), packed=False, on_block=lambda: None)
    with pytest.raises(ArchiveError, match="a header of 8,589,934,592 bytes"):
        list(archive.entries())


def test_archives_with_64_bit_sizes_and_bytes_before_them(
    reader: MembersReader, files: Path, tmp_path: Path
) -> None:
    plain = (files / "plain.tif").read_bytes()
    before = tmp_path / "program.zip"
    before.write_bytes(b"#!/bin/sh\n" * 100)
    with zipfile.ZipFile(before, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.tif", plain)
    assert rows(reader, before)["a.tif"].ok
    large = tmp_path / "large.zip"
    with zipfile.ZipFile(large, "w") as archive, archive.open("a.tif", "w", force_zip64=True) as to:
        to.write(plain)
    assert rows(reader, large)["a.tif"].ok
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(66_000):  # more than 16 bits tell
            archive.writestr(f"{number}", b"")
    size = many.stat().st_size
    with many.open("rb") as file:
        found = ZipArchive(lambda at, length: os.pread(file.fileno(), length, at), size)
        assert len(list(found.entries())) == entries.MAX_MEMBERS
        assert not found.knows_all


# Runs


def extract(*arguments: str | bytes | Path) -> tuple[int, str]:
    done = run(["extract", *arguments])
    return done.returncode, done.stderr.decode()


def found_in(catalog: Path) -> list[tuple[str, str | None, str]]:
    rows = [(row["filepath"], row["member"], row["status"]) for row in rows_of(catalog)]
    return [(os.path.basename(path), member, status) for path, member, status in rows]


@pytest.fixture
def archives(files: Path, tmp_path: Path) -> Path:
    """Archives and a plain file."""
    folder = tmp_path / "archives"
    folder.mkdir()
    plain = (files / "plain.tif").read_bytes()
    zipped(folder / "a.zip", [("x.tif", plain), ("y.tif", plain), ("z.txt", b"")])
    tarred(folder / "b.tar", [("x.tif", plain)])
    packed_tar(folder / "c.tgz", [("x.tif", plain)])
    (folder / "d.tif.gz").write_bytes(gzip.compress(plain))
    (folder / "e.tif").write_bytes(plain)
    return folder


PLAIN = [("a.zip", "x.tif", "success"), ("a.zip", "y.tif", "success"),
         ("b.tar", "x.tif", "success"), ("d.tif.gz", "d.tif", "success"),
         ("e.tif", None, "success")]  # fmt: skip


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_gives_each_member_a_row(archives: Path, tmp_path: Path, workers: str) -> None:
    catalog = tmp_path / "catalog.parquet"
    status, said = extract(archives, "-o", catalog, "--workers", workers)
    assert status == 0
    assert "4 files read (5 rows), 1 no raster" in said
    assert "1 archive was not looked into: --members all reads what is inside" in said
    assert found_in(catalog) == PLAIN
    before = catalog.stat()
    status, said = extract(archives, "-o", catalog, "--workers", workers)
    assert "0 files read, 5 skipped" in said
    assert catalog.stat().st_mtime_ns == before.st_mtime_ns


def test_kinds_of_archives_are_chosen(archives: Path, tmp_path: Path) -> None:
    everything, nothing = tmp_path / "all.ndjson", tmp_path / "none.parquet"
    assert extract(archives, "-o", everything, "--members", "all")[0] == 0
    rows = [json.loads(line) for line in everything.read_text().splitlines()]
    assert [row["member"] for row in rows] == ["x.tif", "y.tif", "x.tif", "x.tif", "d.tif", None]
    assert extract(archives, "-o", nothing, "--members", "none", "--strict")[0] == 3
    assert [member for _, member, _ in found_in(nothing)] == [None] * 5
    assert extract(archives, "-o", nothing, "--strict", "--overwrite")[0] == 3
    hint = "not recognized as being in a supported file format; what is in it is read with"
    assert f"{hint} --members tgz" in rows_of(nothing)[3]["error_message"]
    status, said = extract(archives, "-o", tmp_path / "x.parquet", "--members", "zip,rar")
    assert status != 0
    assert "members: 'rar' is no kind of archive: give zip, tar, gz, tgz" in said
    with pytest.raises(SettingsError, match="'rar' is no kind of archive"):
        Settings(members=("rar",))


def test_an_update_reads_a_changed_archive_anew(
    archives: Path, files: Path, tmp_path: Path
) -> None:
    catalog, plain = tmp_path / "catalog.parquet", (files / "plain.tif").read_bytes()
    assert extract(archives, "-o", catalog)[0] == 0
    zipped(archives / "a.zip", [("y.tif", plain), ("w.tif", plain), ("bad.tif", b"II*\0")])
    assert extract(archives, "-o", catalog)[0] == 0
    assert found_in(catalog) == PLAIN
    _, said = extract(archives, "-o", catalog, "--update")
    assert "1 file read (3 rows)" in said
    assert found_in(catalog)[:3] == [("a.zip", "bad.tif", "error"), ("a.zip", "w.tif", "success"),
                                     ("a.zip", "y.tif", "success")]  # fmt: skip
    assert found_in(catalog)[3:] == PLAIN[2:]
    _, said = extract(archives, "-o", catalog, "--update")
    assert "0 files read, 5 skipped" in said
    _, said = extract(archives, "-o", catalog, "--retry-failed")
    assert "1 file read (3 rows), 1 with problems, 1 no raster" in said
    _, said = extract(archives, "-o", catalog, "--retry-failed", "--members", "all")
    assert "2 files read (4 rows), 1 with problems" in said
    assert ("c.tgz", "x.tif", "success") in found_in(catalog)
    (archives / "a.zip").unlink()
    _, said = extract(archives, "-o", catalog, "--prune")
    assert [row[0] for row in found_in(catalog)] == ["b.tar", "c.tgz", "d.tif.gz", "e.tif"]


def test_merged_catalogs_have_the_members_of_the_later_archive(
    archives: Path, files: Path, tmp_path: Path
) -> None:
    old, new, both = (tmp_path / f"{name}.parquet" for name in ("old", "new", "both"))
    extract(archives, "-o", old)
    zipped(archives / "a.zip", [("new.tif", (files / "plain.tif").read_bytes())])
    later = time.time() + 10
    os.utime(archives / "a.zip", (later, later))
    extract(archives, "-o", new)
    for order in ([old, new], [new, old]):
        assert run(["merge", *order, "-o", both, "--overwrite"]).returncode in (0, 3)
        assert found_in(both) == [("a.zip", "new.tif", "success"), *PLAIN[2:]]


def test_batches_and_parts_do_not_separate_members(files: Path, tmp_path: Path) -> None:
    folder, catalog = tmp_path / "archives", tmp_path / "catalog.parquet"
    folder.mkdir()
    plain = (files / "plain.tif").read_bytes()
    for number in range(12):
        zipped(folder / f"{number:02d}.zip", [(f"{member:03d}.tif", plain) for member in range(30)])
        (folder / f"{number:02d}.tif").write_bytes(plain)
    status, said = extract(folder, "-o", catalog, "--batch-size", "7", "--sort", "spatial")
    assert status == 0, said
    assert len(found_in(catalog)) == 12 * 31
    assert extract("-o", catalog, "--sort", "path", folder)[0] == 0
    assert found_in(catalog) == sorted(found_in(catalog), key=lambda row: (row[0], row[1] or ""))


@pytest.mark.parametrize("order", ["path", "none"])
def test_killed_and_resumed_each_member_is_there_once(
    files: Path, tmp_path: Path, order: str
) -> None:
    folder, catalog = tmp_path / "archives", tmp_path / "catalog.parquet"
    folder.mkdir()
    plain = (files / "plain.tif").read_bytes()
    for number in range(6):
        zipped(folder / f"{number}.zip", [(f"{member}.tif", plain) for member in range(5)])
        (folder / f"{number}.tif").write_bytes(plain)
    command: list[str | bytes | Path] = ["extract", folder, "-o", catalog]
    command += ["--batch-size", "6", "--workers", "0", "--sort", order]
    expected = sorted([(f"{n}.zip", f"{m}.tif") for n in range(6) for m in range(5)])
    expected += [(f"{n}.tif", "") for n in range(6)]
    assert traced(tmp_path / "trace", command).returncode == 0
    assert "fsync" in calls_of(tmp_path / "trace")
    for call, number in [("fsync", 2), ("rename", 1), ("fdatasync", 3), ("unlink", 1)]:
        for left in tmp_path.glob("catalog*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        killed_at(call, number, command)
        assert run(command).returncode == 0
        found = [(path, member or "") for path, member, _ in found_in(catalog)]
        assert sorted(found) == sorted(expected)
        assert leftovers(catalog) == set()


def test_a_table_of_a_few_paths_has_all_members(archives: Path) -> None:
    table = rastermeta_async.read_table([archives / "a.zip", archives / "a.zip"], Settings())
    assert table.column("member").to_pylist() == ["x.tif", "y.tif"] * 2


def test_workers_keep_count_of_paths(archives: Path) -> None:
    paths = [archives / "a.zip", archives / "e.tif"] * 20
    table = rastermeta_async.read_table(paths, Settings(workers=2))
    assert sorted(map(str, table.column("member").to_pylist())) == sorted(
        ["x.tif", "y.tif", "None"] * 20
    )


# Stores


@pytest.fixture
def server(archives: Path, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "store").mkdir()
    archives.rename(tmp_path / "store" / "bucket")
    with serving(str(tmp_path / "store")) as found:
        yield found


def from_store(server: Server | str, *keys: str, **more: Any) -> list[Record]:
    url = server if isinstance(server, str) else server.url
    access = Access(no_sign_request=True, endpoint_url=url, region="us-east-1")
    table = rastermeta_async.read_table(
        [f"s3://bucket/{key}" for key in keys], Settings(access=access, members=ALL, **more)
    )

    return [row for batch in table.to_batches() for row in from_batch(batch)]


def test_members_of_objects_are_read_by_ranges(server: Server, files: Path) -> None:
    plain = (files / "plain.tif").read_bytes() + bytes(200_000)
    noise = random.Random(1).randbytes(300_000)
    bucket = Path(server.folder) / "bucket"
    stored(bucket / "big.zip", [("noise", noise), ("x.tif", plain), ("y.tif", plain)])
    found = from_store(server, "big.zip")
    assert [(row.member, row.status, row.reader) for row in found] == [
        ("x.tif", "success", "tiff_header"), ("y.tif", "success", "tiff_header"),
    ]  # fmt: skip
    assert {row.filepath for row in found} == {"s3://bucket/big.zip"}
    assert {row.file_size for row in found} == {(bucket / "big.zip").stat().st_size}
    assert all(row.etag for row in found)
    # Its head, the directory, and a request for each member. GDAL asks for the noise, too.
    ours = [head for head in server.headers if "range: bytes" in head]  # GDAL writes Range
    assert len(ours) == 5
    server.counts.clear()
    zipped(bucket / "more.zip", [("noise.tif", noise), *((f"{n}.tif", plain) for n in range(9))])
    assert len(from_store(server, "more.zip")) == 10


def test_members_of_objects_equal_those_of_files(files: Path, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    paths = [make(bucket / name, content_of(files)) for name, make in MAKERS.items()]
    table = rastermeta_async.read_table(paths, Settings(members=ALL))
    local: dict[str, dict[str | None, Record]] = {name: {} for name in MAKERS}
    for row in (row for batch in table.to_batches() for row in from_batch(batch)):
        local[os.path.basename(row.filepath)][row.member] = row
    with serving_apart(str(tmp_path)) as url:
        found = from_store(url, *MAKERS)
    for name, members in local.items():
        remote = {row.member: row for row in found if row.filepath.endswith(name)}
        assert set(remote) == set(members), name
        for member, row in remote.items():
            if member == "d.nc":  # GDAL's netCDF driver reads no objects
                continue
            columns = differing_columns(row, members[member])
            assert not set(columns) - OF_THE_FILE, (name, member, columns)


def test_a_member_of_a_tar_in_a_store_takes_one_request(server: Server, files: Path) -> None:
    plain = (files / "plain.tif").read_bytes() + bytes(100_000)
    path = Path(server.folder) / "bucket" / "many.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(50):
            folder = tarfile.TarInfo(f"{number}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for number in range(40):
            header = tarfile.TarInfo(f"{number}/x.tif")
            header.size = len(plain)
            archive.addfile(header, io.BytesIO(plain))
    found = from_store(server, "many.tar")
    assert [row.reader for row in found] == ["tiff_header"] * 40
    assert server.counts["GET"] <= 45


def test_archives_in_stores_that_are_none_say_so(server: Server) -> None:
    bucket = Path(server.folder) / "bucket"
    (bucket / "no.zip").write_bytes(b"nothing")
    zipped(bucket / "texts.zip", [("a.txt", b"nothing")])
    no, texts = from_store(server, "no.zip", "texts.zip")
    assert (no.error_type, no.member, no.file_size) == ("DamagedArchive", None, 7)
    assert (texts.status, texts.member) == ("error", None)
    assert "not recognized" in (texts.error_message or "")


def test_a_directory_of_64_bits_that_is_not_needed_is_read(
    reader: MembersReader, files: Path, tmp_path: Path
) -> None:
    plain = zipped(tmp_path / "plain.zip", [("x.tif", (files / "plain.tif").read_bytes())])
    content = plain.read_bytes()
    at = content.rindex(b"PK\5\6")
    count, size, offset = struct.unpack_from("<10xHLL", content, at)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    plain.write_bytes(content[:at] + record + locator + content[at:])
    assert [*rows(reader, plain)] == ["x.tif"]
    with opened(plain, "x.tif") as dataset:
        assert dataset.count == 1


def test_a_pool_without_archives_reads_none(archives: Path) -> None:
    made = make_reader(None)
    assert isinstance(with_members(made, (), 60.0), MembersReader)

    async def read() -> int:
        async with HeaderPool(made, made, Settings(members=())) as pool:
            return sum([batch.num_rows async for batch in pool.read([bytes(archives / "a.zip")])])

    assert asyncio.run(read()) == 1

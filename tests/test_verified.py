"""What was written before is used again only if it is what the log says, in every format."""

from __future__ import annotations

import errno
import gc
import io
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import commit, some_rows
from factory import records_of
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.catalog import digest as digests
from rastermeta_async.catalog.checkpoint import Part, Sealed, encode, read_entries
from rastermeta_async.catalog.digest import BLOCK_BYTES, Digest, VerifiedFile, digest_of
from rastermeta_async.catalog.formats import format_of
from rastermeta_async.catalog.names import log_path, parts_folder
from rastermeta_async.catalog.output import Output
from rastermeta_async.model.errors import CheckpointError, RastermetaError
from rastermeta_async.model.record import Record
from rastermeta_async.model.settings import Order

CATALOGS = {
    "by path": ("catalog.parquet", Order.PATH), "by place": ("catalog.parquet", Order.SPATIAL),
    "in no order": ("catalog.parquet", Order.NONE), "lines": ("catalog.ndjson", Order.PATH),
    "an array": ("catalog.json", Order.PATH),
}  # fmt: skip
ROWS = some_rows(60)


@pytest.fixture(params=CATALOGS)
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Order]:
    """Return a name, and an order, for a catalog."""
    name, order = CATALOGS[request.param]
    return tmp_path / name, order


def made(path: Path, order: Order, *batches: list[Record]) -> None:
    output = Output(str(path), order=order)
    commit(output, *batches)
    output.seal()
    output.close()


def rows_in(path: Path) -> list[Record]:
    found = records_of(format_of(str(path)).read(io.FileIO(path)))
    return sorted(found, key=lambda row: row.filepath)


def flipped(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("kind", [Sealed, Part])
def test_a_number_of_rows_that_is_not_the_logs_is_refused(
    catalog: tuple[Path, Order], kind: type[Sealed | Part]
) -> None:
    """Whatever is written of the rows next: the sums are to be right."""
    path, order = catalog
    made(path, order, ROWS[:20])
    stopped = Output(str(path))
    commit(stopped, ROWS[20:30])
    stopped.close()
    log = Path(log_path(str(path)))
    entries = [
        replace(entry, rows=entry.rows + 1) if isinstance(entry, kind) else entry
        for entry in read_entries(log.read_bytes(), str(log))
    ]  # fmt: skip
    log.write_bytes(b"".join(map(encode, entries)))
    for use in (Output.finished, Output.seal):
        output = Output(str(path))
        with pytest.raises(CheckpointError, match=r"it has \d+ rows, but the log says \d1"):
            use(output)
        output.close()


def test_a_part_replaced_by_a_copy_of_another_is_refused(catalog: tuple[Path, Order]) -> None:
    path, order = catalog
    output = Output(str(path), order=order)
    first, second = commit(output, ROWS[:30], ROWS[30:])
    folder = Path(parts_folder(str(path)))
    shutil.copy(folder / first.name, folder / second.name)
    with pytest.raises(CheckpointError, match=f"{second.name}: its content is not what the log"):
        output.seal()
    output.close()
    assert not path.exists()


def test_a_part_that_the_disk_does_not_give_is_said_so(
    catalog: tuple[Path, Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, order = catalog
    output = Output(str(path), order=order)
    (part,) = commit(output, ROWS)

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", refuse)
        with pytest.raises(CheckpointError, match=f"{part.name}: it cannot be read: .*Input"):
            output.seal()
    output.close()
    assert not path.exists()


@pytest.mark.parametrize("seed", range(4))
def test_a_bit_of_a_part_that_flips_is_refused(catalog: tuple[Path, Order], seed: int) -> None:
    path, order = catalog
    output = Output(str(path), order=order)
    parts = commit(output, ROWS[:30], ROWS[30:])
    dice = random.Random(seed)
    part = dice.choice(parts)
    flipped(Path(parts_folder(str(path)), part.name), dice.randrange(8 * part.size))
    with pytest.raises(CheckpointError, match=part.name):
        output.seal()
    output.close()
    assert not path.exists()


@pytest.mark.parametrize("seed", range(4))
def test_a_bit_of_a_catalog_that_flips_is_refused(catalog: tuple[Path, Order], seed: int) -> None:
    path, order = catalog
    made(path, order, ROWS[:50])
    flipped(path, random.Random(seed).randrange(8 * path.stat().st_size))
    before = path.read_bytes()
    with pytest.raises(RastermetaError, match=f"{path.name}.*--overwrite"):
        made(path, order, ROWS[50:])
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_flipped_bits(catalog: tuple[Path, Order]) -> None:
    """Of each format a hundred: in parts, in catalogs that are added to, and in their logs."""
    path, order = catalog
    dice = random.Random(str(catalog))
    refused = 0
    for number in range(100):
        for at in path.parent.iterdir():
            shutil.rmtree(at) if at.is_dir() else at.unlink()
        output = Output(str(path), order=order)
        commit(output, ROWS[:20])
        output.seal()
        parts = commit(output, ROWS[20:40], ROWS[40:])
        output.close()
        folder = Path(parts_folder(str(path)))
        files = [path, *(folder / part.name for part in parts), Path(log_path(str(path)))]
        victim = files[number % len(files)]
        flipped(victim, dice.randrange(8 * victim.stat().st_size))
        try:
            made(path, order)
        except RastermetaError:
            refused += 1
        else:  # the last line of the log was taken for torn: its part does not count
            kept = {row.filepath: row for row in rows_in(path)}
            assert kept.items() <= {row.filepath: row for row in ROWS}.items()
            assert victim.suffix == ".checkpoint"
            assert len(kept) >= 40
    assert refused >= 90


def test_an_edited_digit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.ndjson"
    made(path, Order.PATH, ROWS[:50])
    text = path.read_text()
    path.write_text(text.replace('"count":1', '"count":2', 1))
    assert path.read_text() != text
    with pytest.raises(CheckpointError, match="its content is not what the log says"):
        made(path, Order.PATH, ROWS[50:])


def test_what_is_not_touched_is_taken_over(catalog: tuple[Path, Order]) -> None:
    path, order = catalog
    made(path, order, ROWS[:50])
    made(path, order, ROWS[50:])
    assert [row.filepath for row in rows_in(path)] == [row.filepath for row in ROWS]


def test_pages_of_a_catalog_have_checksums(tmp_path: Path) -> None:
    path = tmp_path / "catalog.parquet"
    made(path, Order.PATH, ROWS)
    column = pq.read_metadata(path).row_group(0).column(0)
    flipped(path, 8 * (column.data_page_offset + column.total_compressed_size - 5))
    with pytest.raises((pa.ArrowException, OSError)):
        list(format_of(str(path)).read(io.FileIO(path)))


# Files


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "BLOCK_BYTES", 7)


@given(content=st.binary(max_size=40), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_a_digest_does_not_depend_on_the_pieces(content: bytes, cuts: list[int]) -> None:
    digest = Digest()
    start = 0
    for end in [*sorted(cuts), len(content)]:
        digest.update(content[start:end])
        start = max(start, end)
    assert digest.hexdigest() == Digest(content).hexdigest() == digest_of(io.BytesIO(content))


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_a_digest_has_one_part_a_block(size: int) -> None:
    assert len(Digest(bytes(size)).hexdigest()) == 32 * -(-size // BLOCK_BYTES)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size", [0, 6, 7, 8, 30])
def test_what_is_verified_reads_as_any_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    dice = random.Random(size)
    with (
        VerifiedFile(str(path), Digest(path.read_bytes()).hexdigest()) as file,
        path.open("rb") as plain,
    ):
        for _ in range(50):
            place, length = dice.randrange(size + 3), dice.choice([-1, 0, 1, 5, 7, 20])
            assert (file.seek(place), plain.seek(place)) == (place, place)
            assert file.read(length) == plain.read(length)
            assert file.tell() == plain.tell()


@pytest.mark.usefixtures("small_blocks")
def test_only_the_block_that_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(30))
    with VerifiedFile(str(path), Digest(bytes(30)).hexdigest()) as file:
        flipped(path, 8 * 15)
        assert file.read(14) == bytes(14)
        with pytest.raises(CheckpointError, match="file: its content is not what the log says"):
            file.read(1)


@pytest.mark.parametrize("length", [0, 29, 31])
@pytest.mark.usefixtures("small_blocks")
def test_a_file_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(length))
    with (
        pytest.raises(CheckpointError),
        VerifiedFile(str(path), Digest(bytes(30)).hexdigest()) as file,
    ):
        file.read()


def test_parts_that_were_read_leave_nothing_in_memory(tmp_path: Path) -> None:
    """A footer takes 150 KiB, and a run may read thousands of parts before garbage is collected."""
    output = Output(str(tmp_path / "catalog.parquet"))
    commit(output, *([row] for row in ROWS[:20]))
    gc.collect()
    gc.disable()
    try:
        output.finished()
        output.seal()
        left = sum(isinstance(one, pq.FileMetaData) for one in gc.get_objects())
    finally:
        gc.enable()
    output.close()
    assert left <= 2  # of the catalog

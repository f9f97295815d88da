"""Catalogs and logs from someone else: what is wrong is a sentence, whatever it is."""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from catalogs import at, seal
from command import COMMAND
from factory import band, failed, record, table

from rastermeta_async.catalog import reading
from rastermeta_async.catalog.checkpoint import encode, read_entries
from rastermeta_async.catalog.completed import batches_of
from rastermeta_async.catalog.formats import format_of
from rastermeta_async.catalog.names import log_path
from rastermeta_async.catalog.output import Output
from rastermeta_async.catalog.pages import BINARY, I32, LIST, STRUCT, TRUE, chunk_of, skip
from rastermeta_async.cli.status import status_of
from rastermeta_async.cli.summary import as_text, summary_of, to_json
from rastermeta_async.model.errors import OutputError, RastermetaError
from rastermeta_async.model.record import SCHEMA, SCHEMA_VERSION, VERSION_KEY
from rastermeta_async.stac.evidence import Rules
from rastermeta_async.stac.export import export

ROWS = [at(b"/%d.tif" % number, number, number) for number in range(20)] + [failed()]


def encoded(value: int) -> bytes:
    """Return a number as it is written."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """Return a signed number as one that is not."""
    return value << 1 ^ value >> 63


def field_head(number: int, step: int, kind: int) -> bytes:
    """Return the head of a field."""
    return bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + encoded(zigzag(number))


def summarised(catalog: Path) -> str:
    summary = summary_of(str(catalog))
    to_json(summary)
    return as_text(summary)


def whole(catalog: Path) -> None:
    for _ in batches_of(str(catalog), SCHEMA.names):
        pass


def exported(catalog: Path) -> None:
    for ending in ("ndjson", "parquet"):
        export(str(catalog), str(catalog.parent / f"items.{ending}"), Rules(), "all")


def told(catalog: Path) -> None:
    status = status_of(str(catalog))
    status.as_json()
    status.as_text()


def continued(catalog: Path) -> None:
    """Add to a copy of a catalog, which is adopted where there is no log."""
    seal(catalog, [at(b"/new.tif", 1, 2)])


DOORS: Sequence[Callable[[Path], object]] = (summarised, exported, told, continued)


def refusals(catalog: Path) -> list[str]:
    """Return what each command says of a catalog; anything but that fails."""
    said = []
    for door in DOORS:
        try:
            door(catalog)
        except RastermetaError as error:
            said.append(str(error))
    return said


def parquet_of(columns: dict[str, pa.Array], **options: Any) -> bytes:
    """Return a Parquet catalog, some columns of which are as given."""
    (rows,) = table(ROWS[: len(next(iter(columns.values())))]).to_batches()
    arrays = [columns.get(name, rows[name]) for name in SCHEMA.names]
    schema = pa.schema(
        [field.with_type(array.type) for field, array in zip(SCHEMA, arrays, strict=True)],
        metadata={**SCHEMA.metadata, b"rastermeta:order": b"path"},
    )
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), out, **options)
    return out.getvalue()


def column(name: str, value: Any, count: int = 3) -> dict[str, pa.Array]:
    """Return a column whose last value is of someone else."""
    good = table(ROWS[: count - 1])[name].to_pylist()
    return {name: pa.array([*good, value], SCHEMA.field(name).type)}


NO_TEXT = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(struct.pack("<2i", 0, 1)), pa.py_buffer(b"\xff")]
)
PLAIN = band()._asdict()
COLLECTIONS = b"\x01" + struct.pack("<II", 6, 1) + 1_000_000 * (b"\x01" + struct.pack("<II", 7, 1))
"""WKB over which GEOS ends the process."""

BAD_VALUES: dict[str, tuple[dict[str, pa.Array], str]] = {
    "no path": (column("filepath", None), "row 3: filepath is null"),
    "no UTF-8": ({"driver": pa.concat_arrays([pa.array(["GTiff"]), NO_TEXT])}, "row 2: driver"),
    "no status": (column("status", None), "row 3: status is null"),
    "another status": (column("status", "fine"), "row 3: status"),
    "three numbers": (column("res", [1.0, 2.0, 3.0]), "row 3: res has not 2 numbers"),
    "long message": (
        column("error_message", "https://h/get?" + "a=b&" * 10_000),
        "row 3: error_message has more than 20,000 characters",
    ),
    "no numbers": (column("transform", []), "row 3: transform has not 6 numbers"),
    "a number is null": (column("transform", [1.0, None] * 3), "row 3: transform"),
    "fewer than no bands": (column("count", -1), "row 3: count is negative"),
    "no width": (column("width", None), "row 3: there are bands, but width or height is null"),
    "a size below nothing": (column("file_size", -(2**63)), "row 3: file_size is negative"),
    "a time beyond Python": (
        {"mtime": pa.array([0, 2**62]).cast(SCHEMA.field("mtime").type)}, "row 2: mtime"
    ),
    "half a box": (column("bbox", {"xmin": 1.0}), "row 3: bbox.ymin is null"),
    "a box of NaN": (
        column("bbox", dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), float("nan"))),
        "row 3: bbox is no box of degrees",
    ),
    "a box beyond the Earth": (
        column("bbox", {"xmin": -1e308, "ymin": 0.0, "xmax": 1e308, "ymax": 1.0}), "row 3: bbox"
    ),
    "half of bounds": (column("bounds", {"left": 1.0}), "row 3: bounds.bottom is null"),
    "a point": (column("geometry", shapely.to_wkb(shapely.Point(1, 2))), "row 3: geometry"),
    "no WKB": (column("geometry", b""), "row 3: geometry"),
    "collections": (column("geometry", COLLECTIONS), "row 3: geometry"),
    "a band that is null": (column("bands", [None]), "row 3: bands (an element) is null"),
    "a band without a type": (column("bands", [PLAIN | {"dtype": None}]), ".dtype is null"),
    "a band without a scale": (column("bands", [PLAIN | {"scale": None}]), ".scale is null"),
    "an exact nodata in words": (
        column("bands", [PLAIN | {"nodata_text": "9" * 5000}]), "row 3: bands has a nodata_text"
    ),
    "a tag of nothing": (
        column("dataset_tags", [{"key": "DATETIME"}]), "dataset_tags (an element).value is null"
    ),
    "a tag that is null": (column("dataset_tags", [None]), "dataset_tags (an element) is null"),
    "a tag of a band": (
        column("band_tags", [{"band": 1, "key": "A"}]), "band_tags (an element).value is null"
    ),
    "a tag of no band": (
        column("band_tags", [{"key": "A", "value": "x"}]), "band_tags (an element).band is null"
    ),
    "a problem that is null": (column("cog_problems", [None]), "cog_problems (an element)"),
    "another type": ({"count": pa.array(["1", "2"])}, "changed by another program"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_VALUES)
def test_a_row_that_no_run_writes_is_named(case: str, tmp_path: Path) -> None:
    columns, reason = BAD_VALUES[case]
    catalog = tmp_path / "catalog.parquet"
    catalog.write_bytes(parquet_of(columns))
    with pytest.raises(OutputError) as caught:
        whole(catalog)
    assert str(catalog) in str(caught.value)
    assert reason in str(caught.value)
    said = refusals(catalog)
    assert any(reason in one for one in said), "who adopts a catalog looks at all of it"


@pytest.mark.parametrize(
    "columns",
    [
        column("geometry", shapely.to_wkb(shapely.box(0, 0, float("nan"), 1), byte_order=1)),
        column("geometry", b"\x01\x03\0\0\0\xff\xff\xff\xff"),
        column("geometry", b"\x01\x06\0\0\0\0\0\0\0"),
        column("file_size", 2**63 - 1),
        column("crs", "[" * 5000),
        column("crs", "GEOGCS[" * 5000),
        column("crs_wkt", '{"a":' * 5000),
        column("filepath_bytes", b"\0\xff\n"),
        column(
            "dataset_tags",
            [{"key": "DATETIME", "value": "2020"}, {"key": "datetime", "value": "9" * 10_000}],
        ),
        column("error_message", "x" * 1_000_000),
        column("res", [float("nan"), float("inf")]),
        column("transform", [float("nan")] * 6),
        column("bounds", dict.fromkeys(("left", "bottom", "right", "top"), float("inf"))),
        column("subdatasets", ["x"] * 100_000),
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_an_odd_row_ends_no_command(columns: dict[str, pa.Array], tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    catalog.write_bytes(parquet_of(columns))
    refusals(catalog)


def test_a_crs_is_never_asked_for_elsewhere(tmp_path: Path) -> None:
    """GDAL takes a URL in the place of a CRS, and fetches it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/crs"
        catalog = tmp_path / "catalog.parquet"
        catalog.write_bytes(parquet_of(column("crs", url)))
        program = [*COMMAND, "summary", str(catalog)]
        subprocess.run(program, timeout=30, check=True, capture_output=True)
        with pytest.raises(BlockingIOError):
            server.accept()


# Files that are small, and large in memory


def test_one_text_in_many_rows_is_refused_before_it_is_written_out(tmp_path: Path) -> None:
    rows = 4000
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 1_000_000])
    plain = {name: pa.nulls(rows, SCHEMA.field(name).type) for name in SCHEMA.names}
    plain |= {"filepath": pa.array(map(str, range(rows))), "status": pa.array(["error"] * rows)}
    arrays = [text if name == "error_message" else plain[name] for name in SCHEMA.names]
    schema = SCHEMA.set(
        SCHEMA.get_field_index("error_message"), pa.field("error_message", text.type)
    )
    raw = pa.Table.from_arrays(arrays, schema=schema)
    content = without_a_stored_schema(raw, compression="zstd")
    assert len(content) < 100_000
    said = refused_in_little_memory(tmp_path, content)
    assert "4,000 rows have texts of 4,000,0" in said


def without_a_stored_schema(rows: pa.Table, **options: Any) -> bytes:
    """Return a Parquet file that says that its texts are plain ones, whatever was given."""
    out = io.BytesIO()
    writer = pq.ParquetWriter(out, rows.schema, store_schema=False, **options)
    writer.write_table(rows)
    writer.add_key_value_metadata({**SCHEMA.metadata, "ARROW:schema": _stored(SCHEMA)})
    writer.close()
    return out.getvalue()


def _stored(schema: pa.Schema) -> bytes:
    return base64.b64encode(schema.serialize().to_pybytes())


def refused_in_little_memory(folder: Path, content: bytes, gib: float = 1.5) -> str:
    """Return what `summary` says in a process that must not take more memory than that."""
    catalog = folder / "hostile.parquet"
    catalog.write_bytes(content)
    limit = (
        f"import resource; resource.setrlimit(resource.RLIMIT_DATA, 2 * ({int(gib * 2**30)},));"
        "import runpy, sys; sys.argv[0] = 'rastermeta'; "
        "runpy.run_module('rastermeta_async', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", limit, "summary", str(catalog)],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert "Traceback" not in said
    return said


def test_more_rows_than_bytes_are_refused(tmp_path: Path) -> None:
    rows = table([failed()] * 100_000)
    out = io.BytesIO()
    pq.write_table(rows, out, compression="zstd")
    assert "claims 100,000 rows in fewer bytes" in refused_in_little_memory(
        tmp_path, out.getvalue()
    )


def test_a_page_that_is_decompressed_to_gigabytes_is_refused(tmp_path: Path) -> None:
    columns = {"error_message": pa.array(["x" * 300_000_000])}
    content = parquet_of(columns, compression="zstd", use_dictionary=False, write_statistics=False)
    assert len(content) < 200_000
    assert "row group 1 takes" in refused_in_little_memory(tmp_path, content)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_texts_that_repeat_others_are_refused(tmp_path: Path, version: str) -> None:
    """Two bytes of them may stand for a text of any length."""
    encodings = dict.fromkeys(["filepath", "error_message"], "DELTA_BYTE_ARRAY")
    content = parquet_of(
        column("error_message", "x"), data_page_version=version, use_dictionary=False,
        column_encoding=encodings,
    )  # fmt: skip
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(OutputError, match="texts that repeat others"):
        whole(tmp_path / "a.parquet")


def page(kind: int, size: int, stored: int, count: int, encoding: int = 0) -> bytes:
    """Return a page of Parquet without content: what its head says need not be so."""

    def fields(*pairs: tuple[int, int]) -> bytes:
        steps = zip([0, *(number for number, _ in pairs)], pairs, strict=False)
        return b"".join(
            field_head(number, number - before, I32) + encoded(zigzag(value))
            for before, (number, value) in steps
        )

    inner = {0: 5, 2: 7, 3: 8}.get(kind, 5)
    told = fields((1, count), (4 if kind == 3 else 2, encoding)) + b"\0"
    return (
        fields((1, kind), (2, size), (3, stored))
        + field_head(inner, inner - 3, STRUCT)
        + (told + b"\0")
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (page(0, 100, 0, 10), None),
        (page(2, 100, 0, 90) + page(0, 50, 0, 10), None),
        (page(3, 100, 0, 10), None),
        (page(-1, 100, 0, 10), "head of a page is damaged"),
        (page(0, -100, 0, 10), "head of a page is damaged"),
        (page(0, 100, -1, 10), "head of a page is damaged"),
        (page(0, 100, 0, -1), "a page is damaged"),
        (page(2, 100, 0, 101), "a page is damaged"),
        (page(2, 100, 0, -1), "a page is damaged"),
        (page(0, 100, 0, 10, 7), "texts that repeat others"),
        (page(2, 100, 0, 10, 7), "texts that repeat others"),
        (page(3, 100, 0, 10, 7), "texts that repeat others"),
        (page(1 << 32, 100, 0, 10, 7), "more than 32 bits"),
        (page(0, 100, 0, 10 + (1 << 32)), "more than 32 bits"),
        (page(0, 100, 0, 10)[:-4], "head of a page is damaged"),
    ],
)
def test_heads_of_pages_are_believed_only_where_they_make_sense(
    content: bytes, reason: str | None
) -> None:
    column = SimpleNamespace(
        data_page_offset=0, dictionary_page_offset=None, total_compressed_size=len(content),
        num_values=10,
    )  # fmt: skip
    if reason is None:
        found = chunk_of(io.BytesIO(content), column)
        assert (found.values, found.largest, found.has_dictionary) == (10, 100, found.size == 150)
        return
    with pytest.raises(ValueError, match=reason):
        chunk_of(io.BytesIO(content), column)


def test_a_page_whose_checksum_is_wrong_is_refused(tmp_path: Path) -> None:
    content = parquet_of(
        column("error_message", "abcdef"), compression="none", use_dictionary=False,
        write_statistics=False, write_page_checksum=True,
    )  # fmt: skip
    assert content.count(b"abcdef") == 1
    (tmp_path / "a.parquet").write_bytes(content.replace(b"abcdef", b"abcxef"))
    with pytest.raises(OutputError, match=r"cannot be read: .*CRC"):
        whole(tmp_path / "a.parquet")


def test_a_list_of_millions_of_nothing_is_refused(tmp_path: Path) -> None:
    count = 40_000_000
    offsets = pa.array([0, count], pa.int32())
    columns = {"overviews": pa.ListArray.from_arrays(offsets, pa.nulls(count, pa.string()))}
    content = parquet_of(
        {"subdatasets": columns["overviews"], "cog_problems": columns["overviews"]}
    )
    assert len(content) < 200_000
    assert "lists that are too long" in refused_in_little_memory(tmp_path, content)


def test_rows_of_another_version_say_so(tmp_path: Path) -> None:
    """As the parts of a run that another version began."""
    part = tmp_path / "catalog.parquet"
    pq.write_table(pa.table({"filepath": ["a"]}).replace_schema_metadata({VERSION_KEY: "3"}), part)
    told = (
        rf"^it was made by another version of rastermeta \(schema 3; this one has {SCHEMA_VERSION}"
    )
    with part.open("rb") as file, pytest.raises(reading.NotRowsError, match=told):
        reading.ParquetRows(file)
    with pytest.raises(OutputError, match=f"`rastermeta extract … --overwrite -o {part}`"):
        whole(part)


def test_a_large_dictionary_that_is_little_used_is_read(tmp_path: Path) -> None:
    """What the texts of a batch take is measured, not guessed from the longest one."""
    rows = [record(b"/%d.tif" % at, crs="EPSG:32633") for at in range(3000)]
    rows.append(record(b"/long.tif", crs="x" * 1_000_000))
    catalog = tmp_path / "catalog.parquet"
    pq.write_table(table(rows), catalog, row_group_size=len(rows))
    assert summary_of(str(catalog)).counts["crs"]["EPSG:32633"] == 3000


def test_dictionaries_within_lists_are_read_as_they_are(tmp_path: Path) -> None:
    dice = random.Random(2)
    rows = [
        record(
            b"/%d.tif" % at,
            bands=[band(description=dice.choice("abcd"), mask_flags=[]) for _ in range(at % 4)],
            dataset_tags={dice.choice("xyz"): dice.choice("uvw") for _ in range(at % 3)},
            band_tags={1: {dice.choice("xyz"): str(at % 7)}} if at % 5 else None,
            subdatasets=None if at % 2 else [dice.choice("uvw")],
        )
        for at in range(3000)
    ]
    catalog = tmp_path / "catalog.parquet"
    pq.write_table(table(rows), catalog, row_group_size=700, data_page_size=512,
                   dictionary_pagesize_limit=20)  # fmt: skip
    with catalog.open("rb") as file:
        found = pa.Table.from_batches(reading.ParquetRows(file).batches(rows=100))
    assert found.equals(table(rows))


def test_a_footer_of_any_length_is_not_read(tmp_path: Path) -> None:
    catalog, length = tmp_path / "catalog.parquet", reading.MAX_FOOTER_BYTES + 1
    with catalog.open("wb") as file:
        file.truncate(4 + length)  # it takes no room on the disk
        file.seek(0, io.SEEK_END)
        file.write(struct.pack("<I", length) + b"PAR1")
    with pytest.raises(OutputError, match=f"its footer has {length:,} bytes"):
        whole(catalog)
    refusals(catalog)


def test_names_of_columns_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    out = io.BytesIO()
    pq.write_table(table(ROWS), out, store_schema=False)
    catalog.write_bytes(out.getvalue().replace(b"error_message", b"\xffrror_message"))
    assert refusals(catalog)
    with pytest.raises(OutputError, match=r"catalog\.parquet"):
        whole(catalog)


def test_a_row_that_no_run_writes_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    rows = [record(b"/%d.tif" % at) for at in range(30)]
    pq.write_table(table([*rows, record(b"/30.tif", count=-1)]), catalog, row_group_size=10)
    with pytest.raises(OutputError, match="row 31: count is negative"):
        whole(catalog)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"PAR1" + struct.pack("<I", 2**31) + b"PAR1",
        b"PAR1" + b"\x15\x04\x19\xfc\xff\xff\xff\xff\x0f" + struct.pack("<I", 9) + b"PAR1",
        b"PAR1" + b"\x1c" * 100_000 + struct.pack("<I", 100_000) + b"PAR1",
        b"PAR1" + b"\x19\xf9\xff\xff\xff\xff\x0f" * 100 + struct.pack("<I", 700) + b"PAR1",
    ],
    ids=["empty", "cut", "no footer", "a footer of 2 GiB", "schema of 2^32", "deep", "lists"],
)
def test_a_footer_of_nonsense_is_refused(content: bytes, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    catalog.write_bytes(content)
    assert len(refusals(catalog)) == len(DOORS)


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"columns": 1}',
        b'{"columns": {"geometry": {"geometry_types": [[]]}}}',
    ],
    ids=["empty", "no UTF-8", "deep", "no columns", "no kinds"],
)
@pytest.mark.parametrize("key", [b"geo", b"rastermeta:order", b"rastermeta:schema_version"])
def test_metadata_of_nonsense_end_no_command(key: bytes, metadata: bytes, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    out = io.BytesIO()
    writer = pq.ParquetWriter(out, SCHEMA)
    writer.write_table(table(ROWS))
    writer.add_key_value_metadata({b"rastermeta:order": b"none", key: metadata})
    writer.close()
    catalog.write_bytes(out.getvalue())
    refusals(catalog)


def test_values_of_thrift_end_and_are_bounded() -> None:
    """No length that is claimed is believed, no depth followed to the end."""
    deep = 1000 * field_head(1, 1, STRUCT)
    with pytest.raises(ValueError, match="too deep"):
        skip(deep + 2000 * b"\0", 0, STRUCT)
    endless = bytes([0xF0 | LIST]) + encoded(2**40) + b"\x05"
    with pytest.raises(ValueError, match="longer than all"):
        skip(endless, 0, LIST)
    with pytest.raises(ValueError, match="64 bits"):
        skip(b"\xff" * 1_000_000, 0, BINARY)
    assert skip(encoded(zigzag(-5)), 0, I32) == 1
    assert skip(bytes([3 << 4 | TRUE, 1, 2, 1, 9]), 0, LIST) == 4, "a truth takes a byte"


# JSON


def line_of(**fields: Any) -> bytes:
    out = io.BytesIO()
    format_of("x.ndjson").write(out, [table(ROWS[:1])])
    return json.dumps(json.loads(out.getvalue()) | fields).encode() + b"\n"


GOOD = line_of()
BAD_LINES: dict[str, bytes] = {
    "not an object": b"[]\n",
    "a number": b"1\n",
    "deep": b'{"filepath":' + b"[" * 200_000 + b"\n",
    "deep and closed": b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"\n",
    "no UTF-8": b'{"filepath": "\xff"}\n',
    "NUL": b"\0\0\0\n",
    "empty": b"\n",
    "half": GOOD[: len(GOOD) // 2],
    "two": GOOD.rstrip() * 2 + b"\n",
    "a surrogate": line_of(driver="\ud800"),
    "NaN": line_of(nodata=float("nan")),
    "beyond 64 bits": line_of(file_size=10**30),
    "beyond 32 bits": line_of(count=10**10),
    "5000 digits": line_of(count=1).replace(b'"count": 1', b'"count": ' + b"9" * 5000),
    "a real beyond doubles": line_of(nodata=10**400),
    "a text for a number": line_of(count="1"),
    "a word for a real": line_of(nodata="infinitely"),
    "a truth for a real": line_of(nodata=True),
    "a number for a text": line_of(driver=1),
    "a number for a truth": line_of(tiled="yes"),
    "a text for a list": line_of(cog_problems="abc"),
    "an object for a list": line_of(res={"x": 1}),
    "a list for tags": line_of(dataset_tags=[1]),
    "tags of a band that is none": line_of(band_tags={"one": {}}),
    "no base64": line_of(geometry="?"),
    "base64 and more": line_of(geometry=json.loads(GOOD)["geometry"] + "?"),
    "a number for base64": line_of(geometry=7),
    "no time": line_of(mtime="yesterday"),
    "a number for a time": line_of(mtime=7),
    "a time before the first": line_of(mtime="0001-01-01T00:00:00+23:59"),
    "a band that is none": line_of(bands=[1]),
    "a band of nothing": line_of(bands=[{}]),
    "null bands": line_of(bands=[None]),
    "three numbers": line_of(res=[1, 2, 3]),
    "no path": line_of(filepath=None),
    "a box of text": line_of(bbox="everywhere"),
    "nothing": b"{}\n",
}


@pytest.mark.parametrize("case", BAD_LINES)
@pytest.mark.parametrize("ending", [".ndjson", ".json"])
def test_a_line_that_no_run_writes_is_named(case: str, ending: str, tmp_path: Path) -> None:
    catalog = tmp_path / f"catalog{ending}"
    bad = BAD_LINES[case]
    if ending == ".json":
        if case in ("empty", "not an object"):
            return
        catalog.write_bytes(b"[\n" + GOOD.rstrip() + b",\n" + bad.rstrip() + b"\n]\n")
    else:
        catalog.write_bytes(GOOD + bad + GOOD)
    with pytest.raises(OutputError, match=r": (line [23] is no row|row 2: )"):
        whole(catalog)
    refusals(catalog)


@pytest.mark.parametrize("ending", [".ndjson", ".json"])
def test_lines_are_rows_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """By their number and by their bytes."""
    catalog = tmp_path / f"catalog{ending}"
    with catalog.open("wb") as file:
        format_of(catalog.name).write(file, [table([failed(b"/%d" % at) for at in range(7)])])
    for lines, size, expected in ((3, 10**6, [3, 3, 1]), (100, 1, [1] * 7)):
        monkeypatch.setattr(reading, "_LINES", lines)
        monkeypatch.setattr(reading, "_LINES_BYTES", size)
        found = [batch.num_rows for batch in batches_of(str(catalog), SCHEMA.names)]
        assert found == expected


def test_a_line_without_an_end_is_not_read_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 10_000)
    catalog = tmp_path / "catalog.ndjson"
    catalog.write_bytes(GOOD + b'{"filepath": "' + b"x" * 20_000)
    with pytest.raises(OutputError, match=r"line 2 has more than 10,000 bytes"):
        summarised(catalog)


# Logs


def log_line(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)


HEADER = {"kind": "header", "version": 2, "output": "catalog.parquet", "replaces": False}
PART = {
    "kind": "part", "seq": 1, "name": "part-00000001.parquet", "rows": 1, "failures": 0,
    "size": 1, "digest": "00", "time": 1.0,
}  # fmt: skip
SEALED = {
    "kind": "sealed", "seq": 1, "rows": 1, "failures": 0, "size": 1, "digest": "", "time": 1
}  # fmt: skip


def log_of(*entries: Any) -> bytes:
    return b"".join(log_line(json.dumps(entry).encode()) for entry in entries)


BAD_ENTRIES: dict[str, bytes] = {
    "a list": log_line(b"[]"),
    "a text": log_line(b'"header"'),
    "no JSON": log_line(b"{"),
    "deep": log_line(b'{"kind":' + b"[" * 200_000),
    "no UTF-8": log_line(b"\xff\xff"),
    "a kind that is a list": log_of({"kind": []}),
    "a kind that is an object": log_of({"kind": {}}),
    "5000 digits": log_line(b'{"kind": "part", "seq": ' + b"9" * 5000 + b"}"),
    "another field": log_of(PART | {"more": 1}),
    "a field less": log_of({"kind": "part"}),
    **{
        f"{entry['kind']} {name} {value!r:.20}": log_of(entry | {name: value})
        for entry in (PART, SEALED)
        for name, value in (
            ("seq", -1), ("seq", "1"), ("seq", None), ("rows", 1.5), ("rows", 10**30),
            ("rows", True), ("size", []), ("time", float("nan")), ("time", float("inf")),
            ("time", 1e300), ("time", "now"), ("digest", 1), ("digest", "g"),
        )
    },
    "a name elsewhere": log_of(PART | {"name": "../../etc/passwd"}),
    "a name of another type": log_of(PART | {"name": 1}),
    "an entity tag": log_of({"kind": "uploaded", "etag": 1}),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_a_log_entry_that_no_run_writes_is_refused(case: str, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    bad = BAD_ENTRIES[case]
    Path(log_path(str(catalog))).write_bytes(log_of(HEADER) + bad + log_of(PART))
    with pytest.raises(RastermetaError, match="line 2 at byte"):
        told(catalog)
    assert refusals(catalog)
    Path(log_path(str(catalog))).write_bytes(bad)
    refusals(catalog)


@pytest.mark.parametrize("order", ["sideways", 1, [], "none\0"])
def test_a_log_of_an_order_that_is_none_is_refused(order: Any, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    Path(log_path(str(catalog))).write_bytes(log_of(HEADER | {"order": order}))
    with pytest.raises(RastermetaError, match="line 1 at byte 0 is damaged"):
        Output(str(catalog))


def test_a_log_of_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rastermeta_async.catalog.checkpoint.MAX_LOG_BYTES", 1000)
    catalog = tmp_path / "catalog.parquet"
    Path(log_path(str(catalog))).write_bytes(b"x" * 2000)
    with pytest.raises(RastermetaError, match="more than 1,000 bytes"):
        told(catalog)
    with pytest.raises(RastermetaError, match="more than 1,000 bytes"):
        Output(str(catalog))


# Bytes that are changed anywhere


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Return content with some bytes changed, cut out, doubled or put elsewhere."""
    found = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(found) or 1)
        match dice.randrange(5):
            case 0:
                found[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del found[at : at + dice.choice((1, 4, 100, len(found)))]
            case 2:
                found[at:at] = found[at : at + dice.choice((1, 8, 64))]
            case 3:
                found[at : at + 5] = b"\xff\xff\xff\xff\x0f"
            case 4:
                found[at : at + 1] = bytes([found[at] ^ 1 << dice.randrange(8)]) if found else b""
    return bytes(found)


def repaired(log: bytes) -> bytes:
    """Return a log's lines with checksums that fit what they hold."""
    return b"".join(log_line(line.partition(b" ")[2]) for line in log.split(b"\n") if line)


@pytest.fixture
def outputs(tmp_path: Path) -> list[Path]:
    """Return catalogs of each format, with their logs."""
    found = []
    for ending in ("parquet", "ndjson", "json"):
        catalog = tmp_path / f"catalog.{ending}"
        seal(catalog, ROWS, order=None)
        found.append(catalog)
    small = tmp_path / "small.parquet"  # nothing in it is compressed, or has a checksum
    small.write_bytes(parquet_of(column("error_message", None), compression="none"))
    return [*found, small]


def campaign(outputs: Sequence[Path], tries: int, seed: int, folder: Path) -> None:
    dice = random.Random(seed)
    for _ in range(tries):
        catalog = dice.choice(outputs)
        folder.mkdir()
        copy = folder / catalog.name
        copy.write_bytes(catalog.read_bytes())
        log = Path(log_path(str(catalog)))
        if log.exists() and dice.random() < 0.5:
            lines = mutated(log.read_bytes(), dice)
            Path(log_path(str(copy))).write_bytes(repaired(lines) if dice.random() < 0.7 else lines)
        else:
            copy.write_bytes(mutated(copy.read_bytes(), dice))
        refusals(copy)
        shutil.rmtree(folder)


def test_changed_bytes_end_no_command(outputs: list[Path], tmp_path: Path) -> None:
    campaign(outputs, 15, 1, tmp_path / "copy")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_many_changed_bytes_end_no_command(outputs: list[Path], tmp_path: Path, seed: int) -> None:
    campaign(outputs, 300, 1000 + seed, tmp_path / "copy")


def test_own_catalogs_are_read(outputs: list[Path]) -> None:
    for catalog in outputs[:-1]:
        assert summary_of(str(catalog)).rows == len(ROWS)
        entries = read_entries(Path(log_path(str(catalog))).read_bytes(), "log")
        assert b"".join(map(encode, entries)) == Path(log_path(str(catalog))).read_bytes()

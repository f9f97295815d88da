"""What `summary`, `show` and `status` tell a person."""

from __future__ import annotations

import fcntl
import json
import math
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import command
import pyarrow as pa
import pytest
import shapely
from factory import band, failed, record, some_records
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from rastermeta_async.catalog.checkpoint import LogHeader, Part, Sealed, Sealing, encode
from rastermeta_async.catalog.formats import FORMATS, format_of
from rastermeta_async.cli import summary as summaries
from rastermeta_async.cli.show import as_text as shown
from rastermeta_async.cli.status import PAUSE, status_of
from rastermeta_async.cli.summary import (
    COLUMNS,
    MAX_VALUES,
    OTHER,
    Summary,
    as_text,
    summary_of,
    to_json,
)
from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.model.errors import OutputError
from rastermeta_async.model.record import UNPLACED, BBox, Bounds, Record, to_batch
from rastermeta_async.model.text import (
    TIFFS,
    bytes_in_words,
    cog_in_words,
    degrees,
    layout_of,
    on_a_line,
    seconds_in_words,
)
from rastermeta_async.stac.evidence import evidence_of, from_tags


def summed(*records: Record) -> Summary:
    found = Summary()
    found.add(to_batch(records).select(COLUMNS))
    return found


@pytest.fixture(scope="module")
def catalog(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("catalog") / "catalog.parquet"
    command.run(["extract", sample_archive, "--strict", "-o", output])
    return output


def test_everything_is_counted(catalog: Path) -> None:
    found = command.from_json(command.run(["summary", catalog, "--json"]).stdout)
    rows = command.rows_of(catalog)
    assert found["rows"] == len(rows) == 45
    assert found["bytes"] == sum(row["file_size"] or 0 for row in rows)
    columns = ("status", "driver", "crs", "compression", "bands", "reader")
    counted = {name: {str(one["value"]): one["count"] for one in found[name]}
               for name in columns}  # fmt: skip
    read = [row for row in rows if row["status"] in ("success", "no_georef")]
    assert counted["status"] == {"success": 40, "error": 4, "no_georef": 1}
    for name, column in (("driver", "driver"), ("crs", "crs"), ("bands", "count")):
        assert counted[name] == Counter(str(row[column]) for row in read)
    boxes = [row["bbox"] for row in rows if row["bbox"]]
    assert found["bbox"] == [
        min(box["xmin"] for box in boxes), min(box["ymin"] for box in boxes),
        max(box["xmax"] for box in boxes), max(box["ymax"] for box in boxes),
    ]  # fmt: skip
    assert found["placed"] == len(boxes) == 39
    assert (found["dated"], found["time"][0][:10]) == (12, "2024-01-15")
    assert sum(error["count"] for error in found["errors"]) == found["failures"] == 4
    assert all(error["example"] for error in found["errors"])
    sizes = {(one["value"]["x"], one["value"]["unit"]) for one in found["resolution"]}
    assert {(0.2, "m"), (10.0, "m"), (1 / 120, "°")} <= sizes


def test_a_person_sees_aligned_tables(catalog: Path) -> None:
    lines = command.run(["summary", catalog]).stdout.decode().splitlines()
    assert lines[0] == "45 rows, 1.5 MiB"
    assert "  longitude  14.0000° W to 39.0000° E" in lines
    counts = [line.index("%") for line in lines if "%" in line]
    assert len(set(counts)) == 1, "percentages stand below each other"
    text = "\n".join(lines)
    for words in ("success", " 88.9%  ██", "EPSG:3857", "0.00833333°", "0.2 m",
                  "tiles and overviews", "e.g. "):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("ending", FORMATS)
def test_every_form_of_a_catalog_gives_the_same(tmp_path: Path, ending: str) -> None:
    records = [record(), record(b"/\xff.tif", nodata=math.nan), failed(), failed(b"/\n.tif")]
    path = tmp_path / f"catalog{ending}"
    with open(path, "wb") as file:
        format_of(str(path)).write(file, [pa.Table.from_batches([rows_with_footprints(records)])])
    found = summary_of(str(path))
    assert (found.rows, found.failures, found.placed) == (4, 2, 2)
    assert found.counts["layout"] == {"strips and overviews": 2}


def test_cogs_are_counted_and_what_others_lack() -> None:
    late, wide = ["A late IFD."], ["A late IFD.", "Wide blocks."]
    rows = [
        record(tiled=True), record(cog=False, cog_problems=late), failed(),
        record(cog=False, cog_problems=wide), record(tiled=None, cog=None, cog_problems=None),
        record(driver="PNG", cog=None, cog_problems=None),
    ]  # fmt: skip
    found = summed(*rows)
    assert found.counts["cog"] == {"yes": 1, "no": 2, "not told": 1}
    assert found.counts["cog_problems"] == {"A late IFD.": 2, "Wide blocks.": 1}
    assert found.counts["layout"] == {
        "tiles and overviews": 1, "strips and overviews": 2, "blocks and overviews": 1
    }  # fmt: skip
    text = as_text(found).split("Why TIFFs are no COGs")[1].splitlines()
    assert text[1:3] == ["  2  A late IFD.", "  1  Wide blocks."]


def test_bytes_of_any_number_are_added_up() -> None:
    assert summed(*[record(file_size=2**62)] * 3, record(file_size=None)).bytes == 3 * 2**62


@pytest.mark.parametrize("ending", FORMATS)
def test_an_empty_catalog(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"catalog{ending}"
    with open(path, "wb") as file:
        format_of(str(path)).write(file, [])
    found = summary_of(str(path))
    assert as_text(found) == "0 rows, 0 bytes"
    assert command.from_json(to_json(found).encode())["bbox"] is None


@given(st.lists(some_records(), max_size=8), st.integers(0, 8))
def test_columns_are_counted_as_rows_would_be(records: list[Record], start: int) -> None:
    """Of any rows, also those that are a part of a longer batch."""
    found = Summary()
    batch = to_batch(records).select(COLUMNS)
    found.add(batch.slice(start))
    kept = records[start:]
    read = [row for row in kept if row.ok]
    assert found.rows == len(kept)
    assert found.failures == len(kept) - len(read)
    assert found.counts["driver"] == Counter(row.driver for row in read)
    rasters = [row for row in read if (row.count or 0) > 0]
    assert found.counts["layout"] == Counter(
        layout_of(row.tiled, bool(row.bands and row.bands[0].overviews))
        for row in rasters
        if row.driver in TIFFS
    )
    tiffs = [row for row in rasters if row.driver in TIFFS]
    assert found.counts["cog"] == Counter(cog_in_words(row.cog) for row in tiffs)
    assert found.counts["cog_problems"] == Counter(
        problem for row in tiffs for problem in row.cog_problems or ()
    )
    evidence = [evidence_of("", row.dataset_tags, row.imagery_tags) for row in read]
    assert found.dated == sum(bool(from_tags(one)) for one in evidence)
    as_text(found)
    json.loads(to_json(found))


def test_dates_are_found_in_every_part_of_a_batch() -> None:
    rows = [
        record(dataset_tags={"A": "x", "TIFFTAG_DATETIME": f"2020:01:{day:02} 00:00:00", "B": "y"}
               if day % 3 else None)
        for day in range(1, 29)
    ]  # fmt: skip
    found = Summary()
    batch = to_batch(rows).select(COLUMNS)
    found.add(batch.slice(3, 20))
    assert found.dated == sum(bool(row.dataset_tags) for row in rows[3:23])
    assert found.time is not None
    assert (found.time.start.day, found.time.end.day) == (4, 23)


def test_dates_of_a_row_are_those_of_both_its_columns_of_tags() -> None:
    """Of each row by itself: some have a tag in one, some in the other, some in both."""
    written, taken = {"TIFFTAG_DATETIME": "2022:02:02 02:02:02"}, "ACQUISITIONDATETIME"
    columns = [
        (written if day % 2 else {}, {taken: f"2020-01-{day:02} 10:00:00"} if day % 3 else {})
        for day in range(1, 29)
    ]
    rows = [record(dataset_tags=one, imagery_tags=other) for one, other in columns]
    found = Summary()
    found.add(to_batch(rows).select(COLUMNS).slice(5, 18))
    assert found.dated == sum(bool(one or other) for one, other in columns[5:23])
    assert found.time is not None
    assert str(found.time.start) == "2020-01-07 10:00:00+00:00"
    assert str(found.time.end) == "2022-02-02 02:02:02+00:00"


def test_errors_are_told_without_what_differs() -> None:
    rows = [
        failed(b"/a/%d.tif" % at)._replace(
            error_message=f"{at}.tif: bad offset {at}000 in /a/{at}.tif"
        )
        for at in range(1, 5)
    ]
    other = failed(b"/b.tif")._replace(error_message="HTTP 404")
    found = summed(*rows, other, other._replace(error_message="HTTP 403"))
    assert found.errors.most_common(1) == [(("RasterioIOError", "…: bad offset … in …"), 4)]
    assert len(found.errors) == 3, "short numbers matter"
    assert found.examples["RasterioIOError", "…: bad offset … in …"] == "/a/1.tif"


def test_a_short_name_is_no_part_of_other_words() -> None:
    found = summed(failed(b"/far/m")._replace(error_message="its mount is missing"))
    assert list(found.errors) == [("RasterioIOError", "its mount is missing")]


def test_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_VALUES == 10_000
    monkeypatch.setattr(summaries, "MAX_VALUES", 20)
    rows = [record(driver=f"D{at}") for at in range(50)]
    bad = [failed()._replace(error_type=f"E{at}") for at in range(50)]
    found = summed(*rows, *bad)
    assert found.counts["driver"][OTHER] == 30
    assert len(found.errors) <= 20 + 50
    assert "at least 13 more" in as_text(found)


def test_what_is_counted_but_not_remembered_is_not_shown_as_a_value() -> None:
    found = Summary()
    found.counts["driver"].update({"GTiff": 3, "PNG": 2, OTHER: 10})
    lines = as_text(found).splitlines()
    assert [line.split()[:3] for line in lines[3:6]] == [
        ["GTiff", "3", "20.0%"], ["PNG", "2", "13.3%"], ["at", "least", "1"]
    ]  # fmt: skip
    assert OTHER not in as_text(found)


def test_characters_of_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "_MAX_TEXT", 1000)
    found = summed(*(record(driver="GTiff", dtype=f"{at:0100}") for at in range(50)))
    assert 1 <= len(found.counts["dtype"]) < 12
    assert found.counts["dtype"][OTHER] > 38
    assert found.counts["driver"] == {"GTiff": 50}, "what is known is counted still"
    messages = [failed()._replace(error_message="ab"[at % 2] * (50 + at)) for at in range(50)]
    found = summed(*messages)
    assert (found.errors.total(), len(found.errors) < 20) == (50, True)


def test_kinds_of_errors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "MAX_VALUES", 5)
    found = summed(*(failed()._replace(error_type=f"E{at}") for at in range(50)))
    assert (found.errors.total(), len(found.errors)) == (50, 11)
    assert found.errors["", OTHER] == 40


def test_a_share_that_is_not_all_and_not_none_is_not_said_to_be() -> None:
    found = Summary()
    found.counts["status"].update(success=99_999, error=1)
    found.counts["driver"].update(GTiff=100_000)
    words = as_text(found).split()
    assert [word for word in words if "%" in word] == [">99.9%", "<0.1%", "100.0%"]


def test_kinds_of_errors_that_are_not_shown_are_counted() -> None:
    bad = [failed(b"/%d.tif" % at)._replace(error_type=f"E{min(at, 12)}") for at in range(20)]
    found = summed(*bad)
    text = as_text(found)
    assert "   8  E12: not recognized" in text
    assert text.endswith("\n   3  of 3 more kinds")
    assert "e.g. /12.tif\n" in text, "the first one"


def test_pixels_have_their_size_whichever_way_rows_run() -> None:
    """Those that nothing places have none."""
    rows = [
        record(res=(10.0, -20.0)), record(res=(-10.0, 20.0)), record(res=(5.0, 5.0)),
        record(res=(7.0, 7.0), status="no_georef", crs=None), record(res=(9.0, 9.0), count=0),
    ]  # fmt: skip
    found = summed(*rows)
    assert found.counts["resolution"] == {(10.0, 20.0, "m"): 2, (5.0, 5.0, "m"): 1}
    assert found.counts["dtype"] == {"uint8": 4}, "a container has no pixels"
    lines = as_text(found).splitlines()
    assert [line[:11] for line in lines if " m " in line] == ["  10 x 20 m", "  5 m      "]


def test_long_values_are_shortened_and_a_day_is_told_once() -> None:
    tags = {"ACQUISITIONDATETIME": "2020-01-31T12:34:56Z"}
    lines = as_text(summed(record(driver="x" * 500, dataset_tags=tags))).splitlines()
    assert max(map(len, lines)) < 100
    assert "  time       2020-01-31" in lines


def test_a_name_goes_from_a_message_wherever_it_stands() -> None:
    bad = failed(b"/b/a.tif")._replace(error_message="a.tif: cannot open a.tif of /b/a.tif")
    ((_, message),) = summed(bad).errors
    assert message == "…: cannot open … of …"


def test_a_catalog_at_a_url_is_looked_at_where_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log(tmp_path, part(1, 1000.0))
    with open("catalog.parquet", "wb") as file:
        format_of("catalog.parquet").write(
            file, [pa.Table.from_batches([rows_with_footprints([record()])])]
        )
    url = "s3://bucket/some/catalog.parquet"
    assert summary_of(url).rows == 1
    assert (status_of(url).output, status_of(url).rows) == ("catalog.parquet", 5000)


def test_secrets_in_rows_of_earlier_versions_are_not_shown() -> None:
    url = "https://me:hidden@h/a.tif?jwt=hidden"
    bad = failed(b"a.tif")._replace(filepath=f" {url}", error_message=f"cannot open {url}")
    found = summed(bad)
    assert "hidden" not in as_text(found) + to_json(found)


def test_nothing_moves_the_cursor() -> None:
    bad = failed(b"/a\x1b[2J\n.tif")._replace(error_message="\x1b]0;x\x07")
    odd = record(driver="\x1b[31m", crs='PROJCS["\x1b\u2028"]')
    text = as_text(summed(bad, odd))
    assert "\x1b" not in text
    assert "/a\\x1b[2J\\n.tif" in text
    tags = {"\x1b[1m": "\x1b[2m\nsecond line\r\nthird"}
    text = shown(record(b"/a\x1b.tif", dataset_tags=tags, bands=[band(description="\x1b\n")]))
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if line.endswith("second line")]


def test_tags_of_the_domain_imagery_are_shown() -> None:
    lines = shown(record(imagery_tags={"SATELLITEID": "WV02"})).splitlines()
    assert lines[lines.index("Imagery") + 1].split() == ["SATELLITEID", "WV02"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1,023 bytes"), (1024, "1.0 KiB"),
     (1024**2 - 1, "1.0 MiB"), (5 * 1024**4, "5.0 TiB"), (3 * 1024**6, "3,072.0 PiB")],
)  # fmt: skip
def test_bytes_in_words(count: int, words: str) -> None:
    assert bytes_in_words(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 seconds"), (-3, "0 seconds"), (1, "1 second"), (61, "1 minute 1 second"),
     (3600, "1 hour"), (7500, "2 hours 5 minutes"), (3605, "1 hour"),
     (90000, "1 day 1 hour"), (86400 * 400, "400 days")],
)  # fmt: skip
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


def test_degrees_and_lines() -> None:
    assert [degrees(value, "EW") for value in (9.5, -9.5, 0, -180)] == [
        "9.5000° E", "9.5000° W", "0.0000° E", "180.0000° W"
    ]  # fmt: skip
    assert on_a_line("ä\t\x9b\u2028") == "ä\\t\\x9b\\u2028"


# One file


def test_show_is_aligned_and_grouped(sample_archive: Path) -> None:
    path = next((sample_archive / "ortho").glob("*.tif"))
    text = command.run(["show", path]).stdout.decode()
    lines = text.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "File", "Place", "Image", "Bands", "Tags"
    ]  # fmt: skip
    for words in ("(WGS 84 / UTM zone 3", "0.2 m x 0.2 m", "512 x 512 pixels", "4 bands of uint8",
                  "tiles and overviews", "° E to "):  # fmt: skip
        assert words in text
    bands = [line for line in lines if "blocks" in line]
    assert len(bands) == 4
    assert len({line.index("blocks") for line in bands}) == 1


def test_show_of_many_bands() -> None:
    text = shown(record(count=5000, bands=[band()] * 5000))
    assert "  1-5000  uint8  gray  blocks 512 x 256  nodata 255" in text
    odd = [band(description=f"day {at}") for at in range(5000)]
    lines = shown(record(count=5000, bands=odd)).splitlines()
    assert "  and 4,970 more" in lines
    assert len(lines) < 80


def test_bands_that_are_not_shown_are_counted_not_lines_of_them() -> None:
    odd = [band(description=f"day {at // 2}") for at in range(100)]
    lines = shown(record(count=100, bands=odd)).splitlines()
    assert [line for line in lines if line.startswith("  59-60")]
    assert "  and 40 more" in lines


def test_show_of_what_points_place() -> None:
    box = BBox(0.0, 0.0, 1.0, 1.0)
    geometry = shapely.to_wkb(shapely.box(*box), byte_order=1)
    text = shown(record(transform=UNPLACED, footprint="gcps", gcp_count=4, bbox=box,
                        geometry=geometry))  # fmt: skip
    assert "  footprint      approximate, from gcps" in text
    assert "  control        4 ground control points" in text
    assert "origin" not in text
    text = shown(record(footprint="transform", bbox=box, geometry=geometry))
    assert ("approximate" in text, "origin" in text) == (False, True)


EVIL = "a\x1b]0;x\x07\x9b\u202eb"


def test_no_text_of_a_file_reaches_a_terminal_as_it_is() -> None:
    """Whatever field it is in."""
    rows = [
        record(f"/{EVIL}.tif".encode()), record(crs=EVIL), record(crs=f'PROJCS["{EVIL}",'),
        record(dataset_tags={EVIL: EVIL}), record(imagery_tags={EVIL: EVIL}),
        record(band_tags={1: {EVIL: EVIL}}), record(area_or_point=EVIL), record(etag=EVIL),
        record(compression=EVIL, interleave=EVIL, photometric=EVIL), record(proj_code=EVIL),
        record(cog=False, cog_problems=[EVIL]), record(subdatasets=[EVIL]),
        record(bands=[band(description=EVIL, unit=EVIL)]), record(driver=EVIL, dtype=EVIL),
        failed()._replace(error_type=EVIL, error_message=EVIL),
        failed(f"/{EVIL}.tif".encode()),
    ]  # fmt: skip
    for row in rows:
        for text in (shown(row), as_text(summed(row))):
            assert not [one for one in text if not one.isprintable() and one != "\n"], row


def test_show_of_nodata_beyond_doubles() -> None:
    text = shown(record(bands=[band(nodata=2.0**64, nodata_text=str(2**64 - 1))]))
    assert "  nodata 18446744073709551615" in text


def test_show_of_odd_places() -> None:
    turned = record(transform=(3e5, 3.0, 4.0, 5e6, 4.0, -3.0))
    assert "5 m x 5 m, turned (geotransform 3.0, 4.0, 4.0, -3.0)" in shown(turned)
    assert "Place" not in shown(record(status="no_georef", crs=None, proj_code=None))
    container = shown(record(count=0, bands=[], subdatasets=["HDF5:a:b"], dtype=None))
    assert "none: a container" in container
    assert "Subdatasets\n  HDF5:a:b" in container
    text = shown(failed())
    assert "  problem        RasterioIOError: not recognized" in text


@pytest.mark.parametrize(
    ("projection", "told"),
    [
        ("+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84", "projection Lambert Azimuthal Equal Area"),
        ("+proj=longlat +R=1737400", "GEOGCS["),
        ("+proj=longlat +datum=NAD27", "datum North American Datum 1927"),
    ],
)
def test_a_crs_without_a_name_is_told_by_what_it_is_made_of(projection: str, told: str) -> None:
    wkt = CRS.from_proj4(projection).to_wkt()
    for name in ("unknown", "Unknown", "UNNAMED", ""):
        crs = record(crs=wkt.replace('["unknown"', f'["{name}"', 1), proj_code=None)
        assert f"  CRS            custom (no name): {told}" in shown(crs)
        assert f"custom (no name): {told}"[:47] in as_text(summed(crs))


def test_pixels_of_what_only_points_place_have_no_size_on_the_ground() -> None:
    points = record(
        footprint="gcps", gcp_count=4, transform=UNPLACED, res=(1.0, 1.0), bounds=Bounds(0, 9, 9, 0)
    )
    text = shown(points)
    assert "approximate, from gcps" not in text  # there is no box
    assert not re.search(r"^  (origin|pixel|x|y)  ", text, re.MULTILINE)
    assert re.search(r"^  origin ", shown(record(footprint="gcps", gcp_count=4)), re.MULTILINE)
    found = json.loads(to_json(summed(points, record())))
    assert [(one["value"]["x"], one["count"]) for one in found["resolution"]] == [(10.5, 1)]


def test_limits_across_the_antimeridian_go_from_west_to_east() -> None:
    parts = [shapely.box(170, -20, 180, 0), shapely.box(-180, -20, -175, 0)]
    across = record(
        geometry=shapely.MultiPolygon(parts).wkb,
        bbox=BBox(-180, -20, 180, 0),
        footprint="transform",
    )
    assert "  longitude      170.0000° E to 175.0000° W\n" in shown(across)
    world = across._replace(geometry=shapely.box(-180, -20, 180, 0).wkb)
    assert "  longitude      180.0000° W to 180.0000° E\n" in shown(world)


@pytest.mark.parametrize("ending", FORMATS)
def test_the_extent_of_a_catalog_may_cross_the_antimeridian(tmp_path: Path, ending: str) -> None:
    fiji = record(
        crs="EPSG:4326", transform=(178.1, 0.1, 0.0, -16.0, 0.0, -0.1), width=22, height=20
    )
    path = tmp_path / f"catalog{ending}"
    with open(path, "wb") as file:
        format_of(str(path)).write(
            file, [pa.Table.from_batches([rows_with_footprints([fiji, failed()])])]
        )
    found = summary_of(str(path))
    assert "  longitude  178.1000° E to 179.7000° W\n" in as_text(found)
    assert json.loads(to_json(found))["bbox"] == pytest.approx([178.1, -18, -179.7, -16])


# A run


def log(folder: Path, *entries: Any) -> str:
    output = str(folder / "catalog.parquet")
    content = b"".join(encode(entry) for entry in (LogHeader(output="catalog.parquet"), *entries))
    Path(f"{output}.checkpoint").write_bytes(content)
    return output


def part(seq: int, at: float, rows: int = 5000) -> Part:
    return Part(seq, f"rastermeta-{seq:08d}.parquet", rows, 1, 10, "", at)


def test_the_rate_is_that_of_late(tmp_path: Path) -> None:
    """A night between two runs does not count, nor what was an hour ago."""
    now = time.time()
    night = [part(1, now - 40_000), part(2, now - 39_000)]
    slow = [part(3 + at, now - 1100 + 100 * at) for at in range(10)]
    fast = [part(13 + at, now - 100 + 10 * at) for at in range(10)]
    found = status_of(log(tmp_path, *night, *slow, *fast))
    assert found.rate == pytest.approx(500)
    assert found.rate_seconds == pytest.approx(60)
    assert found.first == pytest.approx(now - 1100)
    text = found.as_text(now)
    assert "  rows      110,000" in text
    assert "  rate      500 files/s over 1 minute" in text
    assert "  last      10 seconds ago, rastermeta-00000022.parquet, 5,000 rows" in text
    assert "run the same command again to go on" in text


def test_status_of_few_parts(tmp_path: Path) -> None:
    text = status_of(log(tmp_path)).as_text()
    assert "nothing is committed yet" in text
    found = status_of(log(tmp_path, part(1, 1000.0)))
    assert (found.rate, found.rate_seconds) == (None, None)
    assert "  last      2 minutes ago, rastermeta-00000001.parquet" in found.as_text(1120.0)
    assert status_of(log(tmp_path, part(1, 1000.0), part(2, 1000.0))).rate is None
    assert status_of(log(tmp_path, part(1, 1000.0), part(2, 900.0))).rate is None, (
        "a clock set back"
    )
    assert status_of(log(tmp_path, part(1, 1000.0), part(2, 1200.0))).rate == pytest.approx(25)


def test_a_rate_is_of_the_time_since_the_clock_was_set_back(tmp_path: Path) -> None:
    found = status_of(log(tmp_path, part(1, 1000.0), part(2, 900.0), part(3, 910.0)))
    assert (found.first, found.rate_seconds) == (900.0, 10.0)


def test_status_of_a_catalog_that_was_being_written(tmp_path: Path) -> None:
    sealing = Sealing(2, 10_000, 2, 10, "", 1010.0)
    found = status_of(log(tmp_path, part(1, 1000.0), part(2, 1010.0), sealing))
    assert (found.state, found.sealing) == ("stopped", True)
    assert "the catalog is to be written" in found.as_text()


CATALOG = Sealed(2, 100, 7, 10, "", 1000.0)
"""Of ten bytes."""
NEXT = "run the same command again"


@pytest.mark.parametrize(
    ("entries", "size", "left", "state", "numbers", "hint"),
    [
        ([part(1, 900.0, 30)], None, "", "stopped", (30, 1, 1), f"{NEXT} to go on"),
        ([part(1, 900.0, 30)], None, "rastermeta-sealed-0123456789abcdef.tmp", "stopped",
         (30, 1, 1), "the catalog is to be written"),
        ([part(1, 900.0, 30)], None, "rastermeta-0123456789abcdef.tmp", "stopped", (30, 1, 1),
         f"{NEXT} to go on"),
        ([CATALOG], 10, "", "complete", (100, 7, 0), ""),
        ([CATALOG, Sealing(3, 1, 0, 1, "", 2.0)], 10, "", "complete", (100, 7, 0), ""),
        ([CATALOG], 11, "", "changed", (100, 7, 0), ""),
        ([CATALOG], None, "", "missing", (100, 7, 0), ""),
        ([CATALOG, part(3, 1100.0, 5)], 10, "", "stopped", (105, 8, 1), f"{NEXT} to go on"),
    ],
)  # fmt: skip
def test_the_state_of_an_output(
    tmp_path: Path, entries: list[Any], size: int | None, left: str, state: str,
    numbers: tuple[int, int, int], hint: str,
) -> None:  # fmt: skip
    output = log(tmp_path, *entries)
    if size is not None:
        Path(output).write_bytes(b"x" * size)
    if left:
        Path(f"{output}.parts").mkdir()
        (Path(f"{output}.parts") / left).touch()
    found = status_of(output)
    assert (found.state, (found.rows, found.failures, found.parts)) == (state, numbers)
    text = found.as_text(9000.0)
    assert text.startswith(f"catalog.parquet: {state}\n")
    assert hint in text
    assert ("  next  " in text) == bool(hint)
    assert not [word for word in ("  since  ", "  now  ") if word in text]
    assert (f"{numbers[2]:,} not yet in the catalog" in text) == bool(numbers[2])


def test_a_run_that_goes_on_says_since_when_and_whether_anything_comes(tmp_path: Path) -> None:
    output = log(tmp_path, part(1, 1000.0), part(2, 1100.0))
    with open(f"{output}.checkpoint", "rb") as log_file:
        fcntl.flock(log_file, fcntl.LOCK_EX)
        found = status_of(output)
    assert found.state == "running"
    text = {later: found.as_text(1100.0 + later) for later in (PAUSE, PAUSE + 1)}
    assert all("  since     6 minutes 40 seconds" in one for one in [text[PAUSE]])
    assert "nothing has come for long" not in text[PAUSE]
    assert "nothing has come for long" in text[PAUSE + 1]
    assert "  next  " not in text[PAUSE]


def test_a_status_without_a_log_says_what_there_is(tmp_path: Path) -> None:
    for name, advice in (
        ("c.parquet", "`rastermeta summary` tells what is in"),
        ("c.txt", "no run has written"),
        ("none.parquet", "no run has written"),
    ):
        if name[0] == "c":
            (tmp_path / name).touch()
        with pytest.raises(OutputError, match=advice):
            status_of(str(tmp_path / name))


def test_a_folder_is_no_catalog(tmp_path: Path) -> None:
    (tmp_path / "c.parquet").mkdir()
    with pytest.raises(OutputError, match=r"c\.parquet: there is no finished .*, but a folder$"):
        summary_of(str(tmp_path / "c.parquet"))

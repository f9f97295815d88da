"""What a report counts: codes, folders, places, months, and the cube, against other ways."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import command
import duckdb
import numpy as np
import pyarrow as pa
import pytest
import shapely
from factory import failed, record, table
from generated import write_catalog
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.catalog.completed import batches_of
from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.model.record import SCHEMA, UNPLACED, BBox, Bounds, Record, to_batch
from rastermeta_async.report import cube as cubes
from rastermeta_async.report.charts import pictures
from rastermeta_async.report.content import ReportContent
from rastermeta_async.report.cube import Cube, cube_of, exemplify, reduced
from rastermeta_async.report.facts import COLUMNS, DIMENSIONS
from rastermeta_async.report.folders import ROOT, FolderCounter, parent_of
from rastermeta_async.report.page import MAX_BYTES, page_of
from rastermeta_async.report.places import EVERYWHERE, FINEST, NOWHERE, box_of, cells_of, coarser
from rastermeta_async.report.taken import FIRST_YEAR, UNDATED, months_of
from rastermeta_async.stac.evidence import TAGS, evidence_of, from_tags

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def cube_of_rows(*records: Record) -> Cube:
    batch = rows_with_footprints(list(records))

    def read(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield batch.select(list(columns))

    cube = cube_of(read)
    exemplify(cube, read)
    return cube


def cube_of_catalog(path: Path) -> Cube:
    def read(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return batches_of(str(path), columns, 8192)

    cube = cube_of(read)
    exemplify(cube, read)
    return cube


def counts(cube: Cube, name: str) -> dict[Any, int]:
    """Return the files of each bucket that has any, by its key."""
    files = ReportContent(cube).files(name).tolist()
    return {key: n for key, n in zip(cube.dimensions[name].keys, files, strict=True) if n}


# Places


def square(west: float, south: float, east: float, north: float) -> bytes:
    found: bytes = shapely.to_wkb(shapely.box(west, south, east, north), byte_order=1)
    return found


def cell(box: tuple[float, float, float, float] | None, geometry: bytes | None) -> int:
    boxes = pa.array([BBox(*box)._asdict() if box else None], SCHEMA.field("bbox").type)
    (code,) = cells_of(boxes, pa.array([geometry], pa.binary())).tolist()
    return int(code)


def is_at(code: int, longitude: float, latitude: float) -> bool:
    west, south, east, north = box_of(code, FINEST)
    return west <= longitude <= east and south <= latitude <= north


def test_a_footprint_is_at_its_centre() -> None:
    assert is_at(cell((10, 40, 12, 44), square(10, 40, 12, 44)), 11, 42)
    assert is_at(cell((-180, -90, -179, -89), square(-180, -90, -179, -89)), -179.5, -89.5)
    assert cell(None, None) == NOWHERE


def test_a_footprint_across_the_antimeridian_is_beside_it() -> None:
    parts = shapely.MultiPolygon([shapely.box(178, 10, 180, 12), shapely.box(-180, 10, -178, 12)])
    code = cell((-180, 10, 180, 12), shapely.to_wkb(parts, byte_order=1))
    west, south, east, north = box_of(code, FINEST)
    assert south - 0.01 <= 11 <= north + 0.01
    assert west > 179.9 or east < -179.9


def test_a_footprint_around_a_pole_is_at_it() -> None:
    cap = shapely.segmentize(shapely.box(-180, 70, 180, 90), 5)
    _, south, _, _ = box_of(cell((-180, 70, 180, 90), shapely.to_wkb(cap, byte_order=1)), FINEST)
    assert south > 89  # the seam at the antimeridian counts, too


def test_a_footprint_of_the_whole_earth_is_nowhere_in_particular() -> None:
    whole = shapely.segmentize(shapely.box(-180, -90, 180, 90), 5)
    assert cell((-180, -90, 180, 90), shapely.to_wkb(whole, byte_order=1)) == EVERYWHERE


@given(st.floats(-179, 178), st.floats(-89, 88), st.integers(0, FINEST), st.floats(0.001, 1))
def test_coarser_cells_hold_the_finer_ones(
    west: float, south: float, level: int, side: float
) -> None:
    code = cell((west, south, west + side, south + side), square(0, 0, 1, 1))
    up = int(coarser(np.array([code]), FINEST - level)[0])
    inner, outer = box_of(code, FINEST), box_of(up, level)
    assert outer[0] <= inner[0]
    assert outer[1] <= inner[1]
    assert inner[2] <= outer[2] + 1e-9
    assert inner[3] <= outer[3] + 1e-9
    assert coarser(np.array([NOWHERE, EVERYWHERE]), 3).tolist() == [NOWHERE, EVERYWHERE]


# Months

some_dates = st.sampled_from(
    ["2020-01-31", "2020:02:28 23:59:59", "2019-12-31T10:00:00", "2020-13-01 10:00:00",
     "2020-01-31 25:00:00", "2016-12-31 23:59:60", "20200131123456", "nonsense", "",
     "1970-01-01 00:00:00", "2020-02-01 00:00:00", "2020-01-31T23:30:00-05:00", "a" * 500]
)  # fmt: skip
some_tags = st.dictionaries(
    st.sampled_from([*sorted(TAGS), "tifftag_datetime", "AREA_OR_POINT"]), some_dates, max_size=3
)


def as_lists(tags: Sequence[dict[str, str] | None]) -> pa.Array:
    """Return tags as lists of structs, the other form that a catalog may have them in."""
    kind = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
    return pa.array(
        [None if one is None else [{"key": k, "value": v} for k, v in one.items()] for one in tags],
        kind,
    )


@given(st.lists(st.tuples(st.none() | some_tags, st.none() | some_tags), max_size=8))
def test_months_are_those_of_stac(rows: list[tuple[dict[str, str] | None, ...]]) -> None:
    expected = []
    for dataset, imagery in rows:
        found = from_tags(evidence_of("", dataset, imagery))
        expected.append(
            (found.start.year - FIRST_YEAR) * 12 + found.start.month - 1 if found else UNDATED
        )
    as_maps = pa.map_(pa.string(), pa.string())
    for make in (
        lambda tags: pa.array([None if one is None else [*one.items()] for one in tags], as_maps),
        as_lists,
    ):
        columns = [make([row[at] for row in rows]) for at in (0, 1)]
        assert months_of(*columns).tolist() == expected
        half = len(rows) // 2  # a slice, as of a larger batch
        assert months_of(*(one.slice(half) for one in columns)).tolist() == expected[half:]


# FolderFiles


@pytest.mark.parametrize(
    ("folder", "around"),
    [("/a/b", "/a"), ("/a", ROOT), ("a", ROOT), ("s3://b/c", "s3://b"), ("s3://b", ROOT),
     ("x//y", "x"), (ROOT, ROOT)],
)  # fmt: skip
def test_the_folder_around_a_folder(folder: str, around: str) -> None:
    assert parent_of(folder) == around


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abc"), max_size=4), st.integers(0, 1000)), max_size=60
    )
)
def test_counts_of_folders_are_exact_however_few_are_kept(
    rows: list[tuple[list[str], int]],
) -> None:
    paths = ["/".join(["", *folders, "x.tif"]) for folders, _ in rows]
    sizes = pa.array([size for _, size in rows], pa.int64())
    counter = FolderCounter()
    counter.add(pa.array(paths, pa.string()), sizes)
    tree = counter.tree()
    codes = tree.codes(pa.array(paths, pa.string())).tolist()
    parents = tree.parents
    whole = Counter[int]()
    for code in codes:
        while code >= 0:
            whole[code] += 1
            code = parents[code]
    for at, folder in enumerate(tree.folders):
        assert whole[at] == sum(path.startswith(f"{folder}/") for path in paths) or not paths


def test_small_folders_are_folded_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rastermeta_async.report.folders.MAX_COUNTED", 100)
    monkeypatch.setattr("rastermeta_async.report.folders.MAX_SHOWN", 20)
    counter = FolderCounter()
    paths = [f"/big/{n // 50}/{n}/x.tif" for n in range(5000)] + ["/last/x.tif"] * 3000
    for start in range(0, len(paths), 64):
        some = paths[start : start + 64]
        counter.add(pa.array(some), pa.array([1] * len(some)))
    tree = counter.tree()
    assert {"", "/big", "/last"} <= set(tree.folders)
    assert len(tree.folders) == 20
    by_folder = Counter(tree.codes(pa.array(paths)).tolist())
    assert by_folder[tree.folders.index("/last")] == 3000


# The cube


@pytest.fixture(scope="module")
def sample(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report") / "catalog.parquet"
    command.run(["extract", sample_archive, "--strict", "-o", made])
    return made


@pytest.fixture(scope="module")
def generated(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report") / "generated.parquet"
    write_catalog(made, sample, 20_000)
    return made


READ = "status in ('success', 'no_georef')"
GROUPS = {
    "driver": f"case when {READ} then driver else 'not read' end",
    "crs": f"case when {READ} then coalesce(crs, 'no CRS') else 'not read' end",
    "dtype": f"case when {READ} then coalesce(dtype, 'none') else 'not read' end",
    "bands": f"case when {READ} then count::varchar else 'not read' end",
    "size": "greatest(0, floor(log2(greatest(file_size, 1024) / 1024)))::int",
    "compression": f"case when {READ} then coalesce(compression, case driver when 'GTiff' then "
    "'none' else 'not told' end) else 'not read' end",
}  # fmt: skip


def asked(catalog: Path, group: str, what: str = "count(*)") -> dict[Any, Any]:
    rows = duckdb.execute(f"select {group}, {what} from '{catalog}' group by all").fetchall()
    return dict(rows)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("catalog", ["sample", "generated"])
def test_counts_are_those_of_duckdb(
    name: str, catalog: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(catalog)
    cube = cube_of_catalog(path)
    expected = asked(path, GROUPS[name])
    if name == "size":
        step = cube.dimensions["size"].step
        merged = Counter[int]()
        for power, files in expected.items():
            merged[power // step * step] += files
        expected = merged
    assert counts(cube, name) == expected


def test_places_folders_and_bytes_are_those_of_duckdb(generated: Path) -> None:
    cube = cube_of_catalog(generated)
    assert float(np.sum(cube.rows["bytes"])) == asked(generated, "1", "sum(file_size)")[1]
    level = cube.dimensions["place"].step
    x, y = "(bbox.xmin + bbox.xmax) / 2", "(bbox.ymin + bbox.ymax) / 2"
    scale = f"{2**level} / 180"
    expected = asked(generated, f"(floor(({x} + 180) * {scale}), floor(({y} + 90) * {scale}))")
    expected = {key: n for key, n in expected.items() if key[0] is not None}
    found = {}
    for code, files in counts(cube, "place").items():
        if code >= 0:
            west, south, _, _ = box_of(code, level)
            found[((west + 180) * 2**level / 180, (south + 90) * 2**level / 180)] = files
    assert found == expected
    folders = ReportContent(cube).folders
    for folder, files in zip(folders.labels, folders.whole, strict=True):
        (told,) = duckdb.execute(
            f"select count(*) from '{generated}' where starts_with(filepath, ?)", [f"{folder}/"]
        ).fetchone() or (0,)
        assert files == told, folder


def test_months_are_those_of_the_stac_items(sample: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.ndjson"
    assert command.run(["export", "stac", sample, "-o", items]).returncode == 0
    times = [json.loads(line)["properties"]["datetime"] for line in items.read_text().splitlines()]
    found = {
        f"{FIRST_YEAR + month // 12}-{month % 12 + 1:02}": files
        for month, files in counts(cube_of_catalog(sample), "time").items()
        if month >= 0
    }
    assert found == Counter(time[:7] for time in times)
    assert len(found) > 5


@pytest.mark.parametrize("most", [1, 7, 100, 1000])
def test_a_coarser_cube_has_the_same_sums(generated: Path, most: int) -> None:
    cube = cube_of_catalog(generated)
    before = {name: counts(cube, name) for name in DIMENSIONS}
    size = float(np.sum(cube.rows["bytes"]))
    reduced(cube, most)
    assert len(cube) <= most
    assert int(np.sum(cube.rows["files"])) == 20_000
    assert float(np.sum(cube.rows["bytes"])) == size
    for name in ("driver", "crs", "state"):
        for value, files in counts(cube, name).items():
            if value != "others":
                assert before[name][value] == files


def test_a_cube_is_made_coarser_while_it_is_made(
    generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cubes, "_MAX_HELD", 500)
    monkeypatch.setattr(cubes, "_PENDING", 4000)
    monkeypatch.setattr(cubes, "MAX_ROWS", 300)
    cube = cube_of_catalog(generated)
    assert len(cube) <= 300
    expected = asked(generated, GROUPS["driver"])
    found = counts(cube, "driver")
    assert sum(found.values()) == 20_000
    assert all(files == expected[value] for value, files in found.items() if value != "others")


def test_every_error_has_an_example_and_advice(sample: Path) -> None:
    cube = cube_of_catalog(sample)
    (state,) = (one for one in ReportContent(cube).dimensions if one["name"] == "state")
    errors = [at for at, advice in enumerate(state["advice"]) if advice]
    assert len(errors) == 2
    codes = cube.codes("state")
    exemplified = {int(codes[example.row]) for example in cube.examples}
    assert set(errors) <= exemplified
    assert {example.path for example in cube.examples} <= {
        row["filepath"] for row in command.rows_of(sample)
    }


def test_several_problems_of_a_cog_are_told_apart() -> None:
    cube = cube_of_rows(
        record(b"/a", cog=False, cog_problems=["One.", "Two."]),
        record(b"/b", cog=False, cog_problems=["Two."]),
        record(b"/c", cog=True, cog_problems=[]),
        record(b"/d", driver="PNG", cog=None, cog_problems=None),
        failed(b"/e"),
    )
    (facet,) = (one for one in ReportContent(cube).facets if one.name == "cog")
    found = dict(zip(facet.labels, facet.files, strict=True))
    assert found == {"no COG": 2, "One.": 1, "Two.": 2, "a COG": 1, "no TIFF": 1, "not read": 1}
    assert facet.whole == 5


def test_pixels_have_two_digits_and_a_unit() -> None:
    cube = cube_of_rows(
        record(b"/a", res=(0.2994, 0.2994)),
        record(b"/b", res=(0.301, 0.2)),
        record(b"/c", res=(1 / 1200, 1 / 1200), crs="EPSG:4326", proj_code="EPSG:4326"),
        record(b"/d", status="no_georef", crs=None, transform=UNPLACED, res=(1.0, 1.0)),
        record(b"/e", res=(1234.0, 1000.0)),
    )
    assert counts(cube, "pixel") == {"0.3 m": 2, "0.00083°": 1, "no pixel size": 1, "1,200 m": 1}


def test_no_rows_make_a_cube() -> None:
    nothing = table([]).to_batches() or [to_batch([])]
    cube = cube_of(lambda columns: iter([one.select(list(columns)) for one in nothing]))
    assert int(np.sum(cube.rows["files"])) == 0
    assert "report" in page_of(cube, "empty", NOW)


# Outlines and pictures


def test_few_outlines_are_kept_and_many_are_not() -> None:
    few = [record(b"/%d" % n, bounds=Bounds(300000, 5e6 + n, 300010, 5e6 + n + 20),
                  transform=(300000, 1, 0, 5e6 + n + 20, 0, -1), width=10, height=20)
           for n in range(30)]  # fmt: skip
    assert len(ReportContent(cube_of_rows(*few)).outlines()) == 30
    many = [one._replace(filepath=f"/{n}/{at}", transform=(3e5 + 99 * n, 1, 0, 5e6, 0, -1))
            for n in range(40) for at, one in enumerate(few)]  # fmt: skip
    assert ReportContent(cube_of_rows(*few, *many)).outlined
    many = [few[0]._replace(filepath=f"/{n}", transform=(3e5 + 99 * n, 1, 0, 5e6, 0, -1))
            for n in range(900)]  # fmt: skip
    assert not ReportContent(cube_of_rows(*many)).outlined


def test_charts_are_pictures(sample: Path) -> None:
    content = ReportContent(cube_of_catalog(sample))
    drawn = dict(pictures(content, "svg"))
    assert {"map.svg", "timeline.svg", "folders.svg", "driver.svg", "cog.svg"} <= set(drawn)
    text = drawn["driver.svg"].decode()
    assert ">GTiff<" in text
    assert ">38 (84.4%)<" in text
    assert drawn["map.svg"].count(b"<path") > 50


# The page as text


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL
    )
    found: dict[str, Any] = json.loads(text)
    return found


EVIL = [
    "<img src=x onerror=alert(1)>.tif", "</script><script>alert(1)</script>.tif",
    "<!--<script>.tif", "{script}{data}.tif", "a\u2028b.tif", "'\";alert(1);//.tif", "\x1b[31m.tif",
]  # fmt: skip


def test_names_of_files_end_no_script() -> None:
    cube = cube_of_rows(*(record(f"/a/{name}".encode()) for name in EVIL))
    page = page_of(cube, "<b>&title", NOW)
    assert page.count("<script") == page.count("</script>") == 3
    assert "<b>" not in page
    paths = {path for _, path, _ in data_of(page)["examples"]}
    assert paths <= {f"/a/{name}" for name in EVIL}
    assert paths
    assert "default-src &#x27;none&#x27;" in page
    assert "unsafe-eval" not in page.split("</head>")[0]


def test_a_page_is_small(generated: Path) -> None:
    page = page_of(cube_of_catalog(generated), "generated", NOW)
    assert len(page.encode()) <= MAX_BYTES


# The command


def test_the_command_replaces_only_reports(sample: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    for _ in range(2):
        done = command.run(["report", sample, "-o", page])
        assert done.returncode == 0, done.stderr
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine")
    done = command.run(["report", sample, "-o", mine])
    assert (done.returncode, mine.read_text()) == (1, "<p>mine")
    assert b"exists and is no report; give --overwrite or another -o" in done.stderr
    assert command.run(["report", sample, "-o", mine, "--overwrite"]).returncode == 0
    assert sorted(tmp_path.iterdir()) == [mine, page]


def test_wrong_uses_are_told(sample: Path, tmp_path: Path) -> None:
    nothing = command.run(["report", sample])
    assert nothing.returncode == 2
    assert b"give -o FILE.html for a page" in nothing.stderr
    wrong = command.run(["report", sample, "-o", tmp_path / "x.pdf"])
    assert (wrong.returncode, b"ends in .html" in wrong.stderr) == (2, True)
    gone = command.run(["report", tmp_path / "none.parquet", "-o", tmp_path / "x.html"])
    assert (gone.returncode, b"no finished catalog" in gone.stderr) == (1, True)


def test_a_missing_extra_is_named(sample: Path, tmp_path: Path) -> None:
    without = "import sys; sys.modules['vl_convert'] = None; "
    main = "from rastermeta_async.__main__ import main; main()"
    done = command.run(["report", sample, "-o", tmp_path / "x.html"],
                       command=[command.COMMAND[0], "-c", without + main])  # fmt: skip
    assert done.returncode == 1
    assert b"pip install '.[report]'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_facts_need_only_their_columns() -> None:
    assert set(COLUMNS) <= set(SCHEMA.names)

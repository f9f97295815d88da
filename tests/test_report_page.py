"""The page of a report in a real browser: it loads nothing, filters, and runs no text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factory import record
from generated import write_catalog
from playwright.sync_api import Browser, Page, sync_playwright

from rastermeta_async.catalog.formats import ParquetFormat
from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.report.page import MAX_BYTES

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
READ = "status in ('success', 'no_georef')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root, chromium runs only without its sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Looked:
    """A report in a browser, and what the browser said of it."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.path = path
        self.said: list[str] = []
        self.requests: list[str] = []
        self._context = browser.new_context(**options)
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.documentElement.dataset.ready === 'true'")

    def total(self) -> int:
        """Return the number of files that are selected, as the page shows it."""
        return int(self.page.inner_text("#total strong").replace(",", ""))

    def bar(self, facet: str, label: str) -> Any:
        """Return the button of a bar."""
        card = self.page.locator(f"#facet-{facet}")
        return card.get_by_role("button", name=label).filter(
            has=self.page.get_by_text(label, exact=True)
        )

    def counts(self, facet: str) -> dict[str, int]:
        """Return the counts of the bars of a dimension, those of the page."""
        rows = self.page.locator(f"#facet-{facet} .bars li").all()
        pairs = ((row.locator(".label").inner_text(), row.locator(".count").inner_text())
                 for row in rows)  # fmt: skip
        return {label: int(count.replace(",", "")) for label, count in pairs}

    def run(self, script: str) -> Any:
        """Run a script in the page, and wait until the charts are drawn."""
        found = self.page.evaluate(script)
        self.page.evaluate("report.drawn")
        return found

    def close(self) -> None:
        """Close it; it must have been silent, and have loaded nothing but itself."""
        self._context.close()
        assert self.said == []
        assert self.requests == [self.path.as_uri()]


def reported(catalog: Path, folder: Path) -> Path:
    page = folder / "report.html"
    done = command.run(["report", catalog, "-o", page])
    assert done.returncode == 0, done.stderr
    assert page.stat().st_size <= MAX_BYTES
    return page


@pytest.fixture(scope="module")
def sample(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page") / "catalog.parquet"
    command.run(["extract", sample_archive, "--strict", "-o", made])
    return made


@pytest.fixture(scope="module")
def sample_page(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported(sample, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def many(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page") / "many.parquet"
    write_catalog(made, sample, 100_000)
    return made


@pytest.fixture(scope="module")
def many_page(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported(many, tmp_path_factory.mktemp("page"))


def asked(catalog: Path, where: str) -> int:
    found = duckdb.execute(f"select count(*) from '{catalog}' where {where}").fetchone()
    assert found
    return int(found[0])


def test_the_sample_loads_and_is_filtered(
    browser: Browser, sample: Path, sample_page: Path
) -> None:
    looked = Looked(browser, sample_page)
    assert looked.total() == 45
    assert looked.page.locator("#map svg path").count() > 40
    looked.bar("driver", "GTiff").click()
    assert looked.total() == asked(sample, f"driver = 'GTiff' and {READ}") == 38
    looked.bar("dtype", "float32").click()
    assert looked.total() == asked(sample, "driver = 'GTiff' and dtype = 'float32'")
    assert looked.counts("driver") == {"GTiff": 12, "HFA": 1, "not read": 0, "PNG": 0,
                                       "JP2OpenJPEG": 0}  # fmt: skip
    looked.page.get_by_role("button", name="show all again").click()
    assert looked.total() == 45
    looked.close()


def test_a_click_on_the_map_and_on_a_folder_selects(
    browser: Browser, sample: Path, sample_page: Path
) -> None:
    looked = Looked(browser, sample_page, viewport={"width": 1280, "height": 1000})
    box = looked.page.locator("#map").bounding_box()
    assert box
    mouse = looked.page.mouse
    mouse.move(box["x"] + 2, box["y"] + 2)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2, steps=4)
    mouse.up()
    assert looked.total() == asked(sample, "bbox is not null") == 39
    looked.page.locator("#chips button").click()
    looked.page.locator("#folders svg").get_by_text("ortho").wait_for()
    looked.page.locator("#children").get_by_text("ortho", exact=True).click()
    assert looked.total() == asked(sample, "filepath like '%/ortho/%'") == 12
    looked.page.locator("#crumbs button").first.click()
    assert looked.total() == 45
    looked.page.select_option("#to", index=1)
    assert looked.total() == 2
    looked.close()


def test_counts_of_many_files_are_those_of_duckdb(
    browser: Browser, many: Path, many_page: Path
) -> None:
    looked = Looked(browser, many_page)
    assert looked.total() == 100_000
    looked.bar("crs", "EPSG:4326").click()
    looked.bar("state", "read").click()
    where = f"{READ} and status = 'success' and crs = 'EPSG:4326'"
    assert looked.total() == asked(many, where)
    assert looked.counts("dtype")["float32"] == asked(many, f"{where} and dtype = 'float32'")
    folder = "/archive/c0001"
    looked.run(f"openFolder(dimensionOf('folder').labels.indexOf('{folder}'))")
    where += f" and starts_with(filepath, '{folder}/')"
    assert looked.total() == asked(many, where)
    cells = looked.run(
        "(() => { const { files } = report.totals.place;"
        " const some = report.cells.filter((cell) => files[cell.bucket]).slice(0, 9);"
        " choose('place', some.map((cell) => cell.bucket));"
        " return some.map((cell) => dimensionOf('place').boxes[cell.bucket]); })()"
    )
    inside = " or ".join(
        f"((bbox.xmin + bbox.xmax) / 2 >= {w} and (bbox.xmin + bbox.xmax) / 2 < {e}"
        f" and (bbox.ymin + bbox.ymax) / 2 >= {s} and (bbox.ymin + bbox.ymax) / 2 < {n})"
        for w, s, e, n in cells
    )
    assert looked.total() == asked(many, f"{where} and ({inside})") > 0
    looked.close()


def test_filters_are_quick(browser: Browser, many_page: Path) -> None:
    """The best of several, as others may have the cores."""
    looked = Looked(browser, many_page)
    taken = []
    for value in (0, 1, 2) * 6:
        looked.run(f"toggle('crs', {value})")
        taken.append(looked.page.evaluate("report.milliseconds"))
    assert min(taken) <= 100, taken
    looked.close()


def test_the_corpus_loads(browser: Browser, corpus: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "corpus.parquet"
    command.run(["extract", corpus, "-o", catalog])
    looked = Looked(browser, reported(catalog, tmp_path))
    assert looked.total() == asked(catalog, "true")
    looked.close()


EVIL = ["<img src=x onerror=alert(1)>.tif", "</script><script>alert(1)</script>.tif",
        "'\"><svg onload=alert(1)>.tif", "{constructor.constructor('alert(1)')()}.tif"]  # fmt: skip


def test_names_of_files_and_tags_stay_text(browser: Browser, tmp_path: Path) -> None:
    catalog = tmp_path / "<b>evil.parquet"
    rows = [record(f"/{name}/{name}".encode(), driver=name, crs=name, dtype=name)
            for name in EVIL]  # fmt: skip
    with open(catalog, "wb") as file:
        ParquetFormat().write(file, [pa.Table.from_batches([rows_with_footprints(rows)])])
    looked = Looked(browser, reported(catalog, tmp_path))
    shown = looked.page.inner_text("body")
    for name in EVIL:
        assert name in shown
    assert looked.page.locator("main img, main script, h1 b, body > svg").count() == 0
    looked.bar("driver", EVIL[0]).click()
    assert looked.total() == 1
    looked.page.locator("#map").hover()
    looked.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_scheme(
    browser: Browser, sample_page: Path, width: int, scheme: str
) -> None:
    looked = Looked(browser, sample_page, viewport={"width": width, "height": 800},
                    color_scheme=scheme)  # fmt: skip
    assert looked.page.evaluate("document.documentElement.scrollWidth") <= width
    background = looked.page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(background.partition("(")[2].partition(",")[0])
    assert (red < 60) == (scheme == "dark")
    looked.page.get_by_role("button", name="dark" if scheme == "light" else "light").click()
    looked.page.wait_for_function(f"document.documentElement.dataset.theme !== '{scheme}'")
    looked.close()


def test_all_is_reached_by_keyboard(browser: Browser, sample_page: Path) -> None:
    looked = Looked(browser, sample_page)
    for _ in range(60):
        looked.page.keyboard.press("Tab")
        if looked.page.evaluate("document.activeElement.closest('#facet-driver') !== null"):
            break
    looked.page.keyboard.press("Enter")
    assert looked.total() == 38
    looked.page.locator("#map").focus()
    for key in ("+", "ArrowLeft", "-", "ArrowUp"):
        looked.page.keyboard.press(key)
    looked.run("report.views.map.runAsync().then(() => true)")
    looked.close()


def test_a_report_tells_what_has_changed(browser: Browser, sample: Path, tmp_path: Path) -> None:
    rows = pq.read_table(sample).cast(SCHEMA).combine_chunks()
    old = tmp_path / "old.parquet"
    size = pa.array([1] * 30, pa.int64())
    at = SCHEMA.get_field_index("file_size")
    before = rows.slice(0, 30).set_column(at, SCHEMA.field(at), size)
    with open(old, "wb") as file:
        ParquetFormat().write(file, [before.combine_chunks()])
    new = tmp_path / "new.parquet"
    with open(new, "wb") as file:
        ParquetFormat().write(file, [rows.slice(5).combine_chunks()])
    page = tmp_path / "report.html"
    done = command.run(["report", new, "-o", page, "--compare", old])
    assert done.returncode == 0, done.stderr
    looked = Looked(browser, page)
    assert looked.total() == 40
    assert looked.counts("change") == {"changed": 25, "added": 15, "gone": 5}
    looked.page.locator("#chips button").first.click()
    looked.bar("change", "gone").click()
    assert looked.total() == 5
    looked.close()

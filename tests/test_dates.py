"""Dates from texts, tags and names: the sure ones, and nothing else."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import rasterio
import rasterio.shutil
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.one_file import read_record
from rastermeta_async.stac.dates import Interval, interval_of
from rastermeta_async.stac.evidence import (
    AUTO,
    SOURCES,
    TAGS,
    Evidence,
    Rules,
    evidence_of,
    rule_of,
)


def utc(*fields: int) -> dt.datetime:
    return dt.datetime(*fields, tzinfo=dt.UTC)  # type: ignore[arg-type, misc]


def dated(
    rule: str | None, path: str, tags: Mapping[str, str], imagery: Mapping[str, str] | None = None
) -> Interval | None:
    return rule_of(rule)(evidence_of(path, tags, imagery))


TAKEN = "ACQUISITIONDATETIME"
NOON = utc(2020, 1, 31, 12, 34, 56)
MOMENT = dt.timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "2020-01-31T12:34:56Z", "2020-01-31t12:34:56z", "2020-01-31 12:34:56",
        "2020-01-31T12:34:56+00:00", "2020-01-31T12:34:56 UTC", "2020-01-31T14:34:56+02:00",
        "2020-01-31T14:34:56+0200", "2020-01-31T14:34:56+02", "2020-01-31T07:04:56-05:30",
        "20200131T123456Z", "20200131T123456", "20200131_123456", "20200131123456",
        "2020:01:31 12:34:56", "2020/01/31 12:34:56", "2020/1/31 12:34:56", "2020.01.31 12:34:56",
        "2020-031T12:34:56", "2020:031:12:34:56", "2020-W05-5T12:34:56", "2020W055T123456",
        "Fri, 31 Jan 2020 12:34:56 GMT", "Fri, 31 Jan 2020 14:34:56 +0200",
        "31 Jan 2020 12:34:56", "31-JAN-2020 12:34:56", "31-Jan-2020T12:34:56",
        "January 31, 2020 12:34:56", "Jan 31 2020, 12:34:56", "Fri Jan 31 12:34:56 2020",
        "Fri Jan 31 12:34:56 UTC 2020", "Friday, 31 January 2020 12:34:56",
        "2020-JAN-31 12:34:56", ' "2020-01-31T12:34:56Z" ', "2020-01-31T12:34:56Z\0",
        "2020-01-31T12:34:56Z/2020-01-31T12:34:56Z",
    ],
)  # fmt: skip
def test_a_moment(text: str) -> None:
    assert interval_of(text) == (NOON, NOON)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("2020-01-31T12:34", utc(2020, 1, 31, 12, 34)),
        ("2020-01-31T12:34:56.7Z", utc(2020, 1, 31, 12, 34, 56, 700000)),
        ("2020-01-31T12:34:56,000007", utc(2020, 1, 31, 12, 34, 56, 7)),
        ("2020-01-31T12:34:56.123456789Z", utc(2020, 1, 31, 12, 34, 56, 123456)),
        ("2020-01-31T24:00:00Z", utc(2020, 2, 1)),
        ("2020-12-31 24:00", utc(2021, 1, 1)),
        ("2016-12-31T23:59:60Z", utc(2017, 1, 1)),
        ("2016-12-31T23:59:60.5Z", utc(2017, 1, 1, 0, 0, 0, 500000)),
        ("2017-01-01T00:59:60+01:00", utc(2017, 1, 1)),
        ("2020-01-01T00:30:00+14:00", utc(2019, 12, 31, 10, 30)),
        ("1899-07-01T00:00:00", utc(1899, 7, 1)),
    ],
)
def test_a_moment_at_an_edge(text: str, start: dt.datetime) -> None:
    assert interval_of(text) == (start, start)


@pytest.mark.parametrize(
    ("text", "start", "after"),
    [
        ("2020-01-31", utc(2020, 1, 31), utc(2020, 2, 1)),
        ("20200131", utc(2020, 1, 31), utc(2020, 2, 1)),
        ("2020/01/31", utc(2020, 1, 31), utc(2020, 2, 1)),
        ("2020:01:31", utc(2020, 1, 31), utc(2020, 2, 1)),
        ("2020-060", utc(2020, 2, 29), utc(2020, 3, 1)),
        ("31 January 2020", utc(2020, 1, 31), utc(2020, 2, 1)),
        ("2020-W53-5", utc(2021, 1, 1), utc(2021, 1, 2)),
        ("2020-W05", utc(2020, 1, 27), utc(2020, 2, 3)),
        ("2020-02", utc(2020, 2, 1), utc(2020, 3, 1)),
        ("2020-12", utc(2020, 12, 1), utc(2021, 1, 1)),
        ("2020-01-01/2020-01-31", utc(2020, 1, 1), utc(2020, 2, 1)),
        ("2020-01-01 / 2020-02", utc(2020, 1, 1), utc(2020, 3, 1)),
        ("2020-01-15/2020-01", utc(2020, 1, 15), utc(2020, 2, 1)),
    ],
)
def test_a_day_or_more_is_all_of_it(text: str, start: dt.datetime, after: dt.datetime) -> None:
    assert interval_of(text) == (start, after - MOMENT)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "yesterday", "now", "2020", "202001", "2020031", "2020-0131", "2020-01/31",
        "01/02/2020", "31/01/2020", "01.02.2020", "02-01-20", "31 Jan 20", "Jan 2020",
        "0000:00:00 00:00:00", "0000-00-00", "    :  :     :  :  ", "2020:00:00 00:00:00",
        "2020-13-01", "2020-02-30", "2021-02-29", "2021-366", "2020-367", "2020-000",
        "2021-W53", "2020-W00-1", "2020-W05-8",
        "2020-01-31T25:00:00", "2020-01-31T24:00:01", "2020-01-31T24:00:00.5",
        "2020-01-31T12:60:00",
        "2020-01-31T12:34:60Z", "2020-01-31T12:34:61Z", "2016-12-31T23:59:60+01:00",
        "2020-01-31T12:34:56+15:00", "2020-01-31T12:34:56+01:60", "2020-01-31T12:34:56 EST",
        "1580428800", "1580428800.0", "1580428800000", "43861.5", "2458879.5",
        "2020-01-31/2020-01-01", "2020-01-31/..", "2020-01-31T12:34:56Z trailing",
        "\u0662\u0660\u0662\u0660-01-31", "2020-01-31" * 1000, "31" + " " * 100 + "Jan 2020",
        "2020-01:31 12:34:56", "1799-12-31T00:00:00", "2200-01-01 00:00:00",
        "9999-12-31", "0001-01-01",
    ],
)  # fmt: skip
def test_what_is_not_sure_is_nothing(text: str) -> None:
    assert interval_of(text) is None


@given(st.text(max_size=30))
def test_any_text_has_an_answer(text: str) -> None:
    found = interval_of(text)
    assert found is None or found.start <= found.end


@given(st.datetimes(dt.datetime(1800, 1, 3), dt.datetime(2199, 12, 29), timezones=st.just(dt.UTC)))
def test_what_is_written_in_iso_comes_back(moment: dt.datetime) -> None:
    assert interval_of(moment.isoformat()) == (moment, moment)
    zone = dt.timezone(dt.timedelta(hours=-9, minutes=-30))
    assert interval_of(moment.astimezone(zone).isoformat()) == (moment, moment)


# Tags


@pytest.mark.parametrize(
    ("tags", "start", "end"),
    [
        ({"AcquisitionDateTime": "2020-01-31T12:34:56Z", "TIFFTAG_DATETIME": "2022:01:01 00:00:00"},
         NOON, NOON),
        ({"TIFFTAG_DATETIME": "2020:01:31 12:34:56"}, NOON, NOON),
        ({"TIFFTAG_DATETIME": "0000:00:00 00:00:00"}, None, None),
        ({"DATE_ACQUIRED": "0000-00-00", "TIFFTAG_DATETIME": "2020:01:31 12:34:56"}, NOON, NOON),
        ({"DATE_ACQUIRED": "2020-01-31", "SCENE_CENTER_TIME": "12:34:56Z"}, NOON, NOON),
        ({"DATE_ACQUIRED": "2020-01-31Z", "SCENE_CENTER_TIME": "12:34:56Z"}, NOON, NOON),
        ({"time_coverage_start": "2020-01-01", "time_coverage_end": "2020-01-31"},
         utc(2020, 1, 1), utc(2020, 2, 1) - MOMENT),
        ({"NC_GLOBAL#time_coverage_start": "2020-01-31T12:34:56Z",
          "NC_GLOBAL#time_coverage_end": "2020-02-01T00:00:00Z"}, NOON, utc(2020, 2, 1)),
        ({"RANGEBEGINNINGDATE": "2020-01-31", "RANGEBEGINNINGTIME": "12:34:56",
          "RANGEENDINGDATE": "2020-02-01", "RANGEENDINGTIME": "00:00:00.0"},
         NOON, utc(2020, 2, 1)),
        ({"RANGEBEGINNINGDATE": "2020-01-31", "RANGEENDINGDATE": "2020-02-01"},
         utc(2020, 1, 31), utc(2020, 2, 2) - MOMENT),
        ({"START_DATE": "2020-01-31", "START_TIME": "12:34:56", "END_DATE": "2020-02-01",
          "END_TIME": "00:00:00"}, NOON, utc(2020, 2, 1)),
        # A start alone is a moment; what tells both is better; what is out of order is nothing.
        ({"TIME_COVERAGE_START": "2020-01-31T12:34:56"}, NOON, NOON),
        ({"TIME_COVERAGE_START": "2020-01-31T12:34:56", "START_DATE": "2021-01-01"}, NOON, NOON),
        ({"START_TIME": "2020-01-31T12:34:56Z", "END_TIME": "2020-02-01T00:00:00Z"},
         NOON, utc(2020, 2, 1)),
        ({"TIME_COVERAGE_START": "2020-02-01", "TIME_COVERAGE_END": "2020-01-01"}, None, None),
        # Any of when it was taken is better than when it was written.
        ({"TIME_COVERAGE_START": "2020-01-31T12:34:56", "TIFFTAG_DATETIME": "2022:01:01 00:00:00"},
         NOON, NOON),
        ({"TIME_COVERAGE_START": "2020-01-31T12:34:56", "DATETIME": "2022-01-01",
          "IMAGE_DATE": "2020-01-31"}, utc(2020, 1, 31), utc(2020, 2, 1) - MOMENT),
        # As a text of metadata (ODL, MTL) has them.
        ({"DATE_ACQUIRED": '"2020-01-31"', "SCENE_CENTER_TIME": '"12:34:56.1234567Z"'},
         utc(2020, 1, 31, 12, 34, 56, 123456), utc(2020, 1, 31, 12, 34, 56, 123456)),
        ({"RANGEBEGINNINGDATE": "'2020-01-31'", "RANGEBEGINNINGTIME": "'12:34:56.000000000'",
          "RANGEENDINGDATE": "2020-02-01", "RANGEENDINGTIME": '"00:00:00"'},
         NOON, utc(2020, 2, 1)),
        ({"NITF_IDATIM": "20200131123456"}, NOON, NOON),
        ({"AREA_OR_POINT": "Area", "SOFTWARE": "2020-01-31"}, None, None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_tags(tags: dict[str, str], start: dt.datetime | None, end: dt.datetime | None) -> None:
    found = dated(None, "/a_20200101.tif", tags)
    assert found == (None if start is None else (start, end))
    assert dated(AUTO, "", tags) == found


@pytest.mark.parametrize(
    ("imagery", "start", "end"),
    [
        ({TAKEN: "2020-01-31 12:34:56"}, NOON, NOON),
        # The hour is not known, or nothing is.
        (
            {TAKEN: "2020-01-31 00:00:00"},
            utc(2020, 1, 31),
            utc(2020, 2, 1) - MOMENT,
        ),
        ({TAKEN: "1970-01-01 00:00:00"}, utc(2021, 1, 1), utc(2021, 1, 1)),
        ({"SATELLITEID": "WV02"}, utc(2021, 1, 1), utc(2021, 1, 1)),
    ],
)
def test_tags_of_the_domain_imagery_come_first(
    imagery: dict[str, str], start: dt.datetime, end: dt.datetime
) -> None:
    tags = {"AcquisitionDateTime": "2021-01-01 00:00:00", "TIFFTAG_DATETIME": "2022:01:01 00:00:00"}
    assert dated(None, "", tags, imagery) == (start, end)
    assert dated("acquisitiondatetime", "", tags, imagery) == (start, end)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_time_that_gdal_writes_into_every_nitf_is_no_evidence(tmp_path: Path) -> None:
    """Nor one in a copy; but where it was given, or is asked for by name."""
    profile = {"driver": "NITF", "width": 4, "height": 4, "count": 1, "dtype": "uint8"}
    for name, own in (("own.ntf", {}), ("given.ntf", {"IDATIM": "20200131123456"})):
        with rasterio.open(tmp_path / name, "w", **profile, **own):
            pass
    rasterio.shutil.copy(tmp_path / "own.ntf", tmp_path / "copy.tif", driver="GTiff")
    tags = {path.name: read_record(path).dataset_tags or {} for path in tmp_path.iterdir()}
    assert tags["own.ntf"]["NITF_IDATIM"] == tags["copy.tif"]["NITF_IDATIM"]
    assert [dated(None, "", tags[name]) for name in ("own.ntf", "copy.tif")] == [None, None]
    assert dated(None, "", tags["given.ntf"]) == (NOON, NOON)
    assert dated("NITF_IDATIM", "", tags["own.ntf"]) is not None


def test_every_tag_that_is_looked_at_is_known() -> None:
    assert {name for source in SOURCES for name in source} - {""} == TAGS
    assert all(name == name.upper() for name in TAGS)


# Rules


def date_of(rules: Rules, evidence: Evidence) -> Interval | None:
    found = rules.date(evidence)
    return found and found.interval


@pytest.mark.parametrize(
    ("rule", "path", "start", "after"),
    [
        ("%Y%m%d", "/9/scene_20200131_b4.tif", utc(2020, 1, 31), utc(2020, 2, 1)),
        ("%Y%m%d", "/20190101/x.tif", None, None),
        ("%Y%m%d", "/120200131.tif", None, None),
        ("%Y%m%d", "/20209999_20200131.tif", utc(2020, 1, 31), utc(2020, 2, 1)),
        ("%Y%j", "/MOD.A2020032.tif", utc(2020, 2, 1), utc(2020, 2, 2)),
        ("IMG%Y%m", "/9IMG202002_1.tif", utc(2020, 2, 1), utc(2020, 3, 1)),
        ("%Y-v", "/dem2020-v2.tif", utc(2020, 1, 1), utc(2021, 1, 1)),
        ("_%Y%m%dT%H_", "/a_20200131T12_.tif", utc(2020, 1, 31, 12), utc(2020, 1, 31, 13)),
        ("%d%b%y", "/a-31JAN20.tif", utc(2020, 1, 31), utc(2020, 2, 1)),
        ("/%Y/%m/%d/", "/x/2020/01/31/a.tif", utc(2020, 1, 31), utc(2020, 2, 1)),
        ("100%%_%Y", "/100%_2020.tif", utc(2020, 1, 1), utc(2021, 1, 1)),
        (r"/(\d{4})/(\d\d)/(\d\d)/", "/x/2020/01/31/a.tif", utc(2020, 1, 31), utc(2020, 2, 1)),
        (r"/(\d{4})/(\d\d)\.", "/x/2020/02.tif", utc(2020, 2, 1), utc(2020, 3, 1)),
        (r"/(\d{4})/", "/x/2020/a.tif", utc(2020, 1, 1), utc(2021, 1, 1)),
        (r"/(\d{4})/", "/x/0751/a.tif", utc(751, 1, 1), utc(752, 1, 1)),
        (r"_(\d{4})-(\d{4})\.", "/x/dem_2011-2014.tif", utc(2011, 1, 1), utc(2015, 1, 1)),
        (r"_(\d{4})_(\d{8})\.", "/x/a_2011_20120131.tif", utc(2011, 1, 1), utc(2012, 2, 1)),
        (r"/(\d+)/(\d+)/(\d+)/", "/x/2020/1/31/a", utc(2020, 1, 31), utc(2020, 2, 1)),
        (r"_(\d{8})_(\d{8})_", "/S_20200101_20200131_x", utc(2020, 1, 1), utc(2020, 2, 1)),
        (r"_(\d{8})", "/ä\n_20200131", utc(2020, 1, 31), utc(2020, 2, 1)),
        (r"_(\d{8})", "/no date", None, None),
        (r"_(\d{8})", "/_99999999.tif", None, None),
        (r"(\d)/(\d)/(\d)", "/1/2/3.tif", None, None),
    ],
)
def test_rules_for_paths(
    rule: str, path: str, start: dt.datetime | None, after: dt.datetime | None
) -> None:
    found = dated(rule, path, {})
    assert found == (None if start is None or after is None else (start, after - MOMENT))


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("%Y", "/map_9999.tif"), ("%Y%m", "/map_999912.tif"), ("%Y%m%d", "/map_99991231.tif"),
        ("%Y%m%dT%H", "/map_99991231T23.tif"), ("%Y", "/map_0000.tif"),
    ],
)  # fmt: skip
def test_what_ends_after_the_last_year_is_nothing(rule: str, path: str) -> None:
    assert dated(rule, path, {}) is None


def test_rules_that_name_a_moment_of_a_path() -> None:
    assert dated("%Y%m%d_%H%M%S", "/a_20200131_123456.tif", {}) == (NOON, NOON)
    assert dated(r"(\d{8}T\d{6})", "/S2_20200131T123456_N.tif", {}) == (NOON, NOON)
    assert dated(r"_(\d{8})_(\d{6})", "/S2_20200131_123456", {}) == (NOON, NOON)


def test_rules_that_name_tags() -> None:
    assert dated("my_date", "", {"MY_DATE": "2020-01-31T12:34:56"}) == (NOON, NOON)
    both = {"from": "2020-01-31T12:34:56", "To": "2020-02-01T00:00:00"}
    assert dated("FROM/TO", "", both) == (NOON, utc(2020, 2, 1))
    assert dated("FROM/UNTIL", "", both) is None
    assert dated("TO/FROM", "", both) is None
    assert dated("OTHER", "", {"TIFFTAG_DATETIME": "2020:01:31 12:34:56"}) is None


def test_rules_are_tried_in_their_order() -> None:
    rules = Rules(["NO_SUCH_TAG", "MY_DATE", "%Y%m%d", AUTO, "LAST"])
    taken = {"MY_DATE": "2020-01-31T12:34:56", "TIFFTAG_DATETIME": "2022:01:01 00:00:00"}
    assert date_of(rules, evidence_of("/20190101.tif", taken, None)) == (NOON, NOON)
    assert [rule for rule, _ in rules.in_vain] == ["NO_SUCH_TAG"], (
        "the others were not asked, or could tell"
    )
    by_path = utc(2019, 1, 1), utc(2019, 1, 2) - MOMENT
    assert (
        date_of(rules, evidence_of("/20190101.tif", {"TIFFTAG_DATETIME": "2022"}, None)) == by_path
    )
    assert date_of(rules, evidence_of("/a.tif", {TAKEN: "2020-01"}, None)) is not None
    assert [rule for rule, _ in rules.in_vain] == ["NO_SUCH_TAG"]
    assert date_of(rules, evidence_of("/a.tif", {}, {})) is None
    assert [rule for rule, _ in rules.in_vain] == ["NO_SUCH_TAG", "LAST"]


@pytest.mark.parametrize("moment", ["1970-01-01 00:00:00", "1969-12-31 23:59:59"])
def test_what_gdal_writes_for_a_time_that_it_cannot_parse_is_no_evidence(moment: str) -> None:
    rules = Rules()
    assert date_of(rules, evidence_of("", {}, {TAKEN: moment})) is None
    assert date_of(rules, evidence_of("", {TAKEN: moment}, {})) is not None


@pytest.mark.parametrize("rule", ["%Y-%Y", "%q%Y", "(20", "a/b/c"])
def test_a_rule_that_makes_no_sense_is_named(rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{rule}: ")):
        Rules(["MY_DATE", rule])


def test_without_a_rule_common_tags_are_looked_at() -> None:
    rules = Rules()
    assert date_of(rules, evidence_of("/20190101.tif", {}, {})) is None
    assert rules.in_vain == []
    assert date_of(rules, evidence_of("", {}, {TAKEN: "2020-01-31 12:34:56"})) == (
        NOON,
        NOON,
    )


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("no%Qsuch", "%Q is not known"),
        ("%m%d", "needs a year"),
        ("%Y%y", "needs a year"),
        ("%Y%d", "a day without a %b or %m"),
        ("%Y%m%H", "a hour without a %d or %j"),
        ("%Y%m%d%S", "a second without a %M"),
        ("%Y%Y", "twice"),
        ("%Y%", "stray"),
        (r"\d{8}(?:x)", "no group"),
        ("(unclosed", "unterminated"),
        ("A/B/C", "no tag"),
        ("", "no tag"),
    ],
)
def test_rules_that_make_no_sense(rule: str, reason: str) -> None:
    with pytest.raises((ValueError, re.error), match=re.escape(reason)):
        rule_of(rule)

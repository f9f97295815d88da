"""Times that coordinates of NetCDF files tell."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin

from rastermeta_async.one_file import read_record
from rastermeta_async.readers.cf_times import Times, times_of

NONE = Times()


def tags(values: str, units: str, name: str = "time", **attributes: str) -> dict[str, str]:
    found = {
        "NETCDF_DIM_EXTRA": f"{{{name}}}",
        f"NETCDF_DIM_{name}_DEF": "{3,6}",
        f"NETCDF_DIM_{name}_VALUES": values,
        f"{name}#units": units,
    }
    return found | {f"{name}#{key}": value for key, value in attributes.items()}


def told(found: Times) -> list[str | None]:
    return [time.isoformat().removesuffix("+00:00") if time else None for time in found]


DAYS = "days since 1950-01-01"


@pytest.mark.parametrize(
    ("values", "units", "start", "end"),
    [
        ("{0,1,2}", DAYS, "1950-01-01T00:00:00", "1950-01-03T00:00:00"),
        ("0", DAYS, "1950-01-01T00:00:00", "1950-01-01T00:00:00"),
        ("{7}", DAYS, "1950-01-08T00:00:00", "1950-01-08T00:00:00"),
        ("{2,1,0}", DAYS, "1950-01-01T00:00:00", "1950-01-03T00:00:00"),  # descending
        ("{36524.04166666666}", DAYS, "2049-12-31T01:00:00", "2049-12-31T01:00:00"),
        ("{-0.5, 1e1}", "d since 1950-1-1 0:0:0", "1949-12-31T12:00:00", "1950-01-11T00:00:00"),
        ("{1,2}", "Hours Since 1900-01-01 00:00:0.0", "1900-01-01T01:00:00", "1900-01-01T02:00:00"),
        ("{90}", "minutes since 2000-02-29T23:00", "2000-03-01T00:30:00", "2000-03-01T00:30:00"),
        ("{0.25}", "s since 1970-01-01Z", "1970-01-01T00:00:00.250000",
         "1970-01-01T00:00:00.250000"),
        ("{1577836800123}", "milliseconds since 1970-01-01 UTC", "2020-01-01T00:00:00.123000",
         "2020-01-01T00:00:00.123000"),
        # CF 4.4, example 4.4: six hours west of Greenwich
        ("{0}", "seconds since 1992-10-8 15:15:42.5 -6:00", "1992-10-08T21:15:42.500000",
         "1992-10-08T21:15:42.500000"),
        ("{0}", "hours since 2020-01-01 00:00 +0530", "2019-12-31T18:30:00", "2019-12-31T18:30:00"),
    ],
)  # fmt: skip
def test_a_time_is_the_reference_time_and_a_number_of_units(
    values: str, units: str, start: str, end: str
) -> None:
    assert told(times_of(tags(values, units))) == [start, end]


def test_a_mixed_calendar_counts_in_julian_dates_before_the_reform() -> None:
    """The numbers are those of cftime 1.6 for the same units."""
    days = tags("{719164,737792}", "days since 1-1-1 00:00:00")
    assert told(times_of(days)) == ["1970-01-01T00:00:00", "2021-01-01T00:00:00"]
    exact = tags("{719162}", "days since 0001-01-01", calendar="proleptic_gregorian")
    assert told(times_of(exact))[0] == "1970-01-01T00:00:00"
    after = tags("{1}", "days since 1582-10-04", calendar="gregorian")
    assert told(times_of(after))[0] == "1582-10-15T00:00:00"
    assert told(times_of(tags("{366}", "days since 1500-02-29 "))) == [None, None]


@pytest.mark.parametrize(
    ("values", "units", "calendar"),
    [
        ("{1}", DAYS, "360_day"), ("{1}", DAYS, "noleap"), ("{1}", DAYS, "julian"),
        ("{1}", DAYS, "x" * 99), ("{1}", "months since 1950-01-01", ""),
        ("{1}", "years since 1950-01-01", ""), ("{1}", "days", ""), ("{1}", "metres", ""),
        ("{1}", "days since", ""), ("{1}", "days since yesterday", ""),
        ("{1}", "days since 1950-02-30", ""), ("{1}", "days since 0000-01-01", ""),
        ("{1}", "days since 1582-10-10", ""), ("{1}", "days since 1950-01-01 25:00", ""),
        ("{1}", "days since 1950-01-01 00:00 +99", ""), ("{1}", "days since 1-1-1", ""),
        ("{1}", DAYS + " " * 200, ""), ("{}", DAYS, ""), ("{nan}", DAYS, ""), ("{inf}", DAYS, ""),
        ("{1,}", DAYS, ""), ("{1,x}", DAYS, ""), ("{9.969209968386869e+36}", DAYS, ""),
        ("{1e999}", DAYS, ""), ("{1e9999999}", DAYS, ""), ("{" + "9" * 10_000 + "}", DAYS, ""),
        ("{4000000}", DAYS, ""), ("{-4000000}", DAYS, ""), ("{\u0661}", DAYS, ""),
    ],
)  # fmt: skip
def test_what_tells_no_time_gives_none(values: str, units: str, calendar: str) -> None:
    assert times_of(tags(values, units, calendar=calendar)) == NONE


def test_of_several_dimensions_the_one_that_is_the_time_counts() -> None:
    two = tags("{1}", DAYS) | tags("{9}", DAYS, "reference")
    two["NETCDF_DIM_EXTRA"] = "{reference,time,level}"
    assert times_of(two) == NONE
    assert times_of(two | {"time#axis": "T"}).start == dt.datetime(1950, 1, 2, tzinfo=dt.UTC)
    assert times_of(two | {"reference#standard_name": "time"}).start == (
        dt.datetime(1950, 1, 10, tzinfo=dt.UTC)
    )
    assert times_of(two | {"reference#axis": "T", "time#axis": "T"}) == NONE
    alone = two | {"NETCDF_DIM_EXTRA": "{level,time}"}
    assert times_of(alone).start == dt.datetime(1950, 1, 2, tzinfo=dt.UTC)
    assert times_of({}) == NONE


def test_a_coordinate_of_a_group_tells_times_unless_two_groups_differ() -> None:
    found = tags("{1}", DAYS)
    in_group = {f"/sea/{name}" if "#" in name else name: value for name, value in found.items()}
    assert told(times_of(in_group))[0] == "1950-01-02T00:00:00"
    assert times_of(in_group | {"/land/time#units": DAYS}) == times_of(in_group)
    assert times_of(in_group | {"/land/time#units": "days since 2020-01-01"}) == NONE


def test_only_the_ends_of_many_values_are_parsed() -> None:
    many = "{" + ",".join(map(str, range(500_000))) + "}"
    assert told(times_of(tags(many, "hours since 1900-01-01"))) == [
        "1900-01-01T00:00:00", "1957-01-15T07:00:00",
    ]  # fmt: skip


@given(st.dictionaries(st.sampled_from([*tags("", "")]), st.text(max_size=12)))
def test_any_tags_at_all_give_times_or_none(found: dict[str, str]) -> None:
    assert isinstance(times_of(found), Times)


@given(st.datetimes(dt.datetime(1583, 1, 1), dt.datetime(2400, 1, 1)), st.floats(0, 1e5))
def test_a_number_of_days_is_exact_to_a_millisecond(since: dt.datetime, days: float) -> None:
    since = since.replace(microsecond=0)
    units = f"days since {since:%Y-%m-%d %H:%M:%S}"
    found = times_of(tags(f"{{{days:.16g}}}", units)).start
    assert found is not None
    exact = since.replace(tzinfo=dt.UTC) + dt.timedelta(days=days)
    assert abs(found - exact) <= dt.timedelta(milliseconds=1)


def netcdf_with_times(folder: Path, kind: str, values: str, units: str) -> Path:
    """Write a NetCDF file with a variable of three times."""
    profile = {"width": 8, "height": 6, "count": 3, "dtype": "float32", "crs": "EPSG:4326",
               "transform": from_origin(10, 50, 0.5, 0.5)}  # fmt: skip
    with rasterio.open(folder / "source.tif", "w", driver="GTiff", **profile) as dataset:
        dataset.write(np.zeros((3, 6, 8), "float32"))
        dataset.update_tags(**tags(values, units, standard_name="time", calendar="standard"))
        for band in (1, 2, 3):
            dataset.update_tags(band, NETCDF_VARNAME="t2m", NETCDF_DIM_time=str(band), units="K")
    path = folder / f"{kind}.nc"
    rasterio.shutil.copy(folder / "source.tif", path, driver="netCDF", FORMAT=kind)
    return path


@pytest.mark.parametrize("kind", ["NC", "NC2", "NC4", "NC4C"])
def test_a_netcdf_file_tells_its_times_variable_units_and_dimensions(
    tmp_path: Path, kind: str
) -> None:
    path = netcdf_with_times(tmp_path, kind, "{0,0.5,36524.0416666667}", DAYS)
    record = read_record(path)
    assert (record.driver, record.count) == ("netCDF", 3)
    assert told(Times(record.time_start, record.time_end)) == [
        "1950-01-01T00:00:00", "2049-12-31T01:00:00",
    ]  # fmt: skip
    assert record.bands is not None
    assert record.band_tags is not None
    assert record.dataset_tags is not None
    assert {band.unit for band in record.bands} == {"K"}
    assert record.band_tags[1]["NETCDF_VARNAME"] == "t2m"
    assert record.dataset_tags["NETCDF_DIM_EXTRA"] == "{time}"
    assert record.dataset_tags["NETCDF_DIM_time_DEF"] == "{3,6}"


def test_the_times_of_other_formats_are_not_told(tmp_path: Path) -> None:
    netcdf_with_times(tmp_path, "NC", "{0,1,2}", DAYS)
    record = read_record(tmp_path / "source.tif")
    assert (record.driver, record.time_start, record.time_end) == ("GTiff", None, None)

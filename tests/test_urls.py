"""URLs among the paths: what of them may be kept and shown."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.model import urls
from rastermeta_async.model.errors import SettingsError, StoreError
from rastermeta_async.model.urls import (
    is_prefix,
    local_name,
    local_path,
    parts_of,
    redacted,
    requested,
    without_secrets,
)

SAS = "sv=2024-01-01&sr=b&sp=r&se=2026-01-01T00%3A00Z&sig=hid%2Fden"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://h/a.tif", "https://h/a.tif"),
        ("https://h/a.tif?versionId=7", "https://h/a.tif?versionId=7"),
        ("https://h/a.tif?v=1&X-Amz-Signature=hidden&x-amz-expires=9", "https://h/a.tif?v=1"),
        ("https://h/a.tif?X-Goog-Credential=me&X-Goog-Signature=hidden", "https://h/a.tif"),
        (f"https://h/a.tif?{SAS}", "https://h/a.tif"),
        ("https://h/a.tif?Expires=1&Signature=hidden&Key-Pair-Id=K", "https://h/a.tif"),
        ("https://me:hidden@h/a.tif", "https://h/a.tif"),
        ("https://h/a.tif?password=hidden&apikey=hidden", "https://h/a.tif"),
        ("https://me:hid@den@h/a.tif", "https://h/a.tif"),
        ("https://h/a.tif?subscription-key=hidden&client_secret=hidden", "https://h/a.tif"),
        ("https://h/a.tif?pwd=hidden&hdnea=exp=1~hmac=hidden", "https://h/a.tif"),
        ("https://h/a.tif?v=1#sig=hidden", "https://h/a.tif?v=1"),
        ("https://h/a#1.tif", "https://h/a#1.tif"),
        ("HTTPS://me:hidden@h/a.tif?sig=hidden", "HTTPS://h/a.tif"),
        ("/vsicurl/https://h/a.tif?sig=hidden", "/vsicurl/https://h/a.tif"),
        ("ftp://me:hidden@h/a.tif", "ftp://h/a.tif"),
        ("http:/me:hidden@h/a.tif", "http:/h/a.tif"),
        ("https:/h/a.tif?passwd=hidden", "https:/h/a.tif"),
        ("s3a://me:hidden@b/a.tif", "s3a://b/a.tif"),
        ("https://h/a.tif?passwd=hidden&jwt=hidden&sessionid=hidden", "https://h/a.tif"),
        ("https://h/a.tif?v=1;sig=hidden", "https://h/a.tif?v=1"),
        ("https://h/a.tif;sig=hidden", "https://h/a.tif"),
        ("https://h/a.tif?v=1&amp;sig=hidden&amp;crs=4326", "https://h/a.tif?v=1&amp&amp;crs=4326"),
        ("https://h/a;jsessionid=hidden/b.tif", "https://h/a/b.tif"),
        ("https://h/a.tif?%73ig=hidden&Author%69zation=hidden&v=1", "https://h/a.tif?v=1"),
        ("https://h/a.tif?header.Authorization=Bearer%20hidden", "https://h/a.tif"),
        ("https://h/a.tif#access_password=hidden", "https://h/a.tif"),
        ("https://me:hid/den@h/a.tif", "https://h/a.tif"),
        ("https://h:8080/a@2x.tif", "https://h:8080/a@2x.tif"),
        ("https://[::1]:80/a@2x.tif", "https://[::1]:80/a@2x.tif"),
        ("s3://me:hid/den@b/a.tif", "s3://b/a.tif"),
        ("sftp://me:hidden@h/a.tif", "sftp://h/a.tif"),
        ("vrt://https://me:hidden@h/a.tif?sig=hidden?bands=1", "vrt://https://h/a.tif?bands=1"),
        ("/vsicurl/http://me:hidden@h/a.tif", "/vsicurl/http://h/a.tif"),
        ("/vsizip//vsicurl/http://me:hidden@h/a.zip", "/vsizip//vsicurl/http://h/a.zip"),
        (
            "/vsicurl?url=http%3A%2F%2Fme%3Ahidden%40h%2Fa.tif%3Fv%3D1%26sig%3Dhidden",
            "/vsicurl?url=http%3A%2F%2Fh%2Fa.tif%3Fv%3D1",
        ),
        (
            "https://tiles/http%3A%2F%2Fme%3Ahidden%40h%2Fa.tif%3Fsig%3Dhidden/1/2",
            "https://tiles/http%3A%2F%2Fh%2Fa.tif/1/2",
        ),
        ("https://tiles/?url=https://me:hidden@h/a.tif", "https://tiles/?url=https://h/a.tif"),
        # Libraries leave some signs as they are where they encode a URL, above all slashes.
        (
            "https://tiles/?url=https%3A//me%3Ahidden%40h/a.tif%3Fv%3D1%26sig%3Dhidden",
            "https://tiles/?url=https%3A%2F%2Fh%2Fa.tif%3Fv%3D1",
        ),
        (
            "https://tiles/?url=https%3A%2F%2Fh%2Fa.tif%3Fsig=hidden==",
            "https://tiles/?url=https%3A%2F%2Fh%2Fa.tif",
        ),
        ("https://h/a?name=x%26y", "https://h/a?name=x%26y"),
        ("https://h/a%23b%40c.tif", "https://h/a%23b%40c.tif"),
        (
            "https://h/1%20%C3%A4%2520%23%3F%2B%26%3D/b.tif",
            "https://h/1%20%C3%A4%2520%23%3F%2B%26%3D/b.tif",
        ),
        ("https://h/a%3Fx%3D1/b.tif", "https://h/a%3Fx%3D1/b.tif"),
        ("s3://b/a%3Fdate%3D1.tif", "s3://b/a%3Fdate%3D1.tif"),
        ("s3://b/a%3Ftoken%3D1.tif", "s3://b/a%3Ftoken%3D1.tif"),  # a key is none percent-encoded
        # `pathlib` makes one slash of two.
        ("https:/me:hidden@h/a.tif?sig=hidden", "https:/h/a.tif"),
        # What stands before it, as in a list of another form, makes a URL no local path.
        (" https://me:hidden@h/a.tif?sig=hidden", " https://h/a.tif"),
        ("\ufeffhttps://me:hidden@h/a.tif", "\ufeffhttps://h/a.tif"),
        ('"https://h/a b.tif?sig=hidden"', '"https://h/a b.tif'),
        ("7,https://me:hidden@h/a.tif", "7,https://h/a.tif"),
        ('NETCDF:"https://me:hidden@h/a.nc":v', 'NETCDF:"https://h/a.nc":v'),
        # What asks for one thing or another is no secret.
        (
            "https://h/wcs?SERVICE=WCS&coverageId=a&bbox=1,2,3,4&crs=EPSG:4326&time=2024-01-01",
            "https://h/wcs?SERVICE=WCS&coverageId=a&bbox=1,2,3,4&crs=EPSG:4326&time=2024-01-01",
        ),
        ("https://h/get?download&file=a.tif&id=7", "https://h/get?download&file=a.tif&id=7"),
        ("https://h/get?a.tif", "https://h/get?a.tif"),
        ("https://h/a;b.tif", "https://h/a;b.tif"),
        ("s3://b/a?v=1;part=2&of=the-key", "s3://b/a?v=1;part=2&of=the-key"),
        ("az://c/a#1;2.tif", "az://c/a#1;2.tif"),
    ],
)
def test_what_is_kept_of_a_url(given: str, kept: str) -> None:
    assert without_secrets(given.encode()) == kept.encode()
    assert without_secrets(kept.encode()) == kept.encode()


@pytest.mark.parametrize(
    "path",
    [
        "/disk/a.tif?sig=b", "a?b=c.tif", "a;sig=b.tif", "./http://h/a?sig=b", "../a?token=c",
        "/disk/http://me:word@h/a?sig=b", "password=b.tif", "a@b:c.tif", " /a/http://h/b?sig=c",
        "key=1/a#token=2.tif", "/vsi/a?sig=b",
    ],
)  # fmt: skip
def test_a_local_path_is_never_altered(path: str) -> None:
    assert without_secrets(path.encode()) == path.encode()


@pytest.mark.parametrize(
    "url",
    [
        "https://h/get?key=hidden{}", "https://h/get?access_token=hidden{}",
        "https://h/get?secretkey=hidden{}", "https://h/get?unheard-of=hidden{}",
        "https://h/get?hidden{}", "https://h/get?hidden{}==", "https://h/get#hidden{}",
        "https://h/get;unheard-of=hidden{}", "https://h/get?token=~hidden{}",
        "https://h/wms?sp=hidden{}&st=2&policy=x",  # of nothing that is signed
        "https://h/get?p=https%3A%2F%2Fh%2Fhidden{}%3Fsig=1",
        "https://h/get?path=a.tif%3Ftoken%3Dhidden{}", "https://h/get?path=a%26token%3Dhidden{}",
        "https://h/a.tif%3Bsig%3Dhidden{}", "https://h/a.tif%3Fsig%3Dhidden{}/b.tif",
        "https://h/get?token=~0123456789ab-hidden{}", "s3://b/a?token=~0123456789ab.hidden{}",
        # Keys of buckets may hold anything.
        "s3://b/a?sig=hidden{}", "az://c/a.tif?sv=2024-01-01&sig=hidden{}", "gs://b/a;token=hidden{}",
        # Files in what is packed, which no run opens.
        "/vsizip//vsicurl/http://h/a.zip?sig=hid/{}.tif",
        'NETCDF:"https://h/a.nc?sig=hidden":{}',
        "7,https://h/a.tif?sig=hidden,{}.tif",
        "/vsizip/{{/vsicurl/http://h/a.zip?sig=hidden}}/{}.tif",
    ],
)  # fmt: skip
def test_what_may_tell_files_apart_does(url: str) -> None:
    first, second = (without_secrets(url.format(number).encode()) for number in (1, 2))
    assert first != second
    assert b"hid" not in first + second
    assert without_secrets(first) == first  # as it is when a catalog's paths are given again


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_a_secret_is_found_in_urls_within_urls(times: int) -> None:
    url = "https://h/a.tif?sig=hidden"
    for _ in range(times):
        url = f"https://tiles/?url={quote(url, safe='')}"
    assert "hidden" not in without_secrets(url.encode()).decode()


def test_a_word_alone_may_tell_files_apart_whatever_it_is() -> None:
    for word in (b"password", b"sig"):
        assert without_secrets(b"https://h/get?" + word) not in (
            b"https://h/get",
            b"https://h/get?",
        )


def test_a_url_encoded_any_number_of_times_is_no_trouble() -> None:
    signs = "".join(f"%{'25' * times}3fa%{'25' * times}3d" for times in range(300))
    assert without_secrets(f"https://h/get?a=b={signs}".encode())


def test_what_is_signed_anew_stays_the_same_path() -> None:
    inner = "https%3A%2F%2Fh%2Fa.tif%3Fsig%3Dhidden{}"
    for url in ("https://h/a.tif?unheard-of=x&sig={}", f"https://tiles/?unheard-of={inner}"):
        first, second = (without_secrets(url.format(number).encode()) for number in (1, 2))
        assert first == second


def test_fingerprints_of_many_values_differ() -> None:
    urls = [f"https://h/get?unheard-of={number}".encode() for number in range(1000)]
    shown = [without_secrets(url) for url in urls]
    assert len(set(shown)) == len(urls)
    # Of 10^8 values two are the same with a chance below 10^-9: n^2 / 2 / 2^bits.
    bits = len(shown[0].partition(b"~")[2]) * 4
    assert (10**8) ** 2 / 2 / 2**bits < 1e-9


@pytest.mark.parametrize(
    "message",
    [
        "'/vsicurl/https://h/a b.tif?jwt=hidden' does not exist",
        "cannot open `sftp://me:hidden@h/a.tif'",
        "--from-file: https://me:hidden@h/list does not exist",
        "GET /a.tif;sig=hidden?x=1 failed",
        "GET /a.tif?v=1&%73ig=hidden failed",
        "…&X-Amz-Security-Token=hidden&v=1 is cut",
        "GDAL_HTTP_HEADERS=Authorization: Bearer hidden",
        "headers: {'authorization': 'Basic hidden', 'range': 'bytes=0-1'}",
        "Proxy-Authorization: AWS4-HMAC-SHA256 Credential=hidden, Signature=hidden",
        "Cookie: a=hidden; b=hidden",
        "X-Api-Key: hidden",
        "GDAL_HTTP_USERPWD=me:hidden and GDAL_PROXY_AUTH",
        "PG:host=h user=me password='hidden' mode=2",
        "header.Authorization=Bearer%20hidden",
        "url=http%3A%2F%2Fme%3Ahidden%40h%2Fa.tif",
        "Bearer hidden.1234.x was refused",
        "HTTP error code: 503 - https://h/a.tif?X-Amz-Signature=hidden. Retrying again",
        "'/vsicurl/https://me:hidden@h/a.tif' does not exist",
        "{'AWS_SECRET_ACCESS_KEY': 'hidden', 'AWS_REGION': 'x'}",
        "AccountName=me;AccountKey=hidden;BlobEndpoint=http://h",
        "Cleared existing {'AWS_SESSION_TOKEN': 'hidden/+='} options",
        "https://me:hidden<x`y@h/a.tif failed",
        "GET /a.tif?token=hidden failed",
    ],
)
def test_what_libraries_say_gives_nothing_away(message: str) -> None:
    assert "hidden" not in redacted(message)


def test_a_long_message_takes_no_longer_a_character() -> None:
    def seconds(count: int) -> float:
        message = "https://h/get?" + "a=b&" * count
        started = time.process_time()
        redacted(message)
        return time.process_time() - started

    assert seconds(80_000) < 8 * seconds(20_000)  # 4 times as long; with its square, 16


def test_what_is_left_of_a_url_with_an_object_s_message() -> None:
    """Of a part of a URL nothing tells where it is from, but that the row is an object's."""
    message = "GET /a.tif?unheard-of=hidden failed"
    assert "hidden" not in redacted(message, remote=True)
    assert redacted(message) == message


@pytest.mark.parametrize(
    "message",
    [
        "/disk/key=5/a?b=c.tif: error: unexpected token: 7 at offset=12",
        "catalog.parquet: 3 rows; run the same command again, without --overwrite",
        "a.tif: HTTP 403: access is denied, with these credentials: renew them",
        "https://h/wms?layers=a&id=7: error: Connection: reset",
        "line 3, column 4: Bearer tokens are not set up",
        "block=1: pass: 3 of 4, session: 5 rows, auth: none",
    ],
)
def test_what_is_no_secret_stays_in_a_message(message: str) -> None:
    assert redacted(message) == message


def test_the_path_of_a_row_stays_as_it_is_in_its_message() -> None:
    path = "/disk/a?sig=b;token=c.tif"
    message = f"'{path}' is a VRT, 'http://me:hidden@h/x' is not"
    assert redacted(message, path) == f"'{path}' is a VRT, 'http://h/x' is not"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("https://h/100%.tif", "https://h/100%25.tif"),
        ("https://h/a%zz%2.tif?b=%", "https://h/a%25zz%252.tif?b=%25"),
        ("https://h/a%20b%C3%a4.tif?b=%2F&c=/", "https://h/a%20b%C3%a4.tif?b=%2F&c=/"),
        ('https://h/a b"\x01.tif', "https://h/a%20b%22%01.tif"),
    ],
)
def test_nothing_is_asked_for_that_no_url_may_hold(given: str, asked: str) -> None:
    """A strict server refuses a percent sign that begins no escape; the tests' own does not."""
    assert requested(given) == asked


def test_what_is_a_prefix() -> None:
    urls = ["s3://b", "s3://b/", "s3://b/p/", "s3://b/p", "https://h", "https://h/p/", "a/", "b"]
    assert list(filter(is_prefix, urls)) == ["s3://b", "s3://b/", "s3://b/p/", "https://h/p/"]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("file:///disk/a%20b.tif", "/disk/a b.tif"),
        ("FILE://localhost/disk/a.tif", "/disk/a.tif"),
        ("file:/disk/a#1?.tif", "/disk/a#1?.tif"),
        ("file:///disk/100%.tif", "/disk/100%.tif"),
        # These name no file of this machine.
        ("file://nas/a.tif", "file://nas/a.tif"),
        ("file:a.tif", "file:a.tif"),
        ("/disk/a%20b.tif", "/disk/a%20b.tif"),
        ("s3://bucket/a%20b.tif", "s3://bucket/a%20b.tif"),
    ],
)
def test_the_local_path_that_a_url_names(given: str, path: str) -> None:
    assert local_path(given.encode()) == path.encode()


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://bucket/a//b?c#d", ("s3", "bucket", "a//b?c#d")),
        ("gs://bucket", ("gs", "bucket", "")),
        ("https://host:1/a/b.tif?c=d", ("https", "host:1", "a/b.tif")),
    ],
)
def test_what_a_url_consists_of(url: str, parts: tuple[str, str, str]) -> None:
    assert parts_of(url) == parts


@pytest.mark.parametrize(
    ("url", "message"),
    [("s3:///a.tif", "there is no bucket in this URL"), ("https://[h/a.tif", "this is no URL")],
)
def test_a_url_that_leads_nowhere_is_named(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        parts_of(url)


def test_the_file_that_an_output_is_made_in() -> None:
    outputs = {"a/b.parquet": "a/b.parquet", "s3://b/c/d.parquet": "d.parquet"}
    assert {output: local_name(output) for output in outputs} == outputs


@pytest.mark.parametrize("url", ["https://h/c.parquet", "s3://bucket/folder/"])
def test_an_output_that_nothing_can_be_uploaded_to_is_named(url: str) -> None:
    with pytest.raises(SettingsError, match="to a file in s3://, gs:// or az:// only"):
        local_name(url)


@given(st.text(alphabet="s3:/gazhtp?#@%=_-x \n'\"BEARERbearer", max_size=40))
def test_what_is_quickly_told_to_be_harmless_is_so(text: str) -> None:
    path = f"s3://{text}".encode()
    if urls._PLAIN_OBJECT.fullmatch(path) and b"bearer" not in path.lower():
        assert urls._SUSPICIOUS.search(path.decode()) is None

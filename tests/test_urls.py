"""URLs among the paths: what of them may be kept and shown."""

from __future__ import annotations

import pytest

from rastermeta_async.urls import is_prefix, local_path, redacted, without_secrets

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
        ("s3a://me:hidden@b/a.tif", "s3a://b/a.tif"),
        # Not signed: these are names of something else.
        ("https://h/wms?sp=1&st=2&policy=x", "https://h/wms?sp=1&st=2&policy=x"),
        ("s3://b/a?sig=part-of-the-key", "s3://b/a?sig=part-of-the-key"),
        ("/disk/a.tif?sig=b", "/disk/a.tif?sig=b"),
    ],
)
def test_what_is_kept_of_a_url(given: str, kept: str) -> None:
    assert without_secrets(given.encode()) == kept.encode()


@pytest.mark.parametrize("name", ["key", "token", "access_token", "secretkey"])
def test_what_may_tell_files_apart_does(name: str) -> None:
    urls = [f"https://h/get?{name}=hidden{number}".encode() for number in (1, 2)]
    first, second = map(without_secrets, urls)
    assert first != second
    assert b"hidden" not in first + second
    assert without_secrets(first) == first  # as it is when a catalog's paths are given again


@pytest.mark.parametrize(
    "message",
    [
        "HTTP error code: 503 - https://h/a.tif?X-Amz-Signature=hidden. Retrying again",
        "'/vsicurl/https://me:hidden@h/a.tif' does not exist",
        "{'AWS_SECRET_ACCESS_KEY': 'hidden', 'AWS_REGION': 'x'}",
        "AccountName=me;AccountKey=hidden;BlobEndpoint=http://h",
        "Cleared existing {'AWS_SESSION_TOKEN': 'hidden/+='} options",
    ],
)
def test_what_libraries_say_gives_nothing_away(message: str) -> None:
    assert "hidden" not in redacted(message)


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

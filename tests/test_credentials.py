"""How each cloud is reached: what its own tools find in the environment, obstore and GDAL get."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rastermeta_async.model.errors import StoreError
from rastermeta_async.model.settings import Access
from rastermeta_async.stores.credentials import (
    boto3_session,
    endpoint_of,
    for_gdal,
    for_obstore,
    gdal_options,
)

PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "GS_", "STORAGE_")
KEYS = {"AWS_ACCESS_KEY_ID": "of-environment", "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_SESSION_TOKEN": "of-environment"}  # fmt: skip
ACCOUNT = {"AZURE_STORAGE_ACCOUNT": "me"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment, and a home, in which nobody has logged in anywhere."""
    for name in os.environ:
        if name.startswith(PREFIXES) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


class Case(NamedTuple):
    """A way to set up a cloud, and what obstore and GDAL are to be told; None: nothing of it."""

    scheme: str
    environment: dict[str, str]
    access: Access
    obstore: dict[str, Any]
    gdal: dict[str, Any]


CASES = {
    "no region": Case("s3", {}, Access(), {"region": "us-east-1"}, {"AWS_REGION": None}),
    "region": Case(
        "s3", {"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}, Access(),
        {"region": "a"}, {"AWS_REGION": "a"},
    ),
    "default region": Case(
        "s3", {"AWS_DEFAULT_REGION": "b"}, Access(), {"region": "b"}, {"AWS_REGION": None}
    ),
    "--region": Case(
        "s3", {"AWS_REGION": "a"}, Access(region="c"), {"region": "c"}, {"AWS_REGION": "c"}
    ),
    "endpoint": Case(
        "s3", {"AWS_ENDPOINT_URL_S3": "http://one:1", "AWS_ENDPOINT_URL": "http://two"}, Access(),
        {"endpoint": "http://one:1"},
        {"AWS_S3_ENDPOINT": "one:1", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"},
    ),
    "--endpoint-url": Case(
        "s3", {"AWS_ENDPOINT_URL": "http://two"}, Access(endpoint_url="https://given/"),
        {"endpoint": "https://given/"}, {"AWS_S3_ENDPOINT": "given", "AWS_HTTPS": "YES"},
    ),
    "requester pays": Case(
        "s3", {}, Access(requester_pays=True),
        {"request_payer": True}, {"AWS_REQUEST_PAYER": "requester"},
    ),
    "nobody pays": Case("s3", {}, Access(), {"request_payer": None}, {"AWS_REQUEST_PAYER": None}),
    "public s3": Case(
        "s3", {}, Access(no_sign_request=True),
        {"skip_signature": True}, {"AWS_NO_SIGN_REQUEST": "YES"},
    ),
    "public gs": Case(
        "gs", {}, Access(no_sign_request=True),
        {"skip_signature": True}, {"GS_NO_SIGN_REQUEST": "YES"},
    ),
    "gs": Case("gs", {}, Access(), {"skip_signature": None}, {"GS_NO_SIGN_REQUEST": None}),
    "emulator of gs": Case(
        "gs", {"STORAGE_EMULATOR_HOST": "localhost:1"}, Access(), {"skip_signature": True},
        {"GS_NO_SIGN_REQUEST": "YES", "CPL_GS_ENDPOINT": "http://localhost:1/"},
    ),
    "connection string": Case(
        "az",
        {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=k==;EndpointSuffix=cloud;;"},
        Access(),
        {"account_name": "a", "account_key": "k==", "endpoint": "https://a.blob.cloud"},
        {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_ACCESS_KEY": "k==",
         "CPL_AZURE_ENDPOINT": "https://a.blob.cloud", "AZURE_STORAGE_CONNECTION_STRING": ""},
    ),
    "connection string with a protocol": Case(
        "az",
        {"AZURE_STORAGE_CONNECTION_STRING":
            "DefaultEndpointsProtocol=http;AccountName=a;EndpointSuffix=cloud"},
        Access(), {"endpoint": "http://a.blob.cloud"}, {"CPL_AZURE_ENDPOINT": "http://a.blob.cloud"},
    ),
    "connection string with an endpoint": Case(
        "az",
        {"AZURE_STORAGE_CONNECTION_STRING":
            "AccountName=a;EndpointSuffix=cloud;BlobEndpoint=http://here/a/"},
        Access(), {"endpoint": "http://here/a"}, {"CPL_AZURE_ENDPOINT": "http://here/a"},
    ),
    **{
        name: Case(
            "az", ACCOUNT | {name: "k"}, Access(),
            {"account_name": "me", "account_key": "k"}, {"AZURE_STORAGE_ACCESS_KEY": "k"},
        )
        for name in
        ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY")
    },
    "account of the cloud's endpoint": Case(
        "az", {"AZURE_STORAGE_ENDPOINT": "https://me.blob.cloud/"}, Access(),
        {"account_name": "me"}, {"AZURE_STORAGE_ACCOUNT": "me"},
    ),
    "account of an emulator's endpoint": Case(
        "az", {"AZURE_STORAGE_ENDPOINT": "http://localhost:1/me"}, Access(),
        {"account_name": "me"}, {"AZURE_STORAGE_ACCOUNT": "me"},
    ),
    "signature": Case(
        "az", ACCOUNT | {"AZURE_STORAGE_SAS_TOKEN": "https://me.blob.cloud/c?sv=1&sig=2"}, Access(),
        {"sas_key": "sv=1&sig=2"}, {"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=2"},
    ),
    "public az": Case(
        "az", ACCOUNT | {"AZURE_STORAGE_KEY": "k"}, Access(no_sign_request=True),
        {"skip_signature": True, "account_key": None},
        {"AZURE_NO_SIGN_REQUEST": "YES", "AZURE_STORAGE_ACCESS_KEY": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_both_libraries_are_told_what_the_clouds_own_tools_find(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    for variable, value in case.environment.items():
        monkeypatch.setenv(variable, value)
    for found, expected in (
        (for_obstore(case.scheme, case.access), case.obstore),
        (for_gdal(case.scheme, case.access), case.gdal),
    ):
        assert {option: found.get(option) for option in expected} == expected


def test_an_emulator_of_gs_is_asked_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:1")
    account = json.loads(for_obstore("gs", Access())["service_account_key"])
    assert (account["gcs_base_url"], account["disable_oauth"]) == ("http://localhost:1", True)


def test_gdal_finds_the_login_of_gcloud(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "GOOGLE_APPLICATION_CREDENTIALS"
    assert name not in for_gdal("gs", Access())
    login = home / ".config" / "gcloud" / "application_default_credentials.json"
    login.parent.mkdir(parents=True)
    login.write_text("{}")
    assert for_gdal("gs", Access())[name] == str(login)
    monkeypatch.setenv(name, "another.json")  # which GDAL finds by itself
    assert name not in for_gdal("gs", Access())


def log_in(home: Path, *profiles: str) -> None:
    """Write AWS's own files, as ``aws configure`` does; each profile has a region."""
    files = {"credentials": "[{0}]\naws_access_key_id = of-{0}\naws_secret_access_key = hidden\n",
             "config": "[profile {0}]\nregion = region-of-{0}\n"}  # fmt: skip
    for name, text in files.items():
        path = home / ".aws" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(text.format(profile) for profile in profiles))


@pytest.mark.parametrize("how", ["--profile", "AWS_PROFILE"])
def test_a_profile_that_is_named_wins_over_keys_of_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    profile = f"named-by-{how.lower().strip('-')}"
    log_in(home, profile)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    if how == "AWS_PROFILE":
        monkeypatch.setenv(how, profile)
    access = Access(profile=None if how == "AWS_PROFILE" else profile)
    options = for_gdal("s3", access)
    assert options["AWS_ACCESS_KEY_ID"] == f"of-{profile}"
    assert options["AWS_SESSION_TOKEN"] == ""  # that of the environment goes with other keys
    assert options["AWS_REGION"] == f"region-of-{profile}"
    assert for_obstore("s3", access)["region"] == f"region-of-{profile}"
    assert for_gdal("s3", access)["AWS_REGION"] == f"region-of-{profile}"
    monkeypatch.setenv("AWS_REGION", "elsewhere")
    assert for_gdal("s3", access)["AWS_REGION"] == "elsewhere"


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"])
def test_keys_of_the_environment_win_over_awss_own_files(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Both libraries find them there by themselves."""
    log_in(home, "default")
    monkeypatch.setenv(variable, "x")
    assert "AWS_ACCESS_KEY_ID" not in for_gdal("s3", Access())
    assert "credential_provider" not in for_obstore("s3", Access())


def test_what_is_asked_for_without_signing_needs_no_login(home: Path) -> None:
    log_in(home, "default")
    access = Access(no_sign_request=True, profile="nobody")
    assert "AWS_ACCESS_KEY_ID" not in for_gdal("s3", access)
    assert "credential_provider" not in for_obstore("s3", access)


def test_a_login_that_is_not_there_is_named(home: Path) -> None:
    log_in(home, "somebody")
    with pytest.raises(StoreError, match="nobody"):
        boto3_session(Access(profile="nobody"))
    (home / ".aws" / "credentials").unlink()
    with pytest.raises(StoreError, match=r"AWS credentials: there are none.*--no-sign-request"):
        boto3_session(Access(profile="somebody"))
    with pytest.raises(StoreError, match="set AZURE_STORAGE_ACCOUNT"):
        for_obstore("az", Access())


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("ftp://me:hidden@host", "the endpoint host must begin with http"),
        ("https://host/?sv=1&sig=hidden", "must end before the question mark"),
    ],
)
def test_an_endpoint_that_makes_no_sense_is_named_without_its_secrets(
    scheme: str, endpoint: str, message: str
) -> None:
    with pytest.raises(StoreError, match=message) as raised:
        endpoint_of(scheme, Access(endpoint_url=endpoint))
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "http://h/a.tif", ""),
        ({"http_proxy": "http://p"}, "http://h/a.tif", "http://p"),
        ({"HTTPS_PROXY": "http://p"}, "http://h/a.tif", ""),
        ({"HTTPS_PROXY": "http://p"}, "https://h/a.tif", "http://p"),
        ({"https_proxy": "http://q", "HTTPS_PROXY": "http://p"}, "gs://b/a.tif", "http://q"),
    ],
)
def test_gdal_goes_by_the_proxy_for_the_urls_scheme(
    environment: dict[str, str], url: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert gdal_options(url, Access(), 20)["GDAL_HTTP_PROXY"] == proxy


def test_gdal_waits_a_second_where_less_is_left() -> None:
    """To GDAL, as to curl, a timeout of 0 is none at all."""
    assert gdal_options("https://h/a.tif", Access(), 0.4)["GDAL_HTTP_TIMEOUT"] == 1

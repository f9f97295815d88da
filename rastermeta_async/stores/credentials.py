"""Finds credentials and endpoints of stores, and makes the configurations of obstore and GDAL.

It looks for credentials where each cloud's own tools look for them.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from rastermeta_async.model.errors import MissingExtraError, StoreError
from rastermeta_async.model.machine import allow_import
from rastermeta_async.model.settings import Access
from rastermeta_async.model.urls import parts_of, requested, shown_url

Options = dict[str, Any]

_S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def endpoint_of(scheme: str, access: Access) -> str | None:
    """Return the URL of the server that replaces the cloud's own, if any.

    Raises:
        StoreError: the endpoint is no http or https URL, or holds a question mark.
    """
    endpoint = access.endpoint_url
    if not endpoint and scheme in _ENDPOINTS:
        endpoint = _ENDPOINTS[scheme]()
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise StoreError(
            f"the endpoint {shown_url(endpoint.rpartition('@')[2])} must begin with http:// or https://"
        )
    if endpoint and "?" in endpoint:
        raise StoreError(
            f"the endpoint {shown_url(endpoint)} must end before the question mark: what follows "
            "it in a URL of Azure's is for AZURE_STORAGE_SAS_TOKEN"
        )
    return endpoint


def for_obstore(scheme: str, access: Access) -> Options:
    """Return obstore's configuration of a store: s3, gs or az.

    Raises:
        StoreError: the endpoint, account or credentials are missing or wrong.
    """
    options = _FOR_OBSTORE[scheme](access)
    return {name: value for name, value in options.items() if value is not None}


def for_gdal(scheme: str, access: Access) -> Options:
    """Return the same as GDAL's configuration options ("Virtual File Systems")."""
    options = _FOR_GDAL[scheme](access) if scheme in _FOR_GDAL else {}
    return {name: value for name, value in options.items() if value is not None}


def _s3_endpoint() -> str | None:
    return next(filter(None, map(os.environ.get, _S3_ENDPOINTS)), None)


def _s3_for_obstore(access: Access) -> Options:
    session = _aws_session(access)
    region = access.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    config: Options = {
        "endpoint": endpoint_of("s3", access),
        "region": region or (session and session.region_name) or "us-east-1",
        "skip_signature": access.no_sign_request or None,
        "request_payer": access.requester_pays or None,
    }
    if session:
        from obstore.auth.boto3 import Boto3CredentialProvider

        config["credential_provider"] = Boto3CredentialProvider(session)
    return config


def _s3_for_gdal(access: Access) -> Options:
    options: Options = {
        "AWS_NO_SIGN_REQUEST": "YES" if access.no_sign_request else None,
        "AWS_REGION": access.region or os.environ.get("AWS_REGION"),
        "AWS_REQUEST_PAYER": "requester" if access.requester_pays else None,
    }
    if session := _aws_session(access):  # GDAL knows fewer ways to log in
        found = session.get_credentials().get_frozen_credentials()
        options |= {
            "AWS_ACCESS_KEY_ID": found.access_key,
            "AWS_SECRET_ACCESS_KEY": found.secret_key,
            "AWS_SESSION_TOKEN": found.token or "",
            "AWS_REGION": options["AWS_REGION"] or session.region_name,
        }
    if endpoint := endpoint_of("s3", access):
        protocol, _, host = endpoint.partition("://")
        options |= {
            "AWS_S3_ENDPOINT": host.rstrip("/"),
            "AWS_HTTPS": "NO" if protocol == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    return options


def _aws_session(access: Access) -> Any:
    """Return boto3's session if credentials come from AWS's own files, else None.

    Raises:
        StoreError: these files hold no credentials, or not the profile that was asked for.
    """
    if access.no_sign_request or not _has_profile(access):
        return None
    return _session(access.profile or os.environ.get("AWS_PROFILE"))


def boto3_session(access: Access) -> Any:
    """Return a session of boto3 for s3.

    Raises:
        MissingExtraError: boto3 is not installed.
        StoreError: as for `for_obstore`.
    """
    return _aws_session(access) or _boto3().Session()


def _boto3() -> Any:
    allow_import("boto3")
    try:
        import boto3
    except ImportError:
        raise MissingExtraError(
            "AWS's own files, and odd keys, need the extra cloud, in a clone: "
            "pip install '.[cloud]'"
        ) from None
    return boto3


@lru_cache
def _session(profile: str | None) -> Any:
    boto3 = _boto3()
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session(profile_name=profile)
        if session.get_credentials() is not None:
            return session
    except BotoCoreError as error:
        raise StoreError(f"AWS credentials: {error}") from error
    raise StoreError(
        "AWS credentials: there are none, neither in the environment nor in AWS's own files: run "
        "`aws configure`, name a --profile, or give --no-sign-request for public data"
    )


def _has_profile(access: Access) -> bool:
    if access.profile or os.environ.get("AWS_PROFILE"):
        return True
    if any(map(os.environ.get, ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"))):
        return False
    files = (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    )
    return any(os.path.exists(os.path.expanduser(name)) for name in files)


def _gs_endpoint() -> str | None:
    host = os.environ.get("STORAGE_EMULATOR_HOST")
    return host if not host or "://" in host else f"http://{host}"


def _gs_for_obstore(access: Access) -> Options:
    if endpoint := endpoint_of("gs", access):  # only a service account's file names one
        account = {"gcs_base_url": endpoint.rstrip("/"), "disable_oauth": True, "client_email": "",
                   "private_key": "", "private_key_id": ""}  # fmt: skip
        return {"service_account_key": json.dumps(account), "skip_signature": True}
    return {"skip_signature": access.no_sign_request or None}


def _gs_for_gdal(access: Access) -> Options:
    endpoint = endpoint_of("gs", access)
    login = os.path.expanduser("~/.config/gcloud/application_default_credentials.json")
    known = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or not os.path.exists(login)
    return {
        "GS_NO_SIGN_REQUEST": "YES" if endpoint or access.no_sign_request else None,
        "CPL_GS_ENDPOINT": endpoint and endpoint.rstrip("/") + "/",
        "GOOGLE_APPLICATION_CREDENTIALS": None if known else login,
    }


def _azure_fields() -> dict[str, str]:
    """Return the fields of Azure's connection string in the environment."""
    given = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    return dict(item.partition("=")[::2] for item in given.split(";"))


def _azure_endpoint() -> str | None:
    fields = _azure_fields()
    given = fields.get("BlobEndpoint") or os.environ.get("AZURE_STORAGE_ENDPOINT")
    if not given and {"AccountName", "EndpointSuffix"} <= fields.keys():  # any of Azure's clouds
        protocol = fields.get("DefaultEndpointsProtocol", "https")
        given = f"{protocol}://{fields['AccountName']}.blob.{fields['EndpointSuffix']}"
    return given and given.rstrip("/")


def _azure_account(access: Access) -> str:
    """Return the storage account; if only an endpoint is given, as with a SAS, its account.

    Raises:
        StoreError: no account is given.
    """
    names = ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
    account = _azure_fields().get("AccountName")
    account = account or next(filter(None, map(os.environ.get, names)), None)
    if not account and (endpoint := endpoint_of("az", access)):
        # https://account.blob.core.windows.net, or http://host/account
        split = urlsplit(endpoint)
        name, _, of_cloud = (split.hostname or "").partition(".blob.")
        account = name if of_cloud else split.path.strip("/")
    if not account:
        raise StoreError(
            "az:// paths need the storage account: set AZURE_STORAGE_ACCOUNT "
            "or AZURE_STORAGE_CONNECTION_STRING"
        )
    return account


def _azure_key() -> str | None:
    names = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY")
    key = _azure_fields().get("AccountKey")
    return key or next(filter(None, map(os.environ.get, names)), None)


def _azure_signature() -> str | None:
    given = _azure_fields().get("SharedAccessSignature")
    given = given or os.environ.get("AZURE_STORAGE_SAS_TOKEN")
    return given and given.rpartition("?")[2]  # it may be the whole URL


def _azure_for_obstore(access: Access) -> Options:
    config: Options = {
        "account_name": _azure_account(access), "endpoint": endpoint_of("az", access)
    }  # fmt: skip
    if access.no_sign_request:
        return config | {"skip_signature": True}
    if key := _azure_key():
        return config | {"account_key": key}
    return config | {"sas_key": _azure_signature()}


def _azure_for_gdal(access: Access) -> Options:
    options: Options = {
        "AZURE_STORAGE_CONNECTION_STRING": "",  # its fields are given one by one
        "AZURE_STORAGE_ACCOUNT": _azure_account(access),
        "CPL_AZURE_ENDPOINT": endpoint_of("az", access),
    }
    if access.no_sign_request:
        return options | {"AZURE_NO_SIGN_REQUEST": "YES"}
    if key := _azure_key():
        return options | {"AZURE_STORAGE_ACCESS_KEY": key}
    return options | {"AZURE_STORAGE_SAS_TOKEN": _azure_signature()}


_ENDPOINTS = {"s3": _s3_endpoint, "gs": _gs_endpoint, "az": _azure_endpoint}
_FOR_OBSTORE = {"s3": _s3_for_obstore, "gs": _gs_for_obstore, "az": _azure_for_obstore}
_FOR_GDAL = {"s3": _s3_for_gdal, "gs": _gs_for_gdal, "az": _azure_for_gdal}


CONNECT_SECONDS = 5
GDAL_RETRIES = 1
"""Retries of a request, so that a single fault does not cost an open; the caller retries more."""

_RETRIED = "408,429,500,502,503,504"
"""HTTP statuses. With a list GDAL also retries all lost connections, without one only some."""

_PREFIXES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}


def gdal_name(url: str) -> str:
    """Return the name under which GDAL opens a URL (GDAL, "Virtual File Systems")."""
    scheme, host, key = parts_of(url)
    prefix = _PREFIXES.get(scheme)
    return f"{prefix}{host}/{key}" if prefix else f"/vsicurl/{requested(url)}"


_OF_ZARR = ".zarr,.zgroup,.zarray,.zattrs,.zmetadata,.json,{noext}"
"""Endings of a Zarr store, of its metadata, and of the values of coordinates, which have none. What
a store may refer to elsewhere, through kerchunk's files that end in ``.parq``, is not opened."""


def gdal_options(
    url: str, access: Access, timeout: float, *, is_zarr: bool = False
) -> dict[str, object]:
    """Return the configuration with which GDAL opens a URL, and no other file.

    Args:
        url: of an object, or of a Zarr store.
        access: how the store is reached.
        timeout: seconds for a request.
        is_zarr: whether it is a Zarr store: GDAL opens files by their endings then.

    Raises:
        StoreError: there are no credentials for it.
    """
    name = gdal_name(url)
    allowed = "CPL_VSIL_CURL_ALLOWED_" + ("EXTENSIONS" if is_zarr else "FILENAME")
    return {
        # With TRUE, GDAL tries the name of each possible sidecar: a listing may be endless.
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if access.sidecars else "EMPTY_DIR",
        allowed: _OF_ZARR if is_zarr else name,
        "CPL_VSIL_CURL_USE_HEAD": "NO",
        # Otherwise GDAL would cache failures for the rest of the run.
        "CPL_VSIL_CURL_NON_CACHED": name,
        "CPL_VSIL_CURL_CACHE_SIZE": 4 * 1024 * 1024,
        "GDAL_INGESTED_BYTES_AT_OPEN": 32 * 1024,
        "GDAL_HTTP_PROXY": _proxy(url),
        "GDAL_HTTP_CONNECTTIMEOUT": CONNECT_SECONDS,
        "GDAL_HTTP_TIMEOUT": max(1, int(timeout)),
        "GDAL_HTTP_MAX_RETRY": GDAL_RETRIES,
        "GDAL_HTTP_RETRY_DELAY": 0.3,
        "GDAL_HTTP_RETRY_CODES": _RETRIED,
        **for_gdal(url.partition("://")[0], access),
    }


def _proxy(url: str) -> str:
    """Return the proxy that the environment names for a URL, found as curl does; "": none."""
    name = "http_proxy" if url.startswith("http://") else "https_proxy"
    return os.environ.get(name) or os.environ.get(name.upper()) or ""

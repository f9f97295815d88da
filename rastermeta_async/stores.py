"""Object stores: which store and key a URL means, how obstore and GDAL get at it, and listings.

Credentials are found where each cloud's own tools look for them. obstore, which does the work,
is imported when the first URL turns up.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from rastermeta_async.config import Access
from rastermeta_async.errors import StoreError
from rastermeta_async.memory import allow_boto3
from rastermeta_async.urls import redacted, without_secrets

MAX_STORES = 64
"""Buckets and hosts that connections are kept to."""

PAGE = 1000
"""Objects a page of a listing, the most that S3 returns (ListObjectsV2)."""

_CONNECT_SECONDS = 5
_GDAL_RETRIES = 4


class Located(NamedTuple):
    """Where an object is."""

    store: Any
    """An ``obstore`` store."""
    key: str


class Stores:
    """The stores that a run reads from.

    Args:
        access: how they are reached.
        timeout: seconds for one request.
    """

    def __init__(self, access: Access, timeout: float = 30.0) -> None:
        self._access = access
        self._timeout = timeout
        self._stores: OrderedDict[str, Any] = OrderedDict()

    def locate(self, url: str) -> Located:
        """Return the store and key of a URL.

        Raises:
            StoreError: obstore is not installed, or the store cannot be set up.
        """
        scheme, host, path = _parts(url)
        if scheme in ("http", "https"):
            if "?" in url or "@" in host:  # the query belongs to this one address
                return Located(self._new(scheme, url), "")
            return Located(self._kept(scheme, f"{scheme}://{host}/"), unquote(path))
        return Located(self._kept(scheme, host), path)

    def _kept(self, scheme: str, name: str) -> Any:
        key = f"{scheme} {name}"
        if key not in self._stores:
            if len(self._stores) >= MAX_STORES:
                self._stores.popitem(last=False)
            self._stores[key] = self._new(scheme, name)
        self._stores.move_to_end(key)
        return self._stores[key]

    def _new(self, scheme: str, name: str) -> Any:
        try:
            from obstore import store
        except ImportError:
            raise StoreError(
                f"{scheme}:// paths need the extra cloud: pip install 'rastermeta-async[cloud]'"
            ) from None
        access = self._access
        common: dict[str, Any] = {
            "client_options": {
                "timeout": dt.timedelta(seconds=self._timeout),
                "connect_timeout": dt.timedelta(seconds=min(_CONNECT_SECONDS, self._timeout)),
                "allow_http": _speaks_http(scheme, name, access),
                "user_agent": "rastermeta-async",
            },
            # Requests are tried again where it is known what else is under way, see `fetch`.
            "retry_config": {"max_retries": 0},
        }
        try:
            if scheme in ("http", "https"):
                return store.HTTPStore.from_url(name, **common)
            if scheme == "gs":
                return store.GCSStore(name, **_gs_config(access), **common)
            if scheme == "az":
                return store.AzureStore(name, **_azure_config(access), **common)
            return store.S3Store(name, **_s3_config(access), **common)
        except Exception as error:
            raise StoreError(
                f"{without_secrets(name.encode()).decode()}: this store cannot be set up: "
                f"{redacted(first_line(error))}"
            ) from error

    async def walk(self, url: str, suffixes: tuple[str, ...] = ()) -> AsyncIterator[list[str]]:
        """Yield the URLs of all objects below a prefix, a page at a time.

        Raises:
            StoreError: the store does not let itself be listed.
        """
        import obstore

        scheme, host, prefix = _parts(url)
        if scheme in ("http", "https"):
            raise StoreError(f"{url}: a web server cannot be listed: pipe the URLs in")
        base = f"{scheme}://{host}/"
        try:
            async for page in obstore.list(self._kept(scheme, host), prefix, chunk_size=PAGE):
                keys = [found["path"] for found in page]
                yield [base + key for key in keys if key.lower().endswith(suffixes or "")]
        except Exception as error:
            problem = problem_of(error)
            raise StoreError(f"{url}: cannot be listed: {problem.message}") from error

    async def upload(self, file: str, url: str) -> None:
        """Copy a local file to a URL.

        Raises:
            StoreError: it does not get there; what stood there before still does.
        """
        import obstore

        try:
            store, key = self.locate(url)
            with open(file, "rb") as content:  # noqa: ASYNC230  # obstore reads it in its threads
                await obstore.put_async(store, key, content)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(
                f"{url}: {problem_of(error).message}. The catalog is complete in {file}; mend it, "
                "then run the same command again to upload it."
            ) from error


def _parts(url: str) -> tuple[str, str, str]:
    """Return scheme, host (or bucket) and path; keys of buckets are taken as they are."""
    scheme, _, rest = url.partition("://")
    if scheme in ("http", "https"):
        split = urlsplit(url)
        return scheme, split.netloc, split.path.lstrip("/")
    host, _, key = rest.partition("/")
    if not host:
        raise StoreError(f"{url}: there is no bucket in this URL")
    return scheme, host, key


def _speaks_http(scheme: str, name: str, access: Access) -> bool:
    """Whether a store is to be spoken to without TLS, as somebody said."""
    if scheme in ("http", "https"):
        return name.startswith("http://")
    own = azure_account(access)[2] if scheme == "az" else access.endpoint_url
    endpoints = (own, *map(os.environ.get, _ENDPOINTS))
    return any(endpoint.startswith("http://") for endpoint in endpoints if endpoint)


_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")


def _s3_config(access: Access) -> dict[str, Any]:
    config: dict[str, Any] = {
        "endpoint": access.endpoint_url,
        "region": access.region or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION"),
        "skip_signature": access.no_sign_request or None,
        "request_payer": access.requester_pays or None,
    }  # fmt: skip
    if not access.no_sign_request and _has_profile(access):
        session = _boto3_session(access)
        from obstore.auth.boto3 import Boto3CredentialProvider

        config["credential_provider"] = Boto3CredentialProvider(session)
        config["region"] = config["region"] or session.region_name
    config["region"] = config["region"] or "us-east-1"
    return {name: value for name, value in config.items() if value is not None}


def _has_profile(access: Access) -> bool:
    """Whether credentials are to come from AWS's own files."""
    if access.profile or os.environ.get("AWS_PROFILE"):
        return True
    if any(map(os.environ.get, ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"))):
        return False
    files = (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    )
    return any(os.path.exists(os.path.expanduser(name)) for name in files)


def _boto3_session(access: Access) -> Any:
    allow_boto3()
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.Session(profile_name=access.profile)
    except BotoCoreError as error:
        raise StoreError(f"AWS credentials: {error}") from error


def _gs_config(access: Access) -> dict[str, Any]:
    if access.endpoint_url:
        raise StoreError("--endpoint-url is for s3:// and az://")
    return {"skip_signature": True} if access.no_sign_request else {}


def _azure_config(access: Access) -> dict[str, Any]:
    account, key, endpoint = azure_account(access)
    if not account:
        raise StoreError(
            "az:// paths need the storage account: set AZURE_STORAGE_ACCOUNT "
            "or AZURE_STORAGE_CONNECTION_STRING"
        )
    config: dict[str, Any] = {"account_name": account}
    if endpoint:
        config["endpoint"] = endpoint
    if access.no_sign_request:
        config["skip_signature"] = True
    elif key:
        config["account_key"] = key
    elif token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        config["sas_key"] = token.lstrip("?")
    return config


def azure_account(access: Access) -> tuple[str | None, str | None, str | None]:
    """Return account, key and endpoint as Azure's own tools are told them."""
    given = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    fields = dict(item.partition("=")[::2] for item in given.split(";") if item)
    env = os.environ.get
    return (
        fields.get("AccountName") or env("AZURE_STORAGE_ACCOUNT")
        or env("AZURE_STORAGE_ACCOUNT_NAME"),
        fields.get("AccountKey") or env("AZURE_STORAGE_KEY")
        or env("AZURE_STORAGE_ACCOUNT_KEY") or env("AZURE_STORAGE_ACCESS_KEY"),
        access.endpoint_url or fields.get("BlobEndpoint") or env("AZURE_STORAGE_ENDPOINT"),
    )  # fmt: skip


_GDAL_PREFIXES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}


def gdal_name(url: str) -> str:
    """Return the name under which GDAL opens a URL (GDAL, "Virtual File Systems")."""
    scheme, host, key = _parts(url)
    prefix = _GDAL_PREFIXES.get(scheme)
    return f"{prefix}{host}/{key}" if prefix else f"/vsicurl/{url}"


def gdal_options(url: str, access: Access, timeout: float) -> dict[str, object]:
    """Return the configuration with which GDAL opens a URL, and nothing else."""
    name = gdal_name(url)
    options: dict[str, object] = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE" if access.sidecars else "EMPTY_DIR",
        "CPL_VSIL_CURL_ALLOWED_FILENAME": name,
        "CPL_VSIL_CURL_USE_HEAD": "NO",
        # GDAL remembers what failed, and would for the rest of the run.
        "CPL_VSIL_CURL_NON_CACHED": name,
        "CPL_VSIL_CURL_CACHE_SIZE": 4 * 1024 * 1024,
        "GDAL_INGESTED_BYTES_AT_OPEN": 32 * 1024,
        "GDAL_HTTP_PROXY": _proxy(url),
        "GDAL_HTTP_CONNECTTIMEOUT": _CONNECT_SECONDS,
        "GDAL_HTTP_TIMEOUT": max(1, int(timeout)),
        "GDAL_HTTP_MAX_RETRY": _GDAL_RETRIES,
        "GDAL_HTTP_RETRY_DELAY": 0.3,
        "GDAL_HTTP_RETRY_CODES": "ALL",
    }
    scheme = url.partition("://")[0]
    unsigned = "YES" if access.no_sign_request else None
    if scheme == "s3":
        endpoint = access.endpoint_url or next(filter(None, map(os.environ.get, _ENDPOINTS)), None)
        options |= {
            "AWS_NO_SIGN_REQUEST": unsigned,
            "AWS_REGION": access.region or os.environ.get("AWS_REGION"),
            "AWS_PROFILE": access.profile or os.environ.get("AWS_PROFILE"),
            "AWS_REQUEST_PAYER": "requester" if access.requester_pays else None,
        }
        if endpoint:
            split = urlsplit(endpoint)
            options |= {
                "AWS_S3_ENDPOINT": split.netloc + split.path.rstrip("/"),
                "AWS_HTTPS": "NO" if split.scheme == "http" else "YES",
                "AWS_VIRTUAL_HOSTING": "FALSE",
            }
    elif scheme == "gs":
        options["GS_NO_SIGN_REQUEST"] = unsigned
    elif scheme == "az":
        account, key, endpoint = azure_account(access)
        options |= {"AZURE_NO_SIGN_REQUEST": unsigned, "AZURE_STORAGE_ACCOUNT": account}
        if endpoint and account:
            told = f"AccountName={account};AccountKey={key};" if key and not unsigned else (
                f"AccountName={account};")  # fmt: skip
            options["AZURE_STORAGE_CONNECTION_STRING"] = f"{told}BlobEndpoint={endpoint};"
        elif key and not unsigned:
            options["AZURE_STORAGE_ACCESS_KEY"] = key
    return {option: value for option, value in options.items() if value is not None}


def _proxy(url: str) -> str:
    """Return the proxy that the environment names for a URL, as curl would find it; "": none."""
    name = "http_proxy" if url.startswith("http://") else "https_proxy"
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


class Problem(NamedTuple):
    """What went wrong with a request."""

    kind: str
    """For the column `error_type`."""
    message: str
    status: int | None
    """HTTP status, where there was an answer."""

    @property
    def passes(self) -> bool:
        """Whether it is worth while to try again."""
        return self.kind in ("Throttled", "ServerError", "Connection", "Timeout")


_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>")
_EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired", "RequestExpired"})
_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)


def problem_of(error: BaseException) -> Problem:
    """Return what an error of obstore means, in a sentence, without secrets."""
    text = str(error)
    answered = _STATUS.search(text)
    status = int(answered[1]) if answered else None
    found = _CODE.search(text)
    code = found[1] if found else ""
    said = f"HTTP {status}{' ' + code if code else ''}"
    if "169.254.169.254" in text or (status is None and "credential" in text.lower()):
        return Problem("NoCredentials", "there are no credentials: set them up as for the cloud's "
                       "own tools, or give --no-sign-request for public data", None)  # fmt: skip
    if code in _EXPIRED:
        return Problem("ExpiredToken", f"{said}: the credentials have expired: renew them", status)
    if code in _REGION or status == 301:
        return Problem("WrongRegion", f"{said}: the bucket is in another region: give --region",
                       status)  # fmt: skip
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return Problem("NoBucket", f"{said}: there is no such bucket", status)
    if status == 404 or isinstance(error, FileNotFoundError):
        return Problem("NotFound", f"HTTP 404{' ' + code if code else ''}: there is no such object",
                       404)  # fmt: skip
    if status in (401, 403) or isinstance(error, PermissionError):
        return Problem("AccessDenied", f"{said}: these credentials may not read it", status)
    if status in (429, 503) or code == "SlowDown":
        return Problem("Throttled", f"{said}: the store wants fewer requests", status)
    if status is not None and (status >= 500 or status == 408):
        return Problem("ServerError", f"{said}: the store has a problem", status)
    if status is not None:
        return Problem("Refused", f"{said}: the store refuses the request", status)
    return _problem_of_connection(text)


def _problem_of_connection(text: str) -> Problem:
    lowered = text.lower()
    if "dns error" in lowered or "failed to lookup" in lowered:
        return Problem("NameResolution", "the host's name is not known: is the URL or endpoint "
                       "right, and the network up?", None)  # fmt: skip
    if "certificate" in lowered or ("tls" in lowered and "handshake" in lowered):
        return Problem("TLS", "the server's certificate is not trusted", None)
    if "timedout" in lowered or "timed out" in lowered:
        return Problem("Timeout", "no answer in time", None)
    if "kind: connect" in lowered or "error sending request" in lowered or "body error" in lowered:
        return Problem("Connection", "the connection failed or was cut", None)
    return Problem("StoreError", redacted(text.strip().partition("\n")[0]), None)


def first_line(error: BaseException) -> str:
    """Return what an error says, without the details that follow."""
    return (str(error).strip() or repr(error)).splitlines()[0]

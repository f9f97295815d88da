"""Translates errors of obstore and boto3 into problems of requests, in plain sentences."""

from __future__ import annotations

import re
from typing import NamedTuple

from rastermeta_async.model.urls import redacted


class Problem(NamedTuple):
    """What went wrong with a request."""

    kind: str
    """For the column `error_type`."""
    message: str
    status: int | None = None
    """HTTP status; None: there was no answer."""

    @property
    def passes(self) -> bool:
        """Whether a retry may help."""
        return self.kind in ("Throttled", "ServerError", "Connection", "Timeout")

    @property
    def is_overload(self) -> bool:
        """Whether the store seems to be overloaded."""
        return self.kind in ("Throttled", "ServerError", "Timeout")


NO_ANSWER = Problem("Timeout", "no answer in time")

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>")
_EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired", "RequestExpired"})
_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)


_CUT = ("kind: connect", "error sending request", "body error", "could not connect",
        "connection was closed", "incompleteread")  # fmt: skip
"""Texts in the errors of libraries, in lower case, that mean a lost connection."""


def problem_of(error: BaseException) -> Problem:
    """Return what an error of obstore or boto3 means, in a sentence, without secrets."""
    text = str(error)
    if isinstance(answer := getattr(error, "response", None), dict):  # of boto3
        code = answer["Error"]["Code"]
        return _problem_of_answer(
            answer["ResponseMetadata"]["HTTPStatusCode"], code if code.isalpha() else ""
        )
    answered = _STATUS.search(text)
    if answered is None:
        return _problem_without_status(error, text)
    found = _CODE.search(text)
    code = found[1] if found else ""
    return _problem_of_answer(int(answered[1]), code)


def _problem_of_answer(status: int, code: str) -> Problem:
    """Return what an HTTP status, with the code in S3's or Azure's XML, means."""
    if code in _EXPIRED:
        kind, means = "ExpiredToken", "the credentials have expired: renew them"
    elif code in _REGION or status == 301:
        kind, means = "WrongRegion", "the bucket is in another region: give --region"
    elif code in ("NoSuchBucket", "ContainerNotFound"):
        kind, means = "NoBucket", "there is no such bucket"
    elif status in (404, 410):
        kind, means = "NotFound", "there is no such object"
    elif status in (401, 403):
        kind, means = "AccessDenied", "access is denied, with these credentials or for want of any"
    elif status in (429, 503) or code == "SlowDown":
        kind, means = "Throttled", "the store wants fewer requests"
    elif status >= 500 or status == 408 or code == "RequestTimeout":
        kind, means = "ServerError", "the store has a problem"
    else:
        kind, means = "Refused", "the store refuses the request"
    return Problem(kind, f"HTTP {status}{' ' + code if code else ''}: {means}", status)


def _problem_without_status(error: BaseException, text: str) -> Problem:
    lowered = text.lower()
    if "169.254.169.254" in text or "credential" in lowered:
        return Problem("NoCredentials", "there are no credentials: set them up as for the cloud's "
                       "own tools, or give --no-sign-request for public data")  # fmt: skip
    if isinstance(error, FileNotFoundError):
        return _problem_of_answer(404, "")
    if isinstance(error, PermissionError):
        return _problem_of_answer(403, "")
    if "without location" in lowered:
        means = "the bucket is in another region (give --region), or this is no object store"
        return Problem("WrongRegion", f"HTTP 3xx: the store sends us elsewhere: {means}")
    if "range request not supported" in lowered or "non-partial response" in lowered:
        return Problem("NoRanges", "the server does not serve parts of files: copy the file")
    if "dns error" in lowered or "failed to lookup" in lowered:
        return Problem("NameResolution", "the host's name is not known: is the URL or endpoint "
                       "right, and the network up?")  # fmt: skip
    if "certificate" in lowered or ("tls" in lowered and "handshake" in lowered):
        return Problem("TLS", "the server's certificate is not trusted")
    if any(words in lowered for words in ("timedout", "timed out", "timeout on")):
        return NO_ANSWER
    if any(words in lowered for words in _CUT):
        return Problem("Connection", "the connection failed or was cut")
    return Problem("StoreError", redacted(first_line(error), remote=True))


def first_line(error: BaseException) -> str:
    """Return what an error says, without the details that follow."""
    return (str(error).strip() or repr(error)).splitlines()[0]

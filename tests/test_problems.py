"""What is said of requests that failed, and which of them are sent again."""

from __future__ import annotations

import pytest

from rastermeta_async.stores.problems import problem_of


class Boto3Error(Exception):
    """As botocore's ``ClientError``."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__("An error occurred")
        self.response = {
            "Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}
        }  # fmt: skip


@pytest.mark.parametrize("library", ["obstore", "boto3"])
@pytest.mark.parametrize(
    ("status", "code", "kind", "passes"),
    [
        (404, "", "NotFound", False),
        (410, "", "NotFound", False),
        (404, "NoSuchKey", "NotFound", False),
        (404, "NoSuchBucket", "NoBucket", False),
        (404, "ContainerNotFound", "NoBucket", False),
        (401, "", "AccessDenied", False),
        (403, "AccessDenied", "AccessDenied", False),
        (400, "ExpiredToken", "ExpiredToken", False),
        (400, "TokenRefreshRequired", "ExpiredToken", False),
        (403, "RequestExpired", "ExpiredToken", False),
        (301, "", "WrongRegion", False),
        (400, "AuthorizationHeaderMalformed", "WrongRegion", False),
        (400, "IllegalLocationConstraintException", "WrongRegion", False),
        (429, "", "Throttled", True),
        (503, "", "Throttled", True),
        (400, "SlowDown", "Throttled", True),
        (408, "", "ServerError", True),
        (400, "RequestTimeout", "ServerError", True),
        (500, "InternalError", "ServerError", True),
        (504, "", "ServerError", True),
        (400, "", "Refused", False),
        (418, "", "Refused", False),
    ],
)
def test_an_answer_is_told_by_its_status_and_code(
    library: str, status: int, code: str, kind: str, *, passes: bool
) -> None:
    if library == "boto3":  # which has the status for a code where there is none
        error: Exception = Boto3Error(status, code or str(status))
    else:
        error = Exception(
            f"Generic S3 error: Client error with status code: {status}: <Code>{code}</Code>"
        )
    problem = problem_of(error)
    assert (problem.kind, problem.passes, problem.status) == (kind, passes, status)
    assert problem.message.startswith(f"HTTP {status} {code}: " if code else f"HTTP {status}: ")


@pytest.mark.parametrize(
    ("error", "kind", "passes"),
    [
        (FileNotFoundError("Object at location a.tif not found"), "NotFound", False),
        (PermissionError("The operation lacked the privileges"), "AccessDenied", False),
        (Exception("Generic S3 error: missing Credential provider"), "NoCredentials", False),
        (Exception("error for url (http://169.254.169.254/latest): x"), "NoCredentials", False),
        (Exception("Received redirect without LOCATION"), "WrongRegion", False),
        (Exception("Range request not supported by a.tif"), "NoRanges", False),
        (Exception("Requested range, got non-partial response"), "NoRanges", False),
        (Exception("error sending request: dns error"), "NameResolution", False),
        (Exception("connect: failed to lookup address"), "NameResolution", False),
        (Exception("error sending request: invalid peer certificate"), "TLS", False),
        (Exception("kind: Connect: TLS handshake eof"), "TLS", False),
        (Exception("error sending request: operation timed out"), "Timeout", True),
        (Exception("kind: TimedOut"), "Timeout", True),
        (Exception("Read timeout on endpoint URL"), "Timeout", True),
        (Exception("error sending request: reset"), "Connection", True),
        (Exception("request or response body error"), "Connection", True),
        (Exception("Could not connect to the endpoint"), "Connection", True),
        (Exception("Connection was closed before"), "Connection", True),
        (Exception("IncompleteRead(5 bytes read)"), "Connection", True),
    ],
)
def test_what_went_wrong_without_an_answer_is_told(
    error: Exception, kind: str, *, passes: bool
) -> None:
    problem = problem_of(error)
    assert (problem.kind, problem.passes) == (kind, passes)


def test_what_is_unheard_of_is_said_in_one_line_without_secrets() -> None:
    error = Exception("odd: https://me:hidden@h/a.tif?sig=hidden\n\nDebug source:\nhidden")
    assert problem_of(error)[:2] == ("StoreError", "odd: https://h/a.tif")
    assert problem_of(Exception()).message == "Exception()"

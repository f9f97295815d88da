"""What rasterio says of texts that are not UTF-8: only that is kept from logs and from stderr."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import rasterio._base

from rastermeta_async.readers.undecodable import quiet_undecodable_messages

UNDECODABLE = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def test_only_rasterios_complaint_about_a_message_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unraisable: list[Any] = []
    ended: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    monkeypatch.setattr(sys, "excepthook", lambda *args: ended.append(args))
    quiet_undecodable_messages()
    others: list[Any] = [
        SimpleNamespace(object="rasterio._err.log_error", exc_value=ValueError("odd")),
        SimpleNamespace(object="<function read>", exc_value=UNDECODABLE),
    ]
    complaint = SimpleNamespace(object="rasterio._err.log_error", exc_value=UNDECODABLE)
    for one in (*others, complaint):
        sys.unraisablehook(one)
    assert unraisable == others
    try:
        raise UNDECODABLE
    except UnicodeDecodeError as error:
        trace = error.__traceback__
    errors: list[Any] = [
        (UnicodeDecodeError, UNDECODABLE, trace),  # one of the program's own
        (ValueError, ValueError("odd"), None),
    ]
    for args in (*errors, (UnicodeDecodeError, UNDECODABLE, None)):
        sys.excepthook(*args)
    assert ended == errors


def test_what_else_rasterio_warns_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    rasterio._base.log.warning("Odd %s", "metadata")
    assert caplog.messages == ["Odd metadata"]

from __future__ import annotations

import inspect
import re

import pytest

from rastermeta_async.model import errors
from rastermeta_async.model.errors import (
    RastermetaError,
    SettingsError,
    StuckError,
    first_error,
    first_error_only,
)


def drawn() -> dict[str, str | None]:
    """Return the parent of each class in the module docstring's drawing."""
    found: dict[str, str | None] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(?: {4})((?:[│ ] {3})*)([├└]── )?(\w+(?:Error))\b", line)
        if match:
            depth = len(match[1]) // 4 + bool(match[2])
            del branch[depth:]
            found[match[3]] = branch[-1] if branch else None
            branch.append(match[3])
    return found


def classes() -> dict[str, type[BaseException]]:
    return {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind)
        and issubclass(kind, BaseException)
        and kind.__module__ == errors.__name__
    }


def test_the_tree_is_the_one_drawn() -> None:
    actual = {
        name: None if kind is RastermetaError else kind.__mro__[1].__name__
        for name, kind in classes().items()
    }
    assert drawn() == actual
    assert len(actual) > 5


def test_everything_is_caught_by_its_base_and_documented() -> None:
    for kind in classes().values():
        assert issubclass(kind, RastermetaError)
        assert kind.__doc__


def test_the_first_error_of_a_group_is_found_however_deep() -> None:
    first = StuckError("first")
    inner = ExceptionGroup("inner", [first, ValueError("second")])
    assert first_error(ExceptionGroup("outer", [inner, ValueError("third")])) is first
    assert first_error(first) is first


def test_a_settings_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no"):
        raise SettingsError("no")


def test_none_is_an_os_error_that_a_handler_could_take_for_a_bad_file() -> None:
    assert not any(issubclass(kind, OSError) for kind in classes().values())


def test_the_first_error_of_a_group_tells_of_the_others() -> None:
    first, others = StuckError("first"), [OSError(f"another {at}") for at in range(9)]
    with pytest.raises(StuckError) as caught, first_error_only():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [first, *others])])
    assert caught.value is first
    notes = [f"Another error at the same time: OSError: another {at}" for at in range(5)]
    assert first.__notes__ == notes

"""Reads the rows of a catalog that an export asks for.

A condition is an SQL expression, as it follows WHERE in DuckDB. DuckDB evaluates it for a few rows
at a time; the rows themselves do not pass through DuckDB.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.completed import batches_of
from rastermeta_async.model.errors import MissingExtraError, SettingsError
from rastermeta_async.model.record import SCHEMA

_TABLE = "a few rows"
_NUMBER = "number of a row"
"""Names of the table that DuckDB sees, and of the column that a catalog does not have."""


class Condition(contextlib.AbstractContextManager["Condition"]):
    """Finds the rows for which an SQL expression is true.

    The expression reaches no file and no network.

    Args:
        expression: over the columns of a catalog, as it follows WHERE.

    Raises:
        MissingExtraError: DuckDB is not installed.
        SettingsError: the expression is not valid.
    """

    def __init__(self, expression: str) -> None:
        # CASE … END holds an expression and nothing else; the line end ends a comment in it.
        self._query = (
            f'SELECT "{_NUMBER}" FROM "{_TABLE}" WHERE CASE WHEN {expression}\n THEN true END'  # noqa: S608  # the user's own words
        )
        self._expression = expression
        words = set(re.findall(r"\w+", expression.lower()))
        self.columns = [name for name in SCHEMA.names if name in words]
        """All columns that the expression refers to; maybe others, as a word need not be a name."""
        self._duckdb = _library()
        self._connection = self._duckdb.connect(
            ":memory:", config={"enable_external_access": "false", "threads": "1"}
        )
        try:
            self._connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
            self._check(expression)
        except BaseException:
            self._connection.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _check(self, expression: str) -> None:
        if not expression.strip():
            raise SettingsError("--where: the expression is empty")
        self.kept(pa.RecordBatch.from_pylist([], SCHEMA))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._duckdb.Error as error:
            reason = str(error).partition("\n")[0]
            texts = ", and texts stand in single quotes" if '"' in self._expression else ""
            raise SettingsError(
                f"--where: {reason}; `rastermeta schema` lists the columns{texts}"
            ) from error

    def kept(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows for which the expression is true, in the same order.

        Raises:
            SettingsError: the expression fails for a row.
        """
        numbers = pa.array(range(rows.num_rows), pa.int64())
        seen = pa.table([*(rows[name] for name in self.columns), numbers], [*self.columns, _NUMBER])
        with self._explained():
            self._connection.register(_TABLE, seen)
            found = self._connection.execute(self._query).fetchnumpy()[_NUMBER]
        return rows.filter(pc.is_in(numbers, pa.array(found, pa.int64())))


def _library() -> Any:
    try:
        import duckdb
    except ImportError:
        raise MissingExtraError(
            "--where needs the extra gis, in a clone: pip install '.[gis]'"
        ) from None
    return duckdb


def condition_of(where: str | None) -> contextlib.AbstractContextManager[Condition | None]:
    """Return the condition for ``--where``; of None: no condition."""
    return contextlib.nullcontext() if where is None else Condition(where)


def chosen_rows(
    catalog: str, columns: Sequence[str], condition: Condition | None
) -> Iterator[pa.RecordBatch]:
    """Yield these columns of the rows that meet a condition, in the order of the catalog.

    Raises:
        SettingsError: the expression fails for a row, or the name is not a catalog's.
        OutputError: see `batches_of`.
    """
    if condition is None:
        yield from batches_of(catalog, columns)
        return
    for batch in batches_of(catalog, list(dict.fromkeys([*columns, *condition.columns]))):
        if (kept := condition.kept(batch)).num_rows:
            yield kept.select(columns)

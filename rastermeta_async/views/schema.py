"""The schema, for a person or as JSON."""

from __future__ import annotations

import json
import textwrap

from rastermeta_async.record import describe_columns


def schema_as_text() -> str:
    """Return the columns as aligned text, long types wrapped."""
    lines = []
    for name, kind, meaning in describe_columns():
        lines.append(f"{name:<16}{meaning}")
        lines.extend(textwrap.wrap(kind, 82, initial_indent=" " * 16, subsequent_indent=" " * 18))
    return "\n".join(lines)


def schema_as_json() -> str:
    """Return the columns as a JSON array of objects."""
    columns = [
        {"name": name, "type": kind, "meaning": meaning}
        for name, kind, meaning in describe_columns()
    ]
    return json.dumps(columns, indent=2)

"""Return help texts: the topics of the help, and the schema of the records."""

from __future__ import annotations

import json
import textwrap
from importlib.resources import files

from rastermeta_async.model.record import describe_columns


def schema_as_text() -> str:
    """Return the columns as aligned text; long types are wrapped."""
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


def topics() -> dict[str, str]:
    """Return the title of each topic by name, sorted by name."""
    found = (file for file in files("rastermeta_async").joinpath("help").iterdir())
    texts = {file.name.removesuffix(".md"): file.read_text("utf-8") for file in found}
    return {name: text[2 : text.index("\n")] for name, text in sorted(texts.items())}


def topic(name: str) -> str:
    """Return the text of a topic, in Markdown.

    Raises:
        FileNotFoundError: there is no such topic.
    """
    return files("rastermeta_async").joinpath("help", f"{name}.md").read_text("utf-8")


def list_of_topics() -> str:
    """Return the topics and their titles, one a line."""
    lines = [f"{name:<10}{title}" for name, title in topics().items()]
    return "\n".join([*lines, "", "rastermeta help TOPIC shows one."])

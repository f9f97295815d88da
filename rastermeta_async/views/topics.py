"""The topics of the help: Markdown files that come with the package."""

from __future__ import annotations

from importlib.resources import files


def topics() -> dict[str, str]:
    """Return the title of each topic, by its name, in the order of the names."""
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
    """Return the topics and their titles, a line each."""
    lines = [f"{name:<10}{title}" for name, title in topics().items()]
    return "\n".join([*lines, "", "rastermeta help TOPIC shows one."])

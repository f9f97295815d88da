"""Published JSON schemas to hold what is written against, without a network."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from conftest import SHARED_CORPUS
from referencing import Registry, Resource

SPECS = SHARED_CORPUS.parent / "specs"
"""The schemas, where they are at hand."""

_ANYTHING = {"$schema": "http://json-schema.org/draft-07/schema#"}
"""In place of schemas that a schema refers to, on the net."""


def check_by_schema(content: Any, name: str) -> None:
    """Fail unless the content is valid by a schema; where there is none, all is."""
    if (SPECS / name).exists():
        schema = json.loads((SPECS / name).read_text())
        kind = jsonschema.validators.validator_for(schema)
        anything: Any = Registry(retrieve=lambda _: Resource.from_contents(_ANYTHING))  # type: ignore[call-arg]  # attrs' alias
        errors = kind(schema, registry=anything).iter_errors(content)
        assert [error.message for error in errors] == []

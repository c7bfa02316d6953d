"""Translates errors of msgspec and Litestar about bodies and parameters into a field and a rule in JSON's terms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_JSON = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
}
_PATH = re.compile(r" - at `\$\.?(.*?)`$")
_EXPECTED = re.compile(r"^Expected `([^`]*)`(?:, got `([^`]*)`)?")
_TIMES = {
    "Invalid RFC3339 encoded date": "must be a date, e.g. 2026-11-22",
    "Invalid RFC3339 encoded datetime": "must be a date and time with a time zone, e.g. 2026-11-22T12:00:00Z",
}
_NAMED = re.compile(r"(?:unknown|required) field `([^`]*)`")


def of_parameter(item: Mapping[str, Any]) -> tuple[str, str]:
    """Return field and rule of an error of Litestar. The parameter `from` is named `from_` in Python."""
    key, message = str(item.get("key", "")), str(item.get("message", ""))
    if key == "data" or item.get("source") == "body":
        return of_body(message if key == "data" else f"{message} - at `$.{key}`")
    return key.rstrip("_"), _rule(message)


def of_body(text: str) -> tuple[str, str]:
    """Return field and rule of a message of msgspec, e.g. "Expected `str`, got `int` - at `$.name`"."""
    where = _PATH.search(text)
    named = _NAMED.search(text)
    field = ".".join(part for part in (where and where[1], named and named[1]) if part)
    rule = _PATH.sub("", text)
    if named:
        rule = "unknown field" if "unknown" in named[0] else "is required"
    elif not where:
        rule = (
            "The body must be a JSON object" if text.startswith("Expected `object`") else "The body is not valid JSON"
        )
    return field, _rule(rule)


def _rule(text: str) -> str:
    """Return a rule of msgspec in JSON's terms, e.g. "must be an integer >= 1" for "Expected `int` >= 1"."""
    if text in _TIMES:
        return _TIMES[text]

    def said(found: re.Match[str]) -> str:
        wanted, got = (
            " or ".join(_JSON.get(kind, kind) for kind in (kinds or "").split(" | ")) for kinds in found.groups()
        )
        return f"must be {wanted}, not {got}" if got else f"must be {wanted}"

    return _EXPECTED.sub(said, text).replace("`", "")

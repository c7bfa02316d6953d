"""Translates errors of msgspec about bodies and parameters into a field and a rule in JSON's terms."""

import re
from typing import Any

import msgspec

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


def of_body(text: str, kind: Any) -> tuple[str, str]:
    """Return the field and rule of a msgspec message about a body, e.g. "Expected `str`, got `int` - at `$.name`".

    `kind` is the body's type: for a choice, msgspec's own text repeats the caller's value instead of the choices.
    """
    where = _PATH.search(text)
    named = _NAMED.search(text)
    field = ".".join(part for part in (where and where[1], named and named[1]) if part)
    rule = _PATH.sub("", text)
    if rule.startswith("Invalid enum value"):
        return field, f"must be one of: {_choices(kind, field)}"
    if named:
        rule = "unknown field" if "unknown" in named[0] else "is required"
    elif not where:
        rule = (
            "The body must be a JSON object" if text.startswith("Expected `object`") else "The body is not valid JSON"
        )
    return field, of_value(rule)


def _choices(kind: Any, field: str) -> str:
    info = msgspec.inspect.type_info(kind)
    for one in info.fields if isinstance(info, msgspec.inspect.StructType) else ():
        described = getattr(one.type, "type", one.type)
        kinds = [getattr(part, "type", part) for part in getattr(described, "types", (described,))]
        literals = [part for part in kinds if isinstance(part, msgspec.inspect.LiteralType)]
        if one.encode_name == field and literals:
            return ", ".join(str(value) for value in literals[0].values)
    return "the documented values"


def of_value(text: str) -> str:
    """Return a msgspec rule in JSON's terms, e.g. "must be an integer >= 1" for "Expected `int` >= 1"."""
    if text in _TIMES:
        return _TIMES[text]

    def said(found: re.Match[str]) -> str:
        wanted, got = (
            " or ".join(_JSON.get(kind, kind) for kind in (kinds or "").split(" | ")) for kinds in found.groups()
        )
        return f"must be {wanted}, not {got}" if got else f"must be {wanted}"

    return _EXPECTED.sub(said, text).replace("`", "")

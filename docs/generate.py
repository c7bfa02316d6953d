"""Write docs/api.md from the OpenAPI document, and the tables of docs/rooms.md from the built-in policy.

Run `make docs` after changing a route or the policy; `make check` compares with `python -m docs.generate --check`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from docs.policy_tables import relation_rows, role_rows, table, token_rows
from gateway.apidoc.openapi import describe
from gateway.app import ROUTES
from gateway.http.problem_codes import STATUS, WHAT_TO_DO
from gateway.http.problems import title_of
from gateway.policy.file import load_policy

HERE = Path(__file__).parent
API, ROOMS = HERE / "api.md", HERE / "rooms.md"
HOW = "make docs"
_BLOCK = re.compile(r"(<!-- (\w+): written by `make docs` -->\n).*?(<!-- end -->)", re.DOTALL)

_INTRO = """Written by `make docs` from the OpenAPI document, which the gateway serves at `/openapi.json` and shows at
`/docs` (`GATEWAY_DOCS`). Who has which relation to a room, and what that allows: [rooms.md](rooms.md). Limits and
their header fields: [limits.md](limits.md). Tokens and sessions: [auth.md](auth.md)."""


class Page:
    """The OpenAPI document as Markdown."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._operations = [
            (method.upper(), path, one) for path, item in document["paths"].items() for method, one in item.items()
        ]
        limited = [codes for _, _, one in self._operations if "quota_exceeded" in (codes := set(self._codes(one)))]
        self._usual = [code for code in STATUS if all(code in codes for codes in limited)]
        self._fields = [
            (status, name)
            for _, _, one in self._operations
            for status, answer in one["responses"].items()
            for name in self._seen(answer).get("headers", ())
        ]

    def text(self) -> str:
        """Return the whole page."""
        parts = ["# The API", _INTRO, self._document["info"]["description"], self._contents()]
        for tag in self._document["tags"]:
            parts += [f"## {tag['name']}", tag["description"]]
            for method, path, one in self._operations:
                if tag["name"] in one["tags"]:
                    parts += self._route(method, path, one)
        parts += ["## Header fields", *self._fields_table()]
        parts += ["## Structures", "What answers are made of.", *self._structures()]
        parts += ["## Codes", *self._codes_table()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _contents(self) -> str:
        rows = [
            (f"[`{method} {path}`](#{_anchor(method, path)})", one["summary"]) for method, path, one in self._operations
        ]
        return table(("route", "does"), rows)

    def _route(self, method: str, path: str, one: dict[str, Any]) -> Iterator[str]:
        yield f"### `{method} {path}`"
        yield one.get("description", one["summary"] + ".")
        yield f"Who: {one['x-who']}."
        rows = [
            (f"`{parameter['name']}`", parameter["in"], self._type(parameter["schema"]), parameter["description"])
            for parameter in map(self._seen, one.get("parameters", ()))
        ]
        yield table(("parameter", "in", "type", "meaning"), rows)
        if body := one.get("requestBody"):
            yield from self._body(self._seen(body["content"]["application/json"]["schema"]))
        yield from self._answers(one)

    def _body(self, schema: dict[str, Any]) -> Iterator[str]:
        needed = schema["required"]
        rows = [
            (f"`{name}`", self._type(rules), "yes" if name in needed else "", rules["description"])
            for name, rules in schema["properties"].items()
        ]
        yield table(("body", "type", "required", "meaning"), rows)

    def _answers(self, one: dict[str, Any]) -> Iterator[str]:
        status, answer = next(iter(one["responses"].items()))
        schema = next(iter(answer.get("content", {}).values()), {}).get("schema", {})
        usual_fields = {name for told, name in self._fields if told == "200"}
        rare = ", ".join(f"`{name}`" for name in answer["headers"] if name not in usual_fields)
        yield f"Success: `{status}` {self._shape(schema)}".rstrip() + (f", at times with {rare}." if rare else ".")
        codes = self._codes(one)
        is_usual = set(self._usual) <= set(codes)
        own = [code for code in codes if not is_usual or code not in self._usual]
        told = ", ".join(f"`{code}` ({STATUS[code]})" for code in own)
        usual = "[the usual](#codes)" if is_usual else ""
        yield "Refusals: " + ", ".join(part for part in (told, usual) if part) + "."

    def _codes(self, one: dict[str, Any]) -> list[str]:
        found = []
        for answer in map(self._seen, one["responses"].values()):
            for content in answer.get("content", {}).values():
                for part in content["schema"].get("allOf", ()):
                    found += part.get("properties", {}).get("code", {}).get("enum", ())
        return found

    def _shape(self, schema: dict[str, Any]) -> str:
        if "$ref" not in schema:
            return ""
        fields = self._seen(schema)["properties"]
        text = ", ".join(f"{name}: {self._type(rules)}" for name, rules in fields.items())
        return f"[`{_name(schema)}`](#{_name(schema).lower()}) {{ {text} }}"

    def _structures(self) -> Iterator[str]:
        bodies = {
            _name(one["requestBody"]["content"]["application/json"]["schema"])
            for _, _, one in self._operations
            if "requestBody" in one
        }
        for name, schema in self._document["components"]["schemas"].items():
            if name in bodies:
                continue
            yield f"### {name}"
            yield schema.get("description", "")
            needed = schema["required"]
            rows = [
                (f"`{field}`" + ("" if field in needed else ", at times"), self._type(rules), rules["description"])
                for field, rules in schema["properties"].items()
            ]
            yield table(("field", "type", "meaning"), rows)

    def _fields_table(self) -> Iterator[str]:
        statuses = {status for status, _ in self._fields}
        rows = []
        for name, field in self._document["components"]["headers"].items():
            told = {status for status, one in self._fields if one == name}
            where = "every answer" if told == statuses else ", ".join(sorted(told))
            example = f"`{field['example']}`" if "example" in field else ""
            rows.append((f"`{name}`", where, field["description"], example))
        yield (
            "What answers carry beside the fields of HTTP, by status; not each answer of a status has to. Refusals to "
            "a caller who is known carry the `RateLimit` fields as well."
        )
        yield table(("field", "in", "meaning", "example"), rows)

    def _codes_table(self) -> Iterator[str]:
        yield (
            f"`code` is what a program decides by; it always comes with the same status. The usual, which every route "
            f"with a login may answer: {', '.join(f'`{code}`' for code in self._usual)}. Any address may also answer "
            "`rate_limited` to a flood, `method_not_allowed` and `headers_too_large`."
        )
        rows = [(f"`{code}`", f"{status} {title_of(status)}", WHAT_TO_DO[code]) for code, status in STATUS.items()]
        yield table(("code", "status", "what to do"), rows)

    def _seen(self, place: dict[str, Any]) -> dict[str, Any]:
        """Follow a reference."""
        found: Any = self._document
        for part in place["$ref"].split("/")[1:] if "$ref" in place else ():
            found = found[part]
        return place if "$ref" not in place else found

    def _type(self, rules: dict[str, Any]) -> str:
        """Return a schema in a few words: its type and its limits."""
        if "$ref" in rules:
            return f"[{_name(rules)}](#{_name(rules).lower()})"
        if "anyOf" in rules:
            words = " or ".join(self._type(kind) for kind in rules["anyOf"])
        elif "const" in rules:
            words = _code(rules["const"])
        elif "enum" in rules and len(rules["enum"]) < 8:  # all codes have a table of their own
            words = " ".join(_code(value) for value in rules["enum"] if value is not None)
        elif rules.get("type") == "array":
            words = f"list of {self._type(rules['items'])}"
        elif isinstance(rules.get("additionalProperties"), dict):
            words = f"object of {self._type(rules['additionalProperties'])}"
        else:
            words = rules.get("format") or rules["type"]
        return ", ".join([words, *_limits(rules)])


def _limits(rules: dict[str, Any]) -> Iterator[str]:
    if "minimum" in rules and "maximum" in rules:
        yield f"{rules['minimum']} to {rules['maximum']}"
    elif "minimum" in rules:
        yield f"at least {rules['minimum']}"
    if "maxLength" in rules:
        yield f"at most {rules['maxLength']} characters"
    if "maxItems" in rules:
        yield f"{rules.get('minItems', 0)} to {rules['maxItems']}"
    if rules.get("default") is not None:
        yield f"default {_code(rules['default'])}"


def _code(value: object) -> str:
    """Return a value as it stands in JSON, strings without their quotation marks."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _anchor(method: str, path: str) -> str:
    """Return the anchor that GitHub gives the heading of a route."""
    return re.sub(r"[^a-z0-9_ -]", "", f"{method} {path}".lower()).replace(" ", "-")


def rooms_page(text: str) -> str:
    """Return docs/rooms.md with its tables written anew; the prose between them stays."""
    policy = load_policy(None)
    tables = {"relations": relation_rows(policy), "roles": role_rows(policy), "tokens": token_rows(policy)}
    return _BLOCK.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}", text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages, or with `--check` fail if they are not what would be written."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    check = parser.parse_args(arguments).check
    pages = {API: Page(describe(ROUTES)).text(), ROOMS: rooms_page(ROOMS.read_text(encoding="utf-8"))}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check and stale:
        raise SystemExit(
            f"{', '.join(path.name for path in stale)} in docs/ is out of date: run `{HOW}`, and commit it"
        )
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")


if __name__ == "__main__":
    main()

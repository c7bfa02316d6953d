"""The input of a request: its media type, and a body without repeated names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from litestar import Litestar, post
from litestar.params import JSONBody

from gateway.http.access import public
from gateway.http.problems import Problem
from gateway.http.request_input import read_input
from gateway.text import FieldError


class Inner(msgspec.Struct):
    a: int = 0
    b: int = 0


class Body(msgspec.Struct):
    a: Any = None
    inner: Inner | None = None
    many: list[Inner] = []
    labels: Mapping[str, str] = {}


@post("/", opt=public())
async def take(data: JSONBody[Body]) -> None:
    """Take a body."""


ROUTE = next(iter(Litestar([take], openapi_config=None, logging_config=None).routes[0].route_handlers))  # type: ignore[union-attr]


async def read(body: bytes, content_type: str = "application/json") -> Body:
    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    headers = [(b"content-type", content_type.encode())]
    scope: Any = {"method": "POST", "headers": headers, "query_string": b"", "route_handler": ROUTE}
    return (await read_input(scope, receive))["data"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (rb'{"a":1,"a":1}', "a"),
        (rb'{"a":1,"\u0061":2}', "a"),
        (rb'{"a":"\",","inner":{"b":1,"a":2,"b":3}}', "b"),
        (rb'{"many":[{"a":1},{"a":1,"a":2}]}', "a"),
        (rb'{"labels":{"\u00e9":"x","y":"","\u00E9":"z"}}', "é"),
        (rb'{"a":1,"inner":null,"inner":{}}', "inner"),
        (rb'{"unknown":1,"unknown":2}', "unknown"),
    ],
)
async def test_a_name_that_an_object_has_twice_is_refused_and_named(body: bytes, name: str) -> None:
    """RFC 8259 section 4: parsers differ in what they make of it (CWE-436)."""
    with pytest.raises(FieldError, match="is given more than once") as refused:
        await read(body)
    assert refused.value.field == name


@pytest.mark.parametrize(
    "body",
    [
        rb'{"a":":\":\"a\":","labels":{"a":"a:b"}}',
        rb'{"a":1,"inner":{"a":1,"b":1},"many":[{"a":1},{"a":1}]}',
        b'{"a":"x","labels":{"a":"","A":""}}',
    ],
)
async def test_the_same_name_in_different_objects_or_texts_is_accepted(body: bytes) -> None:
    assert isinstance(await read(body), Body)


UTF_8 = ["", ";", "; charset=utf-8", ";CHARSET=UTF-8", ' ; charset="utf-8" ', r';charset="u\tf-8"', "; charset=utf8"]
OTHERS = ['; x="a; charset=latin1"', "; version=1; charset=utf-8"]


@pytest.mark.parametrize("parameters", UTF_8 + OTHERS)
async def test_json_in_utf_8_is_accepted(parameters: str) -> None:
    assert (await read(b'{"a":1}', f"application/json{parameters}")).a == 1


@pytest.mark.parametrize(
    "parameters",
    [
        "; charset=latin1",
        ';charset="ISO-8859-1"',
        r'; charset="utf\-16"',
        "; charset=utf-8; charset=utf-7",
        '; x="\\""; charset=utf-16',
        "; charset=",
        "; charset",
        '; charset="utf-8',
        "; charset=utf-8 x",
        ", text/plain",
    ],
)
async def test_another_charset_is_refused(parameters: str) -> None:
    """RFC 8259 section 8.1: JSON between systems is UTF-8."""
    with pytest.raises(Problem) as refused:
        await read(b'{"a":1}', f"application/json{parameters}")
    assert (refused.value.status, refused.value.code) == (415, "unsupported_media_type")

"""The input of a request: its media type, a body without repeated names, and forms."""

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


class Form(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    hint: str | None = None


@post("/form", opt=public(form=True))
async def take_form(data: JSONBody[Form]) -> None:
    """Take a body that may be a form."""


_APP = Litestar([take, take_form], openapi_config=None, logging_config=None)
ROUTE, FORM_ROUTE = (next(iter(route.route_handlers)) for route in _APP.routes)  # type: ignore[union-attr]
FORM = "application/x-www-form-urlencoded"


async def read(body: bytes, content_type: str = "application/json", route: Any = ROUTE) -> Any:
    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    headers = [(b"content-type", content_type.encode())]
    scope: Any = {"method": "POST", "headers": headers, "query_string": b"", "route_handler": route}
    return (await read_input(scope, receive))["data"]


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


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"token=a.b-c_d", Form("a.b-c_d")),
        (b"token=a%2Bb+c&hint=%C3%A9", Form("a+b c", "é")),
        (b"hint=&token=1", Form("1")),
        (b"%74oken==", Form("=")),
    ],
)
@pytest.mark.parametrize("parameters", ["", "; charset=UTF-8"])
async def test_a_form_is_read_where_a_route_takes_one(body: bytes, expected: Form, parameters: str) -> None:
    """A field without a value counts as left out (RFC 6749 section 3.2)."""
    assert await read(body, FORM + parameters, FORM_ROUTE) == expected


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (b"token=1&token=1", "token", "is given more than once"),
        (b"token=1&%74oken=", "token", "is given more than once"),
        (b"token=1&Token=1", "Token", "unknown field"),
        (b"token=", "token", "is required"),
        (b"", "token", "is required"),
        (b"token=%", "", "not a valid form"),
        (b"token=%zz", "", "not a valid form"),
        (b"token=%FF", "", "not a valid form"),
        ("token=é".encode(), "", "not a valid form"),
        (b"token", "", "not a valid form"),
        (b"token=1&", "", "not a valid form"),
        (b'{"token":"1"}', "", "not a valid form"),
        (b"&".join(b"%d=1" % number for number in range(33)), "", "not a valid form"),
    ],
)
async def test_a_form_is_read_strictly(body: bytes, field: str, rule: str) -> None:
    with pytest.raises(FieldError, match=rule) as refused:
        await read(body, FORM, FORM_ROUTE)
    assert refused.value.field == field


async def test_a_route_for_forms_still_takes_json_and_others_take_no_form() -> None:
    assert await read(b'{"token":"1"}', "application/json", FORM_ROUTE) == Form("1")
    for content_type, route in ((FORM, ROUTE), (f"{FORM}; charset=latin1", FORM_ROUTE), ("text/plain", FORM_ROUTE)):
        with pytest.raises(Problem) as refused:
            await read(b"token=1", content_type, route)
        assert (refused.value.status, refused.value.code) == (415, "unsupported_media_type")

"""Whether an answer is one that the API description promises."""

from __future__ import annotations

from functools import cache

from gateway.apidoc.openapi import describe
from gateway.routes.table import ROUTES
from tests.chaos.load import Result
from tests.e2e.checks import check_document

NOT_READY = {"status": "unavailable", "missing": ["redis"]}


def check(result: Result) -> None:
    """Check the status, media type and fields of an answer, and its problem document if it is one."""
    promised = _promised()[result.ask.method.lower(), result.ask.route]
    assert result.status in promised, result
    media_type, codes = promised[result.status]
    assert result.fields.get("content-type", "") == media_type, result
    if result.status >= 400 and codes:
        assert result.code in codes, result
        check_document(result.status, result.fields, result.body, result.code, path=result.ask.path)
    elif result.status == 503:
        assert result.json() == NOT_READY


@cache
def _promised() -> dict[tuple[str, str], dict[int, tuple[str, list[str]]]]:
    """Return the media type and the problem codes of each status of each route."""
    document, found = describe(ROUTES), {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = {}
            for status, answer in operation["responses"].items():
                codes: list[str] = []
                if reference := answer.get("$ref", ""):
                    name = reference.rpartition("/")[2]
                    answer, codes = document["components"]["responses"][name], name.split(".")[1:]
                answers[int(status)] = (next(iter(answer.get("content", ())), ""), codes)
            found[method, path] = answers
    return found

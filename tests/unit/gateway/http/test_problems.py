"""The response to every exception of the table: status, media type, type, code, header fields."""

import logging
from typing import Any

import httpx
import pytest
from litestar import Litestar, get, post
from litestar.exceptions import (
    ClientException,
    HTTPException,
    InternalServerException,
    NotAuthorizedException,
    ServiceUnavailableException,
    TooManyRequestsException,
)
from litestar.params import FromPath
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from auth.errors import (
    AuthError,
    BadUsername,
    Busy,
    InvalidCredentials,
    InvalidGrant,
    InvalidToken,
    TokenExpired,
    UnknownUser,
    UserExists,
    WeakPassword,
)
from gateway.hms.errors import HmsBusy, HmsError, HmsRefused, HmsTimeout, HmsUnreachable
from gateway.http.client_address import ClientAddresses
from gateway.http.edge import Edge
from gateway.http.problems import QUOTA_EXCEEDED, Problem, RateLimited, invalid, problem_response
from gateway.redis.store import StoreError
from gateway.rooms.idempotency import InFlight
from limits.limiter import Limiter
from limits.policy import US_PER_S, Charge, Limit, Quota
from tests.fake_redis import fake_redis

LEAK = "Traceback-secret-0xDEADBEEF"
API = Limit("api", 120, 60 * US_PER_S, 60)
CREATE = Limit("rooms.create", 10, 3600 * US_PER_S, 5)
REALM = 'Bearer realm="hms-gateway"'

FLOOD = Limit("flood", 1000, US_PER_S, 1000)


async def answer_to(error: BaseException, method: str = "GET", path: str = "/raise/x") -> httpx.Response:
    """Return the response to an exception of a handler, from the real exception handler in the real outer wrapper."""

    @get("/raise/{_name:str}")
    async def raising(_name: FromPath[str]) -> None:
        raise error

    @post("/posts")
    async def posts() -> None:
        return None

    app = Litestar(
        [raising, posts], exception_handlers={Exception: problem_response}, openapi_config=None, logging_config=None
    )
    transport = httpx.ASGITransport(app=Edge(app, addresses=ClientAddresses(()), flood=lambda: FLOOD))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.request(method, path)


def check(answer: httpx.Response, status: int, code: str, kind: str | None = None) -> dict[str, Any]:
    """Check what all problems have in common, and return the document."""
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["status"], document["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["type"] == (kind or f"urn:hms-gateway:problem:{code}")
    # RFC 9110's name, on every Python
    assert document["title"] == {422: "Unprocessable Content"}.get(status, httpx.codes.get_reason_phrase(status))
    assert document["success"] is False
    assert document["error"] == document["detail"] != ""
    assert document["request_id"] == answer.headers["x-request-id"] != ""
    assert document["instance"] == answer.request.url.path
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    if status == 401:
        assert answer.headers["www-authenticate"].startswith(REALM)
    assert ("retry-after" in answer.headers) == (status in (429, 503) or code == "idempotency_conflict")
    return document


ROWS: list[tuple[Exception, int, str, str]] = [
    (InvalidToken("The token is bad."), 401, "invalid_token", "The token is bad."),
    (TokenExpired("It has expired."), 401, "token_expired", "It has expired."),
    (InvalidCredentials(), 401, "invalid_credentials", str(InvalidCredentials())),
    (InvalidGrant(reused_by="u" + "a" * 20), 400, "invalid_grant", str(InvalidGrant())),
    (UserExists("There is already a user named 'ada'."), 409, "user_exists", "There is already a user named 'ada'."),
    (UnknownUser("There is no user 'ada'."), 404, "not_found", "There is no user 'ada'."),
    (BadUsername("it is too short"), 400, "invalid_request", "username: it is too short"),
    (WeakPassword(["must be long", "must differ"]), 422, "weak_password", "The password must be long and differ."),
    (Busy("Too many logins."), 503, "busy", "Too many logins."),
    (HmsBusy("100ms is limiting our calls.", 17), 503, "upstream_busy", "100ms is limiting our calls."),
    (HmsTimeout("100ms did not answer in time."), 504, "upstream_timeout", "100ms did not answer in time."),
    (HmsRefused("100ms refused the request."), 502, "upstream_error", "100ms refused the request."),
    (HmsUnreachable("100ms cannot be reached."), 502, "upstream_error", "100ms cannot be reached."),
    (InFlight("It is under way."), 409, "idempotency_conflict", "It is under way."),
    (Problem(409, "name_taken", "The name is taken."), 409, "name_taken", "The name is taken."),
    (invalid("name", "is required"), 400, "invalid_request", "name: is required"),
    (invalid("", "The body is not valid JSON"), 400, "invalid_request", "The body is not valid JSON"),
]


@pytest.mark.parametrize(("error", "status", "code", "detail"), ROWS, ids=[type(row[0]).__name__ for row in ROWS])
async def test_every_row_of_the_table(error: Exception, status: int, code: str, detail: str) -> None:
    document = check(await answer_to(error), status, code)
    assert document["detail"] == detail


async def test_a_wait_is_stated_in_seconds() -> None:
    assert (await answer_to(Busy("x"))).headers["retry-after"] == "2"
    assert (await answer_to(HmsBusy("x", 17))).headers["retry-after"] == "17"
    assert (await answer_to(StoreError("x"))).headers["retry-after"] == "1"


async def test_only_a_refused_token_has_an_error_code_in_its_challenge() -> None:
    """RFC 6750 section 3.1: no error code if the request had no token."""
    for error in (InvalidToken("x"), TokenExpired("x")):
        assert (await answer_to(error)).headers["www-authenticate"] == f'{REALM}, error="invalid_token"'
    assert (await answer_to(InvalidCredentials())).headers["www-authenticate"] == REALM


async def test_a_weak_password_lists_its_reasons() -> None:
    document = (await answer_to(WeakPassword(["must be long", "must differ"]))).json()
    assert document["reasons"] == ["must be long", "must differ"]


async def test_an_invalid_field_is_named_for_programs() -> None:
    assert (await answer_to(BadUsername("is short"))).json()["errors"] == [{"field": "username", "rule": "is short"}]


async def test_a_reused_refresh_token_looks_like_any_invalid_one() -> None:
    plain, reused = await answer_to(InvalidGrant()), await answer_to(InvalidGrant(reused_by="u" + "a" * 20))
    without_id = [{k: v for k, v in answer.json().items() if k != "request_id"} for answer in (plain, reused)]
    assert without_id[0] == without_id[1]
    assert "u" + "a" * 20 not in reused.text


async def test_a_problem_keeps_its_headers_and_extras() -> None:
    answer = await answer_to(Problem(403, "forbidden", "No.", headers={"X-Why": "because"}, missing_permission="a:b"))
    assert check(answer, 403, "forbidden")["missing_permission"] == "a:b"
    assert answer.headers["x-why"] == "because"


# --- limits ---


async def denied(*charges: Charge, attempts: int = 100, **also: Any) -> RateLimited:
    """Return the first denial of the real limiter on a stopped clock."""
    limiter = Limiter(fake_redis().execute_command, script_clock=lambda: 1_800_000_000 * US_PER_S)
    for _ in range(attempts):
        decision = await limiter.take("u1", charges, metric="api", **also)
        if not decision.allowed:
            return RateLimited(decision)
    raise AssertionError("never denied")


async def test_a_denial_names_the_limit_and_the_wait() -> None:
    answer = await answer_to(await denied(Charge(API), Charge(CREATE)))
    document = check(answer, 429, "rate_limited", QUOTA_EXCEEDED)
    assert document["violated-policies"] == ["rooms.create"]
    assert "rooms.create (10/h, burst 5)" in document["detail"]
    assert "api" not in document["detail"]
    assert 360 <= int(answer.headers["retry-after"]) <= 365
    assert f"Try again in {answer.headers['retry-after']} s." in document["detail"]
    assert answer.headers["ratelimit-policy"] == '"rooms.create";q=5;w=1800, "api";q=60;w=30'
    assert answer.headers["ratelimit"].startswith('"rooms.create";r=0;t=360, "api";r=55;t=')


async def test_several_reached_limits_are_all_named() -> None:
    other = Limit("tokens.mint", 60, 60 * US_PER_S, 5)
    document = check(await answer_to(await denied(Charge(other), Charge(CREATE))), 429, "rate_limited", QUOTA_EXCEEDED)
    assert document["violated-policies"] == ["tokens.mint", "rooms.create"]


async def test_a_request_that_can_never_pass_gets_no_retry_after() -> None:
    document = check(await answer_to(await denied(Charge(CREATE, 6))), 422, "cost_exceeds_limit")
    assert "rooms.create" in document["detail"]


async def test_a_used_up_quota_has_its_own_code() -> None:
    answer = await answer_to(await denied(Charge(API), quotas=[Quota("rooms.daily", "api", 3, "day")]))
    document = check(answer, 429, "quota_exceeded", QUOTA_EXCEEDED)
    assert document["violated-policies"] == ["rooms.daily"]
    assert '"rooms.daily";q=3;w=86400' in answer.headers["ratelimit-policy"]
    assert 1 <= int(answer.headers["retry-after"]) <= 86_405


# --- nothing leaks ---


class Unforeseen(Exception):
    pass


UNFORESEEN = [
    ValueError(LEAK),
    KeyError(LEAK),
    Unforeseen(LEAK),
    RuntimeError(LEAK, {"password": LEAK}),
    AssertionError(LEAK),
    OSError(5, LEAK),
    ExceptionGroup(LEAK, [ValueError(LEAK)]),
    InternalServerException(LEAK),
    HTTPException(LEAK, status_code=500),
    AuthError(LEAK),
    HmsError(LEAK),
]


@pytest.mark.parametrize("error", UNFORESEEN, ids=[type(error).__name__ for error in UNFORESEEN])
async def test_an_unexpected_error_is_a_bare_500_with_details_only_in_the_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await answer_to(error)
    check(answer, 500, "internal")
    assert LEAK not in answer.text + str(answer.headers)
    assert type(error).__name__ not in answer.text
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert type(error).__name__ in record.getMessage()


@pytest.mark.parametrize(
    "error", [StoreError(LEAK), ResponseError(f"WRONGTYPE {LEAK}"), RedisConnectionError(f"redis://:{LEAK}@h")]
)
async def test_an_unreachable_database_is_reported_without_details(error: Exception) -> None:
    answer = await answer_to(error)
    check(answer, 503, "unavailable")
    assert LEAK not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotAuthorizedException(LEAK), 401),
        (ClientException(LEAK, status_code=410), 410),
        (HTTPException(LEAK, status_code=409), 409),
    ],
)
async def test_the_frameworks_own_texts_are_not_shown(error: Exception, status: int) -> None:
    answer = await answer_to(error)
    check(answer, status, "invalid_request")
    assert LEAK not in answer.text


async def test_the_frameworks_server_errors_are_bare_500s() -> None:
    answer = await answer_to(ServiceUnavailableException(LEAK))
    check(answer, 500, "internal")
    assert LEAK not in answer.text


async def test_the_frameworks_429_is_also_a_problem() -> None:
    answer = await answer_to(TooManyRequestsException(LEAK))
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert LEAK not in answer.text


async def test_an_unknown_address_is_a_problem() -> None:
    check(await answer_to(ValueError(), path="/nowhere"), 404, "not_found")


async def test_an_unsupported_method_is_a_problem_that_lists_the_others() -> None:
    answer = await answer_to(ValueError(), "DELETE", "/posts")
    check(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].replace(" ", "").split(",")) >= {"POST"}


async def test_the_path_is_returned_as_json_and_not_as_markup() -> None:
    answer = await answer_to(ValueError(), path='/nowhere/"<script>%0a')
    assert check(answer, 404, "not_found")["instance"] == '/nowhere/"<script>\n'
    assert "\n" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"

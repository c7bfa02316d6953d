"""Who may use the cookie, and how it is read. Attacks on a running gateway are in tests/attack/test_cookies.py."""

from __future__ import annotations

import pytest

from auth.errors import InvalidGrant
from auth.sessions import Grant
from auth.tokens import Principal
from gateway.http.cookies import CLEARED, NAME, RefreshCookies, cleared_if_void
from gateway.http.cors import Cors
from gateway.http.problems import Problem
from gateway.text import FieldError

OWN = "https://Gateway.example.com:443"
ORIGIN = "https://gateway.example.com"
LISTED = "https://app.example.com"


def cookies(*, on: bool = True, own: str = OWN, listed: str = LISTED) -> RefreshCookies:
    return RefreshCookies(on=on, own=own, cors=Cors([listed], cookies=on))


def fields(**given: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]


def test_only_the_header_field_asks_for_cookie_mode() -> None:
    assert not cookies().asked(None, fields(origin="https://evil.example", cookie=f"{NAME}=x"))
    assert cookies().asked("cookie", fields(origin=ORIGIN, sec_fetch_site="same-origin"))
    for value in ("", "Cookie", "token", "cookie, cookie"):
        with pytest.raises(FieldError, match="must be: cookie"):
            cookies().asked(value, fields(origin=ORIGIN))


def test_a_gateway_without_cookies_says_so() -> None:
    with pytest.raises(FieldError, match="GATEWAY_COOKIES"):
        cookies(on=False).asked("cookie", fields(origin=ORIGIN))


@pytest.mark.parametrize("origin", [ORIGIN, LISTED])
@pytest.mark.parametrize("site", ["same-origin", "same-site", None])
def test_pages_of_the_gateway_and_of_listed_origins_may(origin: str, site: str | None) -> None:
    """Browsers before 2023 send no Sec-Fetch-Site."""
    headers = fields(origin=origin, host="10.0.0.7:8000") + (fields(sec_fetch_site=site) if site else [])
    assert cookies().asked("cookie", headers)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8001", "LOCALHOST", "127.8.9.10", "[::1]:8000"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("own", [OWN, ""])
def test_the_own_page_at_a_loopback_address_may(host: str, scheme: str, own: str) -> None:
    """An operator's SSH tunnel, or a gateway on this machine."""
    assert cookies(own=own).asked("cookie", fields(origin=f"{scheme}://{host.lower()}", host=host))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:5173", "127.0.0.1:8000"),
        ("http://localhost:8000", "127.0.0.1:8000"),
        ("http://127.0.0.1", "127.0.0.1:8000"),
        ("http://evil.example:8000", "evil.example:8000"),  # DNS rebinding
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example"),
        ("http://localhost.evil.example", "localhost.evil.example"),
        ("http://127.0.0.1@evil.example", "127.0.0.1@evil.example"),
        ("http://10.0.0.7:8000", "10.0.0.7:8000"),  # a browser keeps no Secure cookie of it
        ("ftp://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://", ""),
        ("://", ""),
        ("", ""),
    ],
)
def test_other_pages_may_not(origin: str, host: str) -> None:
    for own in (OWN, ""):
        with pytest.raises(Problem) as caught:
            cookies(own=own).asked("cookie", fields(origin=origin, host=host))
        assert (caught.value.status, caught.value.code) == (403, "origin_refused")


def test_a_second_host_field_counts_as_none() -> None:
    with pytest.raises(Problem):
        cookies().asked("cookie", fields(origin="http://localhost", host="localhost") + fields(host="localhost"))


def test_a_star_lists_no_origin() -> None:
    assert cookies(listed="*").asked("cookie", fields(origin=ORIGIN))
    with pytest.raises(Problem):
        cookies(listed="*").asked("cookie", fields(origin=LISTED))


@pytest.mark.parametrize("site", ["cross-site", "none", "", "Same-Origin", "same-origin, cross-site"])
def test_a_page_of_another_site_is_refused_even_if_it_is_listed(site: str) -> None:
    """Its browser would not keep the cookie (SameSite=Lax), so the refusal says what to do instead."""
    for headers in (fields(sec_fetch_site=site), fields(sec_fetch_site="same-site") + fields(sec_fetch_site=site)):
        with pytest.raises(Problem, match="another site") as caught:
            cookies().asked("cookie", [*headers, *fields(origin=LISTED)])
        assert caught.value.code == "origin_refused"


@pytest.mark.parametrize(
    "field", [f"{NAME}=v1.a", f"theme=dark; {NAME}=v1.a; x=y", f" {NAME}=v1.a ;", f"theme=dark;{NAME}=v1.a"]
)
def test_the_cookie_is_found_among_others(field: str) -> None:
    assert RefreshCookies.token(fields(cookie=field)) == "v1.a"
    assert RefreshCookies.token(fields(cookie="theme=dark") + fields(cookie=field)) == "v1.a", "HTTP/2 splits the field"


@pytest.mark.parametrize(
    "field", ["", ";", NAME, "theme=dark", f"x{NAME}=v1.a", f"{NAME}2=v1.a", f"{NAME.lower()}=v1.a", f"x={NAME}=v1.a"]
)
def test_a_cookie_of_another_name_is_none(field: str) -> None:
    assert RefreshCookies.token(fields(cookie=field)) is None
    assert RefreshCookies.token([]) is None


def test_of_two_cookies_none_is_taken() -> None:
    for headers in (fields(cookie=f"{NAME}=v1.a; {NAME}=v1.b"), fields(cookie=f"{NAME}=v1.a") * 2):
        with pytest.raises(InvalidGrant):
            RefreshCookies.token(headers)


def test_the_cookie_lives_as_long_as_its_token() -> None:
    grant = Grant(Principal("u", "s", (), 1), "v1.a", 77, 0)
    expected = f"{NAME}=v1.a; Max-Age=77; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert RefreshCookies.kept(grant) == {"Set-Cookie": expected}


def test_only_a_void_token_of_a_cookie_removes_it() -> None:
    with pytest.raises(Problem) as caught, cleared_if_void(True):
        raise InvalidGrant
    assert caught.value.headers == CLEARED
    assert (caught.value.status, caught.value.code, caught.value.detail) == (400, "invalid_grant", str(InvalidGrant()))
    with pytest.raises(InvalidGrant), cleared_if_void(False):
        raise InvalidGrant
    with pytest.raises(FieldError), cleared_if_void(True):
        raise FieldError("refresh_token", "is wrong")

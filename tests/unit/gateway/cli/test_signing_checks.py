"""The doctor's findings about signing keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from auth.signing_keys import SigningKeys, make_key, rotated, stopped
from gateway.cli.signing_checks import MOST_AGE, judge_keys, judge_mode

NOW = datetime(2026, 7, 1, tzinfo=UTC)
URL = "https://gateway.example.com"
PAIR = (make_key("es256", NOW), make_key("es256", NOW))


def test_pair_of_fresh_keys_is_fine() -> None:
    found = judge_keys(SigningKeys(PAIR, URL), None, NOW)
    assert found.status == "ok"
    assert found.text == (
        f"ES256, key {PAIR[0].kid[:8]}… of 2026-07-01, signs for {URL}; next keys: 1, earlier ones that verify: 0"
    )


@pytest.mark.parametrize(("age", "status"), [(MOST_AGE, "ok"), (MOST_AGE + timedelta(seconds=1), "WARN")])
def test_key_older_than_a_year_is_reported_with_the_command(age: timedelta, status: str) -> None:
    found = judge_keys(SigningKeys(PAIR, URL), None, NOW + age)
    assert found.status == status
    assert ("older than a year: gateway keys signing rotate" in found.text) == (status == "WARN")


def test_key_without_a_remark_is_as_old_as_its_file() -> None:
    own = replace(make_key("ed25519", NOW), made=None)
    keys = SigningKeys((own,), URL)
    assert judge_keys(keys, NOW - 2 * MOST_AGE, NOW).status == "WARN"
    fresh = judge_keys(keys, NOW - timedelta(days=2), NOW)
    assert fresh.status == "ok"
    assert "EdDSA" in fresh.text
    assert "of 2026-06-29" in fresh.text
    assert "`gateway keys signing rotate` adds a next key" in fresh.text
    assert " of 2026" not in judge_keys(keys, None, NOW).text


def test_earlier_keys_are_counted() -> None:
    keys = rotated(rotated(PAIR, "es256", NOW, timedelta(days=9)), "es256", NOW + timedelta(days=1), timedelta(days=9))
    assert "next keys: 1, earlier ones that verify: 2" in judge_keys(SigningKeys(keys, URL), None, NOW).text


def test_keys_that_only_verify_are_to_be_removed() -> None:
    found = judge_keys(SigningKeys(stopped(PAIR, NOW), URL), None, NOW)
    assert found.status == "WARN"
    assert "no key signs" in found.text
    assert "remove GATEWAY_SIGNING_KEY" in found.text


@pytest.mark.parametrize(
    ("mode", "status"),
    [(0o600, ""), (0o400, ""), (0o440, ""), (0o640, ""), (0o644, "WARN"), (0o604, "WARN"), (0o620, "FAIL"),
     (0o602, "FAIL"), (0o666, "FAIL"), (0o777, "FAIL")],
)  # fmt: skip
def test_mode_of_the_file_is_judged(tmp_path: Path, mode: int, status: str) -> None:
    path = tmp_path / "signing.pem"
    path.write_text("")
    path.chmod(mode)
    found = judge_mode(path)
    assert (found.status if found else "") == status
    if found:
        assert f"{path} (mode {mode:04o})" in found.text
        assert "chmod 600" in found.text

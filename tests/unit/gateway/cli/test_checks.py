"""The doctor's findings."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from gateway.cli.checks import Finding, check_redis, check_secrets, judge_clock, judge_proxies, judge_template
from gateway.hms.errors import HmsNotFound, HmsTimeout
from gateway.hms.replies import HmsRole, HmsTemplate
from gateway.policy.file import load_policy, parse_policy
from gateway.policy.templates import policy_text
from gateway.redis.durable import NotDurable
from gateway.redis.store import StoreError
from gateway.settings import Settings

TEMPLATE = "5" * 24
GOOD_INFO = {
    "redis_version": "8.2.1",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "used_memory": str(2**20),
    "maxmemory": str(2**30),
    "total_system_memory": str(2**34),
}
GOOD_CONFIG = {"appendfsync": "everysec", "maxmemory-policy": "noeviction"}


class Server:
    """Answers the doctor's commands like Redis."""

    def __init__(self, info: Mapping[str, str], config: Mapping[str, str] | None) -> None:
        self._info = info
        self._config = config

    async def execute(self, *words: Any) -> Any:
        match words[0]:
            case "INFO":
                return "".join(f"{name}:{value}\r\n" for name, value in self._info.items()).encode()
            case "CONFIG":
                if self._config is None:
                    raise ResponseError("NOPERM this user has no permissions to run the 'config|get' command")
                return {words[2].encode(): self._config[words[2]].encode()}
            case "TIME":
                now_us = time.time_ns() // 1000
                return [str(now_us // 10**6).encode(), str(now_us % 10**6).encode()]
        raise AssertionError(words)

    async def each(self, *words: Any) -> dict[str, Any]:
        try:
            return {"Redis": await self.execute(*words)}
        except ResponseError as error:
            return {"Redis": error}


class Disk:
    """Confirms writes or fails to."""

    def __init__(self, *, can: bool = True, error: Exception | None = None) -> None:
        self._can = can
        self._error = error

    async def check(self) -> bool:
        return self._can

    async def execute(self, *_: Any) -> Any:
        if self._error:
            raise self._error
        return b"OK"


async def examine(
    info: Mapping[str, str] = GOOD_INFO, config: Mapping[str, str] | None = GOOD_CONFIG, disk: Disk | None = None
) -> dict[str, Finding]:
    findings = await check_redis(Server(info, config), disk or Disk())  # type: ignore[arg-type]
    return {finding.check: finding for finding in findings}


async def test_a_well_configured_redis_passes_every_check() -> None:
    findings = await examine()
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert list(findings) == ["redis", "append-only", "appendfsync", "eviction", "disk", "clock", "memory"]
    assert findings["redis"].text == "Redis 8.2.1"


@pytest.mark.parametrize(
    ("info", "status", "words"),
    [
        ({"redis_version": "6.2.14"}, "FAIL", "Redis 6.2.14 is too old"),
        ({"redis_version": "7.0.0"}, "ok", "Redis 7.0.0"),
        ({"redis_version": "10.0.0"}, "ok", "Redis 10.0.0"),
        # Valkey also reports the version of Redis that it is compatible with
        ({"redis_version": "7.2.4", "valkey_version": "7.2.9"}, "FAIL", "Valkey 7.2.9 is too old"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "ok", "Valkey 9.1.2"),
        ({"redis_version": ""}, "WARN", "reports no version"),
    ],
)
async def test_the_version_is_that_of_the_actual_product(info: dict[str, str], status: str, words: str) -> None:
    found = (await examine(GOOD_INFO | info))["redis"]
    assert found.status == status
    assert words in found.text


async def test_a_redis_that_could_lose_accounts_fails_with_the_right_settings() -> None:
    findings = await examine(GOOD_INFO | {"aof_enabled": "0"}, {"appendfsync": "no", "maxmemory-policy": "allkeys-lru"})
    assert findings["append-only"].status == "FAIL"
    assert "appendonly yes" in findings["append-only"].text
    assert findings["eviction"].status == "FAIL"
    assert "maxmemory-policy noeviction" in findings["eviction"].text
    assert findings["appendfsync"].status == "WARN"
    assert (await examine(GOOD_INFO | {"aof_last_write_status": "err"}))["append-only"].status == "FAIL"


async def test_a_server_that_forbids_config_is_judged_by_what_info_reports() -> None:
    reported = await examine(GOOD_INFO | {"maxmemory_policy": "volatile-lru"}, None)
    assert reported["eviction"].status == "FAIL"
    silent = await examine({name: GOOD_INFO[name] for name in ("redis_version", "used_memory")}, None)
    for check in ("append-only", "appendfsync", "eviction"):
        assert silent[check].status == "WARN", check
        assert "does not report" in silent[check].text


@pytest.mark.parametrize(
    ("disk", "status"),
    [
        (Disk(), "ok"),
        (Disk(can=False), "WARN"),
        (Disk(error=NotDurable("late")), "FAIL"),
        (Disk(error=StoreError("gone")), "FAIL"),
        (Disk(error=ResponseError("MISCONF Redis is configured to save RDB snapshots")), "FAIL"),
    ],
)
async def test_a_write_that_the_disk_does_not_confirm_is_reported(disk: Disk, status: str) -> None:
    assert (await examine(disk=disk))["disk"].status == status


async def test_a_nearly_full_memory_is_reported_with_and_without_maxmemory() -> None:
    assert (await examine(GOOD_INFO | {"used_memory": str(900 * 2**20)}))["memory"].status == "WARN"
    unbound = GOOD_INFO | {"maxmemory": "0"}
    assert (await examine(unbound | {"used_memory": str(2**33)}))["memory"].status == "ok"
    assert (await examine(unbound | {"used_memory": str(15 * 2**30)}))["memory"].status == "WARN"


@pytest.mark.parametrize(
    ("ahead_s", "status"), [(0.0, "ok"), (0.999, "ok"), (-0.999, "ok"), (1.0, "FAIL"), (-3600, "FAIL")]
)
def test_clocks_a_second_apart_fail(ahead_s: float, status: str) -> None:
    found = judge_clock(ahead_s)
    assert found.status == status
    assert ("ahead of" if ahead_s > 0 else "behind") in found.text


@pytest.mark.parametrize(
    ("secret", "status"),
    [
        pytest.param(secrets.token_urlsafe(48), "ok", id="48 random bytes"),
        pytest.param(secrets.token_hex(32), "ok", id="32 random bytes in hex"),
        pytest.param(secrets.token_urlsafe(24), "ok", id="24 random bytes"),
        ("correcthorsebatterystaple1234567", "WARN"),
        ("qwertyuiopasdfghjklzxcvbnm1234567890", "WARN"),
        ("abcdefghijklmnopqrstuvwxyz0123456789", "WARN"),
    ],
)
def test_a_secret_that_could_be_guessed_is_reported_and_never_shown(secret: str, status: str) -> None:
    found = check_secrets((secret,))
    assert found.status == status
    assert secret not in found.text
    both = check_secrets((secrets.token_urlsafe(48), secret))
    assert both.status == status
    assert ("secret 2 of 2" in both.text) == (status == "WARN")


# --- templates ---

POLICY = parse_policy(
    policy_text({"owner": ["pupil", "teacher"], "cohost": ["pupil"], "participant": ["pupil"], "viewer": ["pupil"]})
    + f'\n[templates.big]\nid = "{TEMPLATE}"\nowner = ["speaker"]\n',
    "policy.toml",
)
object.__setattr__(POLICY, "template_ids", {**POLICY.template_ids, "default": "4" * 24})


def template(*roles: HmsRole) -> HmsTemplate:
    return HmsTemplate("4" * 24, "live", roles)


def test_a_template_without_the_roles_of_the_policy_fails_with_their_names_and_its_own() -> None:
    [found] = judge_template(POLICY, "default", template(HmsRole("guest", ()), HmsRole("pupil", ())))
    assert (found.check, found.status) == ("template default", "FAIL")
    for words in ("'teacher'", "policy.toml", "it has guest, pupil", "[templates.default]"):
        assert words in found.text
    assert "'pupil'" not in found.text
    assert "gateway init" not in found.text  # it refuses to replace the operator's own policy


def test_the_built_in_policy_is_not_called_a_file_to_correct() -> None:
    [found] = judge_template(replace(load_policy(), template_ids={"default": "4" * 24}), "default", template())
    assert "which the built-in policy lists; it has none. Run `gateway init`, which writes a policy.toml" in found.text
    assert "[templates.default]" not in found.text


def test_a_participant_with_powers_gets_a_warning_that_names_role_and_powers() -> None:
    pupil = HmsRole("pupil", ("endRoom", "hlsStreaming"))
    fits, warned = judge_template(POLICY, "default", template(pupil, HmsRole("teacher", ("endRoom",))))
    assert fits.status == "ok"
    assert warned.status == "WARN"
    for words in ("participant", "viewer", "guest", "'pupil' (endRoom hlsStreaming)"):
        assert words in warned.text
    assert "teacher" not in warned.text


def test_a_missing_template_names_the_setting_to_correct() -> None:
    [default] = judge_template(POLICY, "default", HmsNotFound("no"))
    [other] = judge_template(POLICY, "big", HmsNotFound("no"))
    assert default.status == other.status == "FAIL"
    assert "HMS_TEMPLATE_ID" in default.text
    assert "[templates.big] id" in other.text


def test_a_template_that_could_not_be_fetched_is_not_reported_as_ok() -> None:
    [found] = judge_template(POLICY, "default", HmsTimeout("late"))
    assert found.status == "WARN"


@pytest.mark.parametrize(
    ("networks", "header", "warning"),
    [
        ("", "", ""),
        ("10.0.0.0/8,fc00::/7", "", ""),
        ("10.0.0.0/8,0.0.0.0/0", "", "GATEWAY_TRUSTED_PROXIES has every address"),
        ("::/0", "", "GATEWAY_TRUSTED_PROXIES has every address"),
        ("0.0.0.0/0,::/0", "Fly-Client-IP", ""),
        ("173.245.48.0/20,2400:cb00::/32", "CF-Connecting-IP", ""),
        ("127.0.0.1/32", "x-real-ip", ""),
        ("127.0.0.1/32,::1/128", "CF-Connecting-IP", "unless your proxy replaces CF-Connecting-IP"),
        ("172.16.0.0/12", "Fly-Client-IP", "unless your proxy replaces Fly-Client-IP"),
    ],
)
def test_addresses_that_clients_can_choose_are_warned_about(networks: str, header: str, warning: str) -> None:
    env = {
        "REDIS_URL": "redis://127.0.0.1:6379/0",
        "HMS_APP_ACCESS_KEY": secrets.token_hex(12),
        "HMS_APP_SECRET": secrets.token_urlsafe(48),
        "HMS_TEMPLATE_ID": TEMPLATE,
        "GATEWAY_SECRET": secrets.token_urlsafe(48),
        "GATEWAY_TRUSTED_PROXIES": networks,
        "GATEWAY_ADDRESS_HEADER": header,
    }
    found = judge_proxies(Settings.from_env({name: value for name, value in env.items() if value}))
    assert [(one.check, one.status) for one in found] == [("proxies", "WARN")] * bool(warning)
    assert all(warning in one.text for one in found)

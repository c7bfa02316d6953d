"""Policy files: every refusal is one line that names file, key and reason."""

import os
import socket
import stat
from decimal import Decimal
from pathlib import Path
from typing import get_type_hints

import pytest
from msgspec.structs import replace

from gateway.policy.actions import LIMITED_ACTIONS
from gateway.policy.file import MOST_BYTES, load_policy
from gateway.policy.model import RoomDefaults
from gateway.policy.tables import PolicyError, Table
from limits.policy import US_PER_S, Limit, Quota

MINIMAL = """
[roles.member]
permissions = ["rooms:join"]
limits.api = { rate = "120/min", burst = 60 }
[limits.api]
applies_to = ["*"]
[templates.default]
owner = ["guest", "host"]
"""


def test_a_minimal_file_is_enough_and_the_rest_has_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    policy = load_policy(path)
    assert policy.source == "mine.toml"
    assert dict(policy.roles["member"].limits) == {"api": Limit("api", 120, 60 * US_PER_S, 60)}
    assert policy.applies_to == {"api": LIMITED_ACTIONS}
    assert policy.templates == {"default": {"owner": ("guest", "host")}}
    assert policy.rooms == RoomDefaults("open", "auto", 100, 43_200, 3600)


def test_the_built_in_file_can_be_copied_and_loaded(tmp_path: Path) -> None:
    built_in = load_policy()
    path = tmp_path / "copy.toml"
    path.write_bytes((Path(__file__).parents[4] / "gateway" / "policy" / "policy.toml").read_bytes())
    copied = load_policy(path)
    assert (copied.roles, copied.applies_to) == (built_in.roles, built_in.applies_to)
    assert (copied.templates, copied.rooms) == (built_in.templates, built_in.rooms)


HOOK = "[webhooks.a]\nurl = 'https://a.test/'\n"
BAD: dict[str, tuple[str, str, str, str]] = {
    # name: (old text, new text, key, reason)
    "secret of a webhook": ("[roles.member]", f"{HOOK}secret = 'x'\n[roles.member]", "webhooks.a.secret", "unknown"),
    "webhook without URL": ("[roles.member]", "[webhooks.a]\nevents=[]\n[roles.member]", "webhooks.a.url", "missing"),
    "webhook without events": ("[roles.member]", f"{HOOK}events = []\n[roles.member]", "webhooks.a.events", "no event"),
    "unknown event": ("[roles.member]", f"{HOOK}events = ['x']\n[roles.member]", "webhooks.a.events", "'x'"),
    "name of a webhook": ("[roles.member]", "[webhooks.A]\n[roles.member]", "webhooks.A", "1 to 32 of a-z 0-9 _ -"),
    "too many webhooks": (
        "[roles.member]",
        "".join(f"[webhooks.a{n}]\n" for n in range(9)) + "[roles.member]",
        "webhooks",
        "there may be 8 endpoints",
    ),
    "unknown section": ("[roles.member]", "[quota.x]\n[roles.member]", "quota", "unknown key"),
    "unknown key of a role": ("permissions =", "permission =", "roles.member.permission", "unknown key"),
    "unknown key of a number": ("burst = 60", "burst = 60, brust = 1", "roles.member.limits.api.brust", "unknown key"),
    "unknown key of a limit": ('applies_to = ["*"]', 'applies_to = ["*"]\ncots = 1', "limits.api.cots", "unknown key"),
    "unknown relation": ("owner =", "owners =", "templates.default.owners", "unknown key"),
    "unknown key of rooms": ("[roles.member]", "[rooms]\nsizes = 1\n[roles.member]", "rooms.sizes", "unknown key"),
    "unknown permission": ("rooms:join", "rooms:joyn", "roles.member.permissions", "'rooms:joyn'"),
    "permission of other case": ("rooms:join", "Rooms:Join", "roles.member.permissions", "'Rooms:Join'"),
    "permissions no list": ('["rooms:join"]', '"rooms:join"', "roles.member.permissions", "list of strings"),
    "permissions no texts": ('["rooms:join"]', "[1]", "roles.member.permissions", "list of strings"),
    "bad role name": ("[roles.member]", "[roles.Member]", "roles.Member", "a role's name"),
    "role name with a space": ("[roles.member]", '[roles."a b"]', "roles.a b", "a role's name"),
    "zero rate": ("120/min", "0/min", "roles.member.limits.api", "rate '0/min'"),
    "negative rate": ("120/min", "-1/min", "roles.member.limits.api", "rate '-1/min'"),
    "rate without unit": ("120/min", "120", "roles.member.limits.api", "rate '120'"),
    "rate of unknown unit": ("120/min", "120/week", "roles.member.limits.api", "rate '120/week'"),
    "rate a number": ('"120/min"', "120", "roles.member.limits.api.rate", "must be a string"),
    "rate too fine": ("120/min", "2000000/s", "roles.member.limits.api", "finer than one unit per microsecond"),
    "rate missing": ('rate = "120/min", ', "", "roles.member.limits.api.rate", "is missing"),
    "burst missing": (", burst = 60", "", "roles.member.limits.api.burst", "is missing"),
    "burst 0": ("burst = 60", "burst = 0", "roles.member.limits.api.burst", "whole number from 1"),
    "burst negative": ("burst = 60", "burst = -1", "roles.member.limits.api.burst", "whole number from 1"),
    "burst a fraction": ("burst = 60", "burst = 60.0", "roles.member.limits.api.burst", "whole number from 1"),
    "burst a truth": ("burst = 60", "burst = true", "roles.member.limits.api.burst", "whole number from 1"),
    "burst a text": ("burst = 60", 'burst = "60"', "roles.member.limits.api.burst", "whole number from 1"),
    "burst beyond int64": ("burst = 60", "burst = 99999999999999999999", "roles.member.limits.api.burst", "whole"),
    "refill overflow": ('"120/min", burst = 60', '"1/9999d", burst = 100000000', "roles.member.limits.api", "ten y"),
    "number no table": ('{ rate = "120/min", burst = 60 }', '"120/min"', "roles.member.limits.api", "must be a table"),
    "limit nowhere defined": ("limits.api =", "limits.apy =", "roles.member.limits.apy", "there is no [limits.apy]"),
    "missing limit for a free action": (
        'limits.api = { rate = "120/min", burst = 60 }',
        "",
        "roles.member.limits.api",
        "is missing; the role may do",
    ),
    "missing limit for a granted action": (
        "[limits.api]",
        '[limits.mint]\napplies_to = ["tokens.mint"]\n[limits.api]',
        "roles.member.limits.mint",
        "is missing; the role may do tokens.mint",
    ),
    "unknown action": ('["*"]', '["rooms.delete"]', "limits.api.applies_to", "unknown action 'rooms.delete'"),
    "unlimited action": ('["*"]', '["usage.read"]', "limits.api.applies_to", "unknown action 'usage.read'"),
    "unknown action beside all": ('["*"]', '["*", "x"]', "limits.api.applies_to", "unknown action 'x'"),
    "no action": ('["*"]', "[]", "limits.api.applies_to", "names no action"),
    "actions no list": ('["*"]', '"*"', "limits.api.applies_to", "list of strings"),
    "applies_to missing": ('applies_to = ["*"]', "", "limits.api.applies_to", "is missing"),
    "bad limit name": ("[limits.api]", '[limits."A P I"]\napplies_to = ["*"]\n[limits.api]', "limits.A P I", "1 to 40"),
    "no roles": (MINIMAL[: MINIMAL.index("[limits.api]")], "", "roles", "at least one role"),
    "no template": (MINIMAL[MINIMAL.index("[templates") :], "", "templates.default", "is missing"),
    "template without id": (
        "[templates.default]",
        '[templates.webinar]\nowner = ["host"]\n[templates.default]',
        "templates.webinar.id",
        "is missing",
    ),
    "template with a bad id": (
        "[templates.default]",
        '[templates.webinar]\nid = "x"\n[templates.default]',
        "templates.webinar.id",
        "24 hexadecimal",
    ),
    "no default template": ("[templates.default]", "[templates.other]", "templates.default", "is missing"),
    "template roles no list": ('["guest", "host"]', '"guest"', "templates.default.owner", "list of strings"),
    "template role empty": ('"guest", "host"', '""', "templates.default.owner", "plain ASCII"),
    "template role too long": ('"guest"', f'"{"x" * 65}"', "templates.default.owner", "plain ASCII"),
    "template role not ASCII": ('"guest"', '"gäst"', "templates.default.owner", "plain ASCII"),
    "template role with ?": ('"guest"', '"why?"', "templates.default.owner", "plain ASCII"),
    "template role with >": ('"guest"', '"a>b"', "templates.default.owner", "plain ASCII"),
    "template role with ~": ('"guest"', '"a~b"', "templates.default.owner", "plain ASCII"),
    "template role with newline": ('"guest"', '"guest\\n"', "templates.default.owner", "plain ASCII"),
    "roles no table": ("[roles.member]", "roles = 1\n[rooms]", "roles", "must be a table"),
    "limits a list": ("[limits.api]", "[[limits]]\n[limits.api]", "limits", "must be a table"),
}  # fmt: skip

ROOMS = {
    "access": ('"public"', "open, invited"),
    "region": ('"mars"', "auto, us, eu, in"),
    "size": ("0", "1 to 2500"),
    "size ": ("2501", "1 to 2500"),
    "size  ": ("true", "1 to 2500"),
    "max_duration": ('"1min"', "120 to 43200 seconds"),
    "max_duration ": ('"13h"', "120 to 43200 seconds"),
    "max_duration  ": ("3600", "must be a duration"),
    "token_ttl": ('"59s"', "60 to 86400 seconds"),
    "token_ttl ": ('"2d"', "60 to 86400 seconds"),
    "token_ttl  ": ('"1 h"', "must be a duration"),
    "token_ttl   ": ('"0s"', "must be a duration"),
    "token_ttl    ": ('"1.5h"', "must be a duration"),
    "token_ttl     ": ('"-1h"', "must be a duration"),
    "token_ttl      ": ('"1hour"', "must be a duration"),
    "access ": ('["open"]', "open, invited"),
}
BAD |= {
    f"rooms.{key.strip()} = {value}": (
        "[roles.member]",
        f"[rooms]\n{key} = {value}\n[roles.member]",
        f"rooms.{key.strip()}",
        reason,
    )
    for key, (value, reason) in ROOMS.items()
}


def budget(line: str, counter: str = "minutes") -> str:
    return f'[quotas.day]\ncounter = "{counter}"\nperiod = "day"\namount = 30\n{line}\n[roles.member]'


def prices(line: str) -> str:
    return f'[prices]\ncurrency = "EUR"\n{line}\n[roles.member]'


QUOTA = '[quotas.month]\ncounter = "tokens.mint"\nperiod = "month"\namount = 10\n[roles.member]'
BAD |= {
    "cost 0": ('applies_to = ["*"]', 'applies_to = ["*"]\ncost = 0', "limits.api.cost", "whole number from 1"),
    "cost over burst": ('applies_to = ["*"]', 'applies_to = ["*"]\ncost = 61', "roles.member.limits.api.burst", "cost"),
    "strict a text": ('applies_to = ["*"]', 'applies_to = ["*"]\nstrict = "yes"', "limits.api.strict", "true or false"),
    "shadow a number": ('applies_to = ["*"]', 'applies_to = ["*"]\nshadow = 1', "limits.api.shadow", "true or false"),
    "on_store_error": (
        'applies_to = ["*"]', 'applies_to = ["*"]\non_store_error = "deny"', "limits.api.on_store_error", "remove it",
    ),
    "strict without room": (
        '"*"]', '"*"]\nstrict = true\nrate = "60/min"\nburst = 60', "limits.api", "strict",
    ),
    "a name is reserved": ("[limits.api]", '[limits.block]\napplies_to = ["*"]\n[limits.api]', "limits.block", "block"),
    "unknown counter": ("[roles.member]", QUOTA.replace("tokens.mint", "x"), "quotas.month.counter", "one of"),
    "unknown period": ("[roles.member]", QUOTA.replace('"month"', '"year"'), "quotas.month.period", "one of: day"),
    "quota amount 0": ("[roles.member]", QUOTA.replace("= 10", "= 0"), "quotas.month.amount", "whole number from 1"),
    "unknown time zone": (
        "[roles.member]", QUOTA.replace("amount", 'time_zone = "Mars/Base"\namount'), "quotas.month", "Mars/Base",
    ),
    "no time zone": (
        "[roles.member]", QUOTA.replace("amount", 'time_zone = ""\namount'), "quotas.month.time_zone", "such as",
    ),
    "unknown zone of reports": (
        "[roles.member]", '[reports]\ntime_zone = "Mars/Base"\n[roles.member]', "reports.time_zone", "Mars/Base",
    ),
    "unknown key of reports": ("[roles.member]", "[reports]\ncurrency = 1\n[roles.member]", "reports.currency", "unkn"),
    "a quota's role number without quota": (
        "[limits.api]", "quotas.month = 5\n[limits.api]", "roles.member.quotas.month", "there is no [quotas.month]",
    ),
    "a quota named like a limit": (
        "[roles.member]", QUOTA.replace("quotas.month", "quotas.api"), "quotas.api", "name of a limit",
    ),
    "unknown service_keys": (
        "[roles.member]", "[service_keys]\nscopes = 1\n[roles.member]", "service_keys.scopes", "unknown",
    ),
    "limit of service_keys that does not exist": (
        "[roles.member]", '[service_keys]\nlimits.mints = { rate = "5/min", burst = 1 }\n[roles.member]',
        "service_keys.limits.mints", "there is no [limits.mints]",
    ),
    "service_keys burst 0": (
        "[roles.member]", '[service_keys]\nlimits.api = { rate = "5/min", burst = 0 }\n[roles.member]',
        "service_keys.limits.api.burst", "whole number from 1",
    ),
    "unknown anonymous": ("[roles.member]", "[anonymous]\nlogin = 1\n[roles.member]", "anonymous.login", "unknown"),
    "anonymous burst 0": (
        "[roles.member]", '[anonymous]\naccount = { rate = "5/min", burst = 0 }\n[roles.member]',
        "anonymous.account.burst", "whole number from 1",
    ),
    "unknown scope": ("[roles.member]", budget('scope = "room"'), "quotas.day.scope", "one of: user, owner, all"),
    "unknown end": ("[roles.member]", budget('on_exhausted = "stop"'), "quotas.day.on_exhausted", "one of: refuse"),
    "scope of requests": ("[roles.member]", budget('scope = "owner"', "api"), "quotas.day.scope", "counter minutes"),
    "end of requests": (
        "[roles.member]", budget('on_exhausted = "end"', "api"), "quotas.day.on_exhausted", "counter minutes",
    ),
    "end without effect": (
        "[roles.member]", budget('on_exhausted = "end"\nshadow = true'), "quotas.day.on_exhausted", "shadow",
    ),
    "no budget of all": (
        "[roles.member]", budget('scope = "all"').replace("amount = 30\n", ""), "quotas.day.amount", "is missing",
    ),
    "a role's budget of all": (
        "[roles.member]", budget('scope = "all"') + "\nquotas.day = 5", "roles.member.quotas.day", "all users together",
    ),
    "seconds of a counter": ("[roles.member]", budget("", "owned"), "quotas.day.counter", "one of"),
    "rooms at once 0": (
        "[limits.api]", "concurrent_rooms = 0\n[limits.api]", "roles.member.concurrent_rooms", "from 1 to 100000",
    ),
    "too many people": (
        "[limits.api]", "max_participants = 2501\n[limits.api]", "roles.member.max_participants", "from 1 to 2500",
    ),
    "rooms of a role that creates none": (
        "[limits.api]", "concurrent_rooms = 3\n[limits.api]", "roles.member.concurrent_rooms", "rooms:create",
    ),
    "people of a role that creates no room": (
        "[limits.api]", "max_participants = 3\n[limits.api]", "roles.member.max_participants", "rooms:create",
    ),
    "unknown price": ("[roles.member]", prices("per_room = 1"), "prices.per_room", "unknown key"),
    "price without currency": (
        "[roles.member]", prices("per_1000_minutes = 4").replace('currency = "EUR"\n', ""), "prices.currency", "is m",
    ),
    "currency no code": (
        "[roles.member]", prices("per_1000_minutes = 4").replace("EUR", "€"), "prices.currency", "ISO 4217",
    ),
    "price missing": ("[roles.member]", prices(""), "prices.per_1000_minutes", "is missing"),
    "price negative": ("[roles.member]", prices("per_1000_minutes = -1"), "prices.per_1000_minutes", "from 0 to"),
    "price a text": ("[roles.member]", prices('per_1000_minutes = "4"'), "prices.per_1000_minutes", "from 0 to"),
    "price too fine": ("[roles.member]", prices("per_1000_minutes = 0.0000001"), "prices.per_1000_minutes", "6 dec"),
    "price not a number": ("[roles.member]", prices("per_1000_minutes = nan"), "prices.per_1000_minutes", ""),
    "price infinite": ("[roles.member]", prices("per_1000_minutes = inf"), "prices.per_1000_minutes", "from 0 to"),
    "a recorder's role": ('"guest"', '"__internal_recorder"', "templates.default.owner", "100ms's own role"),
    "no active room": (
        "[roles.member]", "[rooms]\nactive_per_owner = 0\n[roles.member]", "rooms.active_per_owner", "from 1",
    ),
}  # fmt: skip


def refusal(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_file_is_refused_with_file_key_and_reason(tmp_path: Path, name: str) -> None:
    old, new, key, reason = BAD[name]
    assert MINIMAL.count(old) == 1
    file, found_key, found_reason = refusal(tmp_path / "mine.toml", MINIMAL.replace(old, new)).split(": ", 2)
    assert (file, found_key) == ("mine.toml", key)
    assert reason in found_reason


def test_a_deeply_nested_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "mine.toml", "a = " + "[" * 5000) == "mine.toml: is nested too deeply"


def test_a_quota_applies_to_every_role_and_a_role_may_set_its_own_number(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace("[roles.member]", QUOTA))
    assert load_policy(path).roles["member"].quotas == {"month": Quota("month", "tokens.mint", 10, "month")}
    path.write_text(MINIMAL.replace("[roles.member]", QUOTA).replace("[limits.api]", "quotas.month = 25\n[limits.api]"))
    assert load_policy(path).roles["member"].quotas["month"].amount == 25


def test_budgets_count_seconds_of_the_user_of_the_owners_rooms_or_of_all(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    tables = "".join(
        budget(f'scope = "{scope}"\non_exhausted = "end"').replace("day]", f"{scope}]").removesuffix("[roles.member]")
        for scope in ("user", "owner", "all")
    )
    path.write_text(MINIMAL.replace("[roles.member]", f"{tables}[roles.member]"))
    policy = load_policy(path)
    minutes = Quota("user", "minutes", 30, "day", unit=60, metered=True)
    assert policy.roles["member"].quotas == {"user": minutes, "owner": replace(minutes, id="owner", counter="owned")}
    assert policy.installation == (replace(minutes, id="all"),)
    assert [policy.scope_of(quota) for quota in policy.metered] == ["user", "owner", "all"]
    assert policy.ending == {"user", "owner", "all"}


@pytest.mark.parametrize(("price", "expected"), [("4", "4"), ("4.0", "4.0"), ("0.000001", "0.000001"), ("0", "0")])
def test_a_price_is_exact(tmp_path: Path, price: str, expected: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace("[roles.member]", prices(f"per_1000_minutes = {price}")))
    found = load_policy(path).prices
    assert found is not None
    assert (found.currency, found.per_1000_minutes) == ("EUR", Decimal(expected))


@pytest.mark.parametrize("text", ["[roles", "a = ", "[roles.member]\n[roles.member]\n", "a = 1\na = 2\n", "\0"])
def test_invalid_toml_is_refused_with_its_position(tmp_path: Path, text: str) -> None:
    found = refusal(tmp_path / "mine.toml", text)
    assert found.startswith("mine.toml: ")
    assert "line 1" in found or "line 2" in found or "end of document" in found


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "mine.toml", b"\xff\xfe\x00") == "mine.toml: is not UTF-8 text"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"^no\.toml: cannot be read: No such file or directory$"):
        load_policy(tmp_path / "no.toml")


@pytest.mark.parametrize("kind", ["directory", "pipe", "socket", "device"])
def test_a_path_that_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine.toml"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(PolicyError, match=r"^mine\.toml: is not a regular file$"):
        load_policy(path)


def test_a_pipe_that_replaces_the_file_during_opening_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.toml"
    os.mkfifo(path)
    monkeypatch.setattr(stat, "S_ISREG", lambda _: True)
    with pytest.raises(PolicyError, match=r"^mine\.toml: roles: at least one role is needed$"):
        load_policy(path)


def test_a_file_is_read_up_to_a_mebibyte(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + "#" * (MOST_BYTES - len(MINIMAL)))
    assert load_policy(path).source == "mine.toml"
    assert refusal(path, MINIMAL + "#" * (MOST_BYTES - len(MINIMAL) + 1)) == "mine.toml: is larger than 1 MiB"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "mine.toml", "") == "mine.toml: roles: at least one role is needed"


def test_a_limit_for_an_action_that_a_role_may_not_perform_can_be_omitted(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace("[limits.api]", '[limits.create]\napplies_to = ["rooms.create"]\n[limits.api]'))
    assert load_policy(path).roles["member"].limits.keys() == {"api"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15min", 900), ("2h", 7200), ("1d", 86_400), ("86400s", 86_400), ("60s", 60)]
)
def test_a_duration_is_written_in_seconds_minutes_hours_or_days(tmp_path: Path, text: str, seconds: int) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'{MINIMAL}[rooms]\ntoken_ttl = "{text}"\n')
    assert load_policy(path).rooms.token_ttl_s == seconds


@pytest.mark.parametrize("table", Table.__subclasses__())
def test_every_key_of_a_table_has_a_text_for_wrong_values(table: type[Table]) -> None:
    hints = get_type_hints(table, include_extras=True)
    assert [name for name in table.__struct_fields__ if not hints[name].__metadata__[0].description] == []


def test_service_keys_have_a_limit_api_even_if_the_file_says_nothing_of_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    built_in = {"api": Limit("api", 6000, 60 * US_PER_S, 1200)}
    assert load_policy(path).key_limits == load_policy(None).key_limits == built_in
    numbers = 'limits.api = { rate = "5/s", burst = 9 }\nlimits.mints = { rate = "2/s", burst = 3 }'
    mints = '[limits.mints]\napplies_to = ["tokens.mint"]\nrate = "1/s"\nburst = 1'
    path.write_text(f"{MINIMAL}\n[service_keys]\n{numbers}\n{mints}")
    stated = {"api": Limit("api", 5, US_PER_S, 9), "mints": Limit("mints", 2, US_PER_S, 3)}
    assert load_policy(path).key_limits == stated

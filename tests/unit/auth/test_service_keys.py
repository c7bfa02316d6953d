"""Service keys: their text, storage and verification."""

from __future__ import annotations

import asyncio
import hmac
import re
import string
from typing import Any

import pytest

from auth.errors import BadKey, RefusedKey, UnknownKey
from auth.key_texts import KEY, checksum_of, digest_of, new_id, new_text, read
from auth.service_keys import MOST_CIDRS, MOST_KEYS, USED_EVERY_S, NewKey, ServiceKeys
from tests.fake_redis import fake_redis

HERE = "203.0.113.7"


class Office:
    """Keys in a Redis that counts commands, and the same keys as another worker sees them."""

    def __init__(self) -> None:
        self.redis = fake_redis().execute_command
        self.commands: list[Any] = []
        self.now_s = 1_800_000_000.0
        self.keys, self.elsewhere = self.worker(), self.worker()

    def worker(self) -> ServiceKeys:
        return ServiceKeys(self.execute, post=self.post, now=lambda: self.now_s)

    async def execute(self, *words: Any) -> Any:
        self.commands.append(words)
        return await self.redis(*words)

    def post(self, *words: Any) -> None:
        self.commands.append(words)

    async def add(self, name: str = "billing", **rest: Any) -> tuple[str, str]:
        key, text = await self.keys.add(NewKey(name, ["usage:read-any"], **rest), by="cli")
        self.commands.clear()
        return key.id, text

    async def why(self, keys: ServiceKeys, text: str, address: str = HERE) -> str:
        """Return why a worker refuses a key; empty if it does not."""
        try:
            await keys.verify(text, address)
        except RefusedKey as error:
            return error.why
        return ""


@pytest.fixture
def office() -> Office:
    return Office()


# --- its text ---


def test_text_begins_with_the_id_and_ends_with_a_checksum_as_documented() -> None:
    key_id = new_id()
    text = new_text(key_id)
    assert re.fullmatch(r"gwk_[a-z2-7]{12}_[0-9A-Za-z]{38}", text)
    assert text.startswith(f"{key_id}_")
    assert text[-6:] == checksum_of(text[:-6])
    assert read(text) == (key_id, digest_of(text))
    assert len({new_text(key_id) for _ in range(100)}) == 100


def test_checksum_is_crc32_in_base_62() -> None:
    # CRC-32/ISO-HDLC's check value of "123456789" is 0xCBF43926 (catalogue of parametrised CRC algorithms).
    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    text = checksum_of("123456789")
    assert text == "3jZRME"
    assert sum(digits.index(digit) * 62**place for place, digit in enumerate(reversed(text))) == 0xCBF43926
    assert checksum_of("") == "000000"


@pytest.mark.parametrize("at", [0, 5, 16, 17, 30, -7, -6, -1])
def test_one_wrong_character_is_refused_without_a_question_to_redis(at: int) -> None:
    text = new_text(new_id())
    other = "a" if text[at] != "a" else "b"
    wrong = text[: at % len(text)] + other + text[at % len(text) + 1 :]
    with pytest.raises(RefusedKey) as refused:
        read(wrong)
    assert refused.value.why == "malformed"


@pytest.mark.parametrize("wrong", ["gwk_", "gwk_abc", "x", "", "gwk_" + "a" * 12 + "_" + "é" * 38, "gwk_" + "a" * 5000])
def test_what_has_not_the_form_of_a_key_is_refused(wrong: str) -> None:
    with pytest.raises(RefusedKey):
        read(wrong)
    assert not KEY.fullmatch(wrong)


# --- making and changing ---


async def test_redis_holds_a_digest_and_never_the_key(office: Office) -> None:
    key_id, text = await office.add(cidrs=["203.0.113.0/24"])
    row = await office.redis("HGETALL", f"sk:1:{{{key_id}}}")
    assert row[b"digest"] == digest_of(text).encode()
    assert text[17:] not in str(row)
    key = await office.keys.get(key_id)
    assert (key.name, key.scopes, key.status, key.created_by) == ("billing", {"usage:read-any"}, "active", "cli")
    assert text[17:] not in repr(key)
    assert digest_of(text) not in repr(key)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "gwk_abcdefghijkl"}, "name"),
        ({"expires_ms": 1}, "expires_at"),
        ({"cidrs": ["203.0.113.0/99"]}, "cidrs"),
        ({"cidrs": ["203.0.113.1/24"]}, "cidrs"),
        ({"cidrs": ["everywhere"]}, "cidrs"),
        ({"cidrs": [f"10.0.0.{n}/32" for n in range(MOST_CIDRS + 1)]}, "cidrs"),
    ],
)
async def test_wrong_properties_are_refused_by_name(office: Office, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(BadKey) as refused:
        await office.add(**{"name": "billing"} | wrong)
    assert refused.value.field == field
    assert await office.keys.all() == []


async def test_two_active_keys_never_share_a_name(office: Office) -> None:
    first, _ = await office.add()
    with pytest.raises(BadKey, match="there is a key named 'billing'"):
        await office.add()
    await office.keys.revoke(first)
    office.now_s += 1
    second, _ = await office.add()
    assert (await office.keys.find("billing")).id == second
    assert [key.id for key in await office.keys.all()] == [first, second]


async def test_keys_of_one_name_that_are_made_at_once_never_stay_side_by_side(office: Office) -> None:
    """A key that is revoked by its name must not have a twin that goes on."""
    new = NewKey("billing", ["usage:read-any"])
    makers = [office.worker().add(new, by="cli") for _ in range(8)]
    made = [one for one in await asyncio.gather(*makers, return_exceptions=True) if not isinstance(one, BadKey)]
    assert len(made) <= 1
    assert len(await office.keys.all()) == len(made)
    if not made:
        await office.add("billing")


async def test_number_of_keys_is_bounded(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auth.service_keys.MOST_KEYS", 2)
    assert MOST_KEYS == 1000
    await office.add("one")
    await office.add("two")
    with pytest.raises(BadKey, match="there may be 2 keys"):
        await office.add("three")


async def test_key_that_was_not_confirmed_is_removed(office: Office) -> None:
    async def write(*words: Any) -> Any:
        await office.redis(*words)
        raise OSError("the disk did not confirm")

    keys = ServiceKeys(office.redis, write=write)
    with pytest.raises(OSError, match="did not confirm"):
        await keys.add(NewKey("billing", ["audit:read"]), by="cli")
    assert await office.redis("KEYS", "*") == []


async def test_every_change_is_written_durably(office: Office) -> None:
    written: list[Any] = []

    async def write(*words: Any) -> Any:
        written.append(words)
        return await office.redis(*words)

    keys = ServiceKeys(office.execute, write=write)
    key, _ = await keys.add(NewKey("billing", ["audit:read"]), by="cli")
    await keys.rotate(key.id)
    await keys.revoke(key.id)
    assert [words[0] for words in written] == ["ZADD", "EVAL", "EVAL", "EVAL"]
    changing = {"EVAL", "HSET", "ZADD", "DEL", "PEXPIRE", "ZREM"}
    assert [words[0] for words in office.commands if words[0] in changing] == []


async def test_unknown_keys_are_named_in_the_error(office: Office) -> None:
    for ask in (
        office.keys.find("nothing"),
        office.keys.get("gwk_abcdefghijkl"),
        office.keys.revoke("gwk_abcdefghijkl"),
    ):
        with pytest.raises(UnknownKey, match=r"nothing|gwk_abcdefghijkl"):
            await ask
    key_id, _ = await office.add()
    await office.keys.revoke(key_id)
    await office.keys.revoke(key_id)  # repeated, because the first might not be on disk
    with pytest.raises(UnknownKey):
        await office.keys.rotate(key_id)
    assert (await office.keys.get(key_id)).state(0) == "revoked"
    assert await office.redis("PTTL", f"sk:1:{{{key_id}}}") > 399 * 86_400_000


async def test_key_is_found_by_id_name_and_its_whole_text(office: Office) -> None:
    key_id, text = await office.add()
    for one in (key_id, "billing", text):
        assert (await office.keys.find(one)).id == key_id
    lost = new_text(new_id())
    with pytest.raises(UnknownKey) as unknown:
        await office.keys.find(lost)
    assert lost[:16] in str(unknown.value)
    assert lost[16:] not in str(unknown.value)


# --- verification ---


async def test_both_digests_are_compared_in_constant_time_whatever_the_first_one_says(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id, old = await office.add()
    new = await office.keys.rotate(key_id, overlap_s=60)
    key = await office.keys.get(key_id)
    compared: list[tuple[str, str]] = []
    compare = hmac.compare_digest

    def counted(one: str, other: str) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr("auth.service_keys.hmac.compare_digest", counted)
    for text, is_right in ((new, True), (old, True), (new_text(key_id), False)):
        compared.clear()
        assert key.matches(digest_of(text), key.created_ms) == is_right
        assert compared == [(digest_of(text), key.digest), (digest_of(text), key.old_digest)]


async def test_remembered_key_costs_no_question(office: Office) -> None:
    key_id, text = await office.add()
    assert (await office.keys.verify(text, HERE)).id == key_id
    assert len(office.commands) == 1
    assert (await office.keys.verify(text, HERE)).id == key_id
    assert len(office.commands) == 1


async def test_wrong_secret_of_a_known_key_is_refused_even_with_a_right_checksum(office: Office) -> None:
    key_id, text = await office.add()
    forged = new_text(key_id)
    assert await office.why(office.keys, text) == ""
    assert await office.why(office.keys, forged) == "secret"
    assert await office.why(office.keys, new_text(new_id())) == "unknown"
    with pytest.raises(RefusedKey) as refused:
        await office.keys.verify(forged, HERE)
    assert refused.value.key_id == key_id


async def test_guard_of_a_remembered_key_fails_after_every_change(office: Office) -> None:
    key_id, text = await office.add()
    for change in (office.keys.rotate(key_id, overlap_s=60), office.keys.revoke(key_id)):
        key, field, mark = (await office.keys.get(key_id)).guard
        assert await office.redis("HGET", key, field) == mark.encode()
        await change
        assert await office.redis("HGET", key, field) != mark.encode()
    assert text


async def test_other_worker_refuses_a_revoked_key_once_it_reads_it_anew(office: Office) -> None:
    key_id, text = await office.add()
    assert await office.why(office.elsewhere, text) == ""
    await office.keys.revoke(key_id)
    assert await office.why(office.keys, text) == "revoked"
    office.elsewhere.forget(key_id)  # as admission does when the guard fails
    assert await office.why(office.elsewhere, text) == "revoked"


async def test_rotation_ends_the_old_secret_at_once_or_after_the_overlap(office: Office) -> None:
    key_id, first = await office.add()
    second = await office.keys.rotate(key_id)
    assert await office.why(office.keys, first) == "secret"
    assert await office.why(office.keys, second) == ""
    third = await office.keys.rotate(key_id, overlap_s=60)
    assert [await office.why(office.keys, text) for text in (first, second, third)] == ["secret", "", ""]
    office.now_s += 60
    assert [await office.why(office.keys, text) for text in (second, third)] == ["secret", ""]


async def test_worker_that_remembers_a_key_learns_the_new_secret_by_itself(office: Office) -> None:
    key_id, first = await office.add()
    assert await office.why(office.elsewhere, first) == ""
    second = await office.keys.rotate(key_id)
    assert await office.why(office.elsewhere, second) == ""
    assert await office.why(office.elsewhere, first) == "secret"


async def test_expired_key_is_refused_although_it_is_remembered(office: Office) -> None:
    _, text = await office.add(expires_ms=int((office.now_s + 60) * 1000))
    assert await office.why(office.keys, text) == ""
    office.now_s += 59.9
    assert await office.why(office.keys, text) == ""
    office.now_s += 0.1
    assert await office.why(office.keys, text) == "expired"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("203.0.113.7", ""),
        ("203.0.114.7", "address"),
        ("2001:db8:1::5", ""),
        ("2001:db8:2::5", "address"),
        ("", "address"),
        ("not an address", "address"),
    ],
)
async def test_networks_of_a_key_are_enforced(office: Office, address: str, why: str) -> None:
    _, text = await office.add(cidrs=["203.0.113.0/24", "2001:db8:1::/48"])
    assert await office.why(office.keys, text, address) == why


@pytest.mark.parametrize(
    "damage", [("cidrs", "nonsense"), ("expires_ms", "soon"), ("status", "?"), ("mark", ""), ("digest", "")]
)
async def test_damaged_row_gives_no_rights(office: Office, damage: tuple[str, str]) -> None:
    key_id, text = await office.add(cidrs=["203.0.113.0/24"])
    await office.redis("HSET", f"sk:1:{{{key_id}}}", *damage)
    assert await office.why(office.keys, text) != ""


async def test_use_is_noted_at_most_once_a_minute(office: Office) -> None:
    key_id, text = await office.add()
    key = await office.keys.verify(text, HERE)
    office.commands.clear()
    office.keys.note_use(key)
    office.keys.note_use(key)
    assert office.commands == [("HSET", f"sk:1:{{{key_id}}}", "used_ms", int(office.now_s * 1000))]
    office.now_s += USED_EVERY_S
    office.keys.note_use(key)
    assert len(office.commands) == 2

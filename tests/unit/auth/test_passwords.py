"""Passwords: parameters and bounds; an unknown user cannot be distinguished from a wrong password."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from passlib.hash import argon2

from auth import passwords as module
from auth.errors import Busy
from auth.password_policy import PasswordPolicy
from auth.passwords import LANES, MAX_BYTES, MEMORY_KIB, PASSES, DamagedHash, Passwords

GOOD = "correct horse battery staple"


class Recorder:
    """Replaces the hasher: records what is verified, then calls the real one."""

    def __init__(self, real: object) -> None:
        self.real = real
        self.seen: list[str] = []

    def hash(self, secret: bytes) -> str:
        return self.real.hash(secret)  # type: ignore[attr-defined,no-any-return]

    def verify(self, secret: bytes, against: str) -> bool:
        self.seen.append(against)
        return self.real.verify(secret, against)  # type: ignore[attr-defined,no-any-return]


class Gate:
    """Replaces the hasher: every hash blocks its thread until the gate opens."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.running = self.most_running = 0
        self.lock = threading.Lock()

    def hash(self, secret: bytes) -> str:
        with self.lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        opened = self.open.wait(20)
        with self.lock:
            self.running -= 1
        assert opened, "the gate was never opened: the event loop was blocked"
        return secret.decode()


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


@pytest.fixture
def cheap() -> Iterator[Passwords]:
    """Passwords with cheap hashes, for tests of everything except the cost."""
    made = Passwords(memory_kib=8, passes=1)
    yield made
    made.close()


def gated(monkeypatch: pytest.MonkeyPatch, *, cores: int = 1, workers: int = 1) -> tuple[Passwords, Gate]:
    monkeypatch.setattr(module.os, "cpu_count", lambda: cores)
    made, gate = Passwords(workers=workers), Gate()
    made._hasher = gate
    return made, gate


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110  threads set no asyncio.Event
            await asyncio.sleep(0.002)


# --- hashing and verifying ---


async def test_a_hash_is_argon2id_with_the_parameters_of_the_specification(passwords: Passwords) -> None:
    assert (await passwords.hash(GOOD)).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_the_right_password_verifies_and_others_do_not(passwords: Passwords) -> None:
    stored = await passwords.hash(GOOD)
    assert await passwords.verify(GOOD, stored)
    for other in ("", GOOD + " ", " " + GOOD, GOOD[:-1], GOOD.upper(), GOOD + "\0"):
        assert not await passwords.verify(other, stored)


async def test_equal_passwords_have_different_hashes(cheap: Passwords) -> None:
    assert await cheap.hash(GOOD) != await cheap.hash(GOOD)


async def test_composed_and_decomposed_forms_of_a_password_are_equal(cheap: Passwords) -> None:
    stored = await cheap.hash("caf\u00e9 caf\u00e9 caf\u00e9")
    assert await cheap.verify("cafe\u0301 cafe\u0301 caf\u00e9", stored)


async def test_normalisation_is_only_canonical_so_look_alikes_stay_different(cheap: Passwords) -> None:
    assert not await cheap.verify("finally a password", await cheap.hash("\ufb01nally a password"))


@pytest.mark.parametrize("odd", ["\ud800", "a\udfffb", "\ud83d" + GOOD])
async def test_a_lone_surrogate_is_a_wrong_password_but_not_an_error(cheap: Passwords, odd: str) -> None:
    assert not await cheap.verify(odd, await cheap.hash(GOOD))
    assert not await cheap.verify(odd, None)


async def test_a_nul_neither_ends_a_password_nor_crashes(cheap: Passwords) -> None:
    stored = await cheap.hash(GOOD + "\0tail")
    assert await cheap.verify(GOOD + "\0tail", stored)
    assert not await cheap.verify(GOOD, stored)
    assert not await cheap.verify(GOOD + "\0liat", stored)


async def test_nothing_is_truncated_up_to_the_limit(cheap: Passwords) -> None:
    longest = "x" * (MAX_BYTES - 1)
    stored = await cheap.hash(longest + "a")
    assert await cheap.verify(longest + "a", stored)
    assert not await cheap.verify(longest + "b", stored)


@pytest.mark.parametrize("too_long", ["x" * (MAX_BYTES + 1), "é" * 600, "-" * 2000, "y" * 1_000_000])
async def test_a_password_beyond_the_limit_is_always_wrong(cheap: Passwords, too_long: str) -> None:
    for stored in [await cheap.hash("-"), await cheap.hash(too_long[:4000]), None]:
        assert not await cheap.verify(too_long, stored)
    assert not await cheap.verify(too_long[:4000], await cheap.hash(too_long[:4000]))


# --- unknown users and absurd hashes ---


async def test_an_unknown_user_also_takes_a_whole_hash(passwords: Passwords) -> None:
    stored = await passwords.hash(GOOD)
    passwords._hasher = recorder = Recorder(passwords._hasher)
    assert not await passwords.verify(GOOD, None)
    assert not await passwords.verify(GOOD + "!", stored)
    decoy, known = recorder.seen
    assert known == stored
    assert decoy != stored
    assert decoy.split("$")[:4] == stored.split("$")[:4]


async def test_the_password_of_the_decoy_is_refused(cheap: Passwords) -> None:
    await cheap.warm()
    assert not await cheap.verify("a decoy that no user has", None)


async def test_warming_twice_keeps_the_decoy(cheap: Passwords) -> None:
    await cheap.warm()
    decoy = cheap._decoy
    await cheap.warm()
    assert cheap._decoy == decoy != ""


ABSURD = [
    "m=4294967295,t=2,p=1",
    "m=1048577,t=2,p=1",
    "m=19456,t=17,p=1",
    "m=19456,t=4294967295,p=1",
    "m=19456,t=2,p=17",
    "m=19456,t=2,p=16777215",
    "m=99999999999,t=2,p=1",
    "m=19456,t=2",
    "t=2,m=19456,p=1",
    "m=-8,t=2,p=1",
    "m=19456 ,t=2,p=1",
    "m=１９４５６,t=2,p=1",
]


@pytest.mark.parametrize("parameters", ABSURD)
async def test_a_stored_hash_with_absurd_parameters_is_refused_before_it_allocates(
    cheap: Passwords, parameters: str
) -> None:
    stored = await cheap.hash(GOOD)
    absurd = stored.replace("m=8,t=1,p=1", parameters)
    assert absurd != stored
    cheap._hasher = recorder = Recorder(cheap._hasher)
    with pytest.raises(DamagedHash):
        await cheap.verify(GOOD, absurd)
    assert recorder.seen == [cheap._decoy]


@pytest.mark.parametrize(
    "stored",
    [
        "",
        GOOD,
        "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21l$c29tZWhhc2hzb21laGFzaA",
        "$argon2id$m=8,t=1,p=1$c29tZXNhbHRzb21l$c29tZWhhc2hzb21laGFzaA",
        "$2b$12$" + "a" * 53,
        "$5$rounds=999999999$salt$" + "a" * 43,
    ],
)
async def test_a_stored_text_of_another_kind_is_refused_like_an_unknown_user(cheap: Passwords, stored: str) -> None:
    cheap._hasher = recorder = Recorder(cheap._hasher)
    with pytest.raises(DamagedHash):
        await cheap.verify(GOOD, stored)
    assert recorder.seen == [cheap._decoy]


# --- rehashing ---


@pytest.mark.parametrize(
    ("parameters", "outdated"),
    [
        ("m=19456,t=2,p=1", False),
        ("m=65536,t=3,p=4", False),
        ("m=19456,t=3,p=1", False),
        ("m=19455,t=2,p=1", True),
        ("m=19456,t=1,p=1", True),
        ("m=65536,t=1,p=1", True),
        ("m=8,t=16,p=1", True),
    ],
)
def test_only_a_weaker_hash_is_outdated(passwords: Passwords, parameters: str, outdated: bool) -> None:
    assert passwords.is_outdated(f"$argon2id$v=19${parameters}$c29tZXNhbHRzb21l$c29tZWhhc2hzb21laGFzaA") is outdated


@pytest.mark.parametrize("stored", ["", "$2b$12$abc", "$argon2i$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA"])
def test_a_hash_of_another_kind_is_outdated(passwords: Passwords, stored: str) -> None:
    assert passwords.is_outdated(stored)


def test_the_configured_cost_decides_which_hashes_are_outdated() -> None:
    raised = Passwords(memory_kib=65536, passes=3)
    for parameters, outdated in {
        "m=65536,t=3": False,
        "m=65535,t=3": True,
        "m=65536,t=2": True,
        "m=99999,t=3": False,
    }.items():
        assert raised.is_outdated(f"$argon2id$v=19${parameters},p=1$c29tZXNhbHRzb21l$c29t") is outdated
    raised.close()


async def test_new_hashes_and_the_decoy_have_the_configured_cost() -> None:
    raised = Passwords(memory_kib=32768, passes=3)
    await raised.warm()
    for made in (await raised.hash(GOOD), raised._decoy):
        assert made.startswith("$argon2id$v=19$m=32768,t=3,p=1$")
    raised.close()


@pytest.mark.parametrize(
    ("replaced", "parameters"),
    [
        ("m=8,t=1,p=1", "m=16,t=2,p=1"),
        ("m=64,t=1,p=1", "m=64,t=2,p=1"),
        ("m=8,t=3,p=1", "m=16,t=3,p=1"),
        ("m=64,t=3,p=4", "m=64,t=3,p=1"),
        ("m=4294967295,t=1,p=1", "m=16,t=2,p=1"),  # beyond the accepted maximum
        ("m=8,t=4294967295,p=1", "m=16,t=2,p=1"),
    ],
)
async def test_a_hash_that_replaces_another_lowers_neither_memory_nor_passes(replaced: str, parameters: str) -> None:
    passwords = Passwords(memory_kib=16, passes=2)
    made = await passwords.hash(GOOD, replacing=f"$argon2id$v=19${replaced}$c29tZXNhbHRzb21l$c29tZWhhc2g")
    assert made.startswith(f"$argon2id$v=19${parameters}$")
    assert await passwords.verify(GOOD, made)
    assert (await passwords.hash(GOOD)).startswith("$argon2id$v=19$m=16,t=2,p=1$")
    passwords.close()


# --- bounds ---


class Counted:
    """Replaces the hasher: calls the real one and counts concurrent calls."""

    def __init__(self, real: object) -> None:
        self.real, self.running, self.most_running, self.lock = real, 0, 0, threading.Lock()

    def verify(self, secret: bytes, against: str) -> bool:
        with self.lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            return self.real.verify(secret, against)  # type: ignore[attr-defined,no-any-return]
        finally:
            with self.lock:
                self.running -= 1


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux reports the memory of a process this way")
async def test_fifty_parallel_verifications_use_only_the_memory_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(module, "_WAIT_S", 60)  # a machine with other work may take more than two seconds for all
    passwords = Passwords()
    stored = await passwords.hash(GOOD)
    await passwords.verify(GOOD, stored)
    passwords._hasher = counted = Counted(passwords._hasher)
    before_kib = most_kib = resident_kib()
    verifying = asyncio.gather(*(passwords.verify(GOOD if n % 2 else "wrong", stored) for n in range(50)))
    while not verifying.done():
        most_kib = max(most_kib, resident_kib())
        await asyncio.sleep(0.001)
    assert await verifying == [n % 2 == 1 for n in range(50)]
    assert counted.most_running == 2
    assert most_kib - before_kib < 2 * module.MEMORY_KIB + 8192  # fifty at once would take 950 MB
    passwords.close()


def test_the_queue_and_the_wait_match_the_specification() -> None:
    assert (module._QUEUE, module._WAIT_S) == (128, 2.0)


async def test_the_129th_caller_in_the_queue_gets_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, gate = gated(monkeypatch)
    accepted = [asyncio.create_task(passwords.hash(str(n))) for n in range(129)]  # one runs, 128 wait
    await until(lambda: gate.running)
    with pytest.raises(Busy):
        await passwords.hash("late")
    gate.open.set()
    assert await asyncio.gather(*accepted) == [str(n) for n in range(129)]


async def test_a_caller_that_has_waited_two_seconds_gets_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, gate = gated(monkeypatch)
    running = asyncio.create_task(passwords.hash("running"))
    await until(lambda: gate.running)
    begun = time.monotonic()
    with pytest.raises(Busy):
        await passwords.hash("late")
    assert 1.9 < time.monotonic() - begun < 4
    gate.open.set()
    assert await running == "running"


async def test_hashing_does_not_block_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, gate = gated(monkeypatch)
    hashing = asyncio.create_task(passwords.hash("a"))
    await until(lambda: gate.running)
    gate.open.set()  # reached only if the loop is free; otherwise the gate times out and the hash fails
    assert await hashing == "a"


@pytest.mark.parametrize(("cores", "workers", "at_once"), [(4, 2, 2), (4, 1, 4), (2, 8, 1), (1, 1, 1)])
async def test_the_workers_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, at_once: int
) -> None:
    passwords, gate = gated(monkeypatch, cores=cores, workers=workers)
    hashing = [asyncio.create_task(passwords.hash(str(n))) for n in range(12)]
    await until(lambda: gate.running == at_once)
    await asyncio.sleep(0.02)
    gate.open.set()
    assert await asyncio.gather(*hashing) == [str(n) for n in range(12)]
    assert gate.most_running == at_once


async def test_a_caller_that_finds_the_queue_full_gets_busy_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUEUE", 3)
    passwords, gate = gated(monkeypatch)
    accepted = [asyncio.create_task(passwords.hash(str(n))) for n in range(4)]  # one runs, three wait
    await until(lambda: gate.running)
    with pytest.raises(Busy) as caught:
        await passwords.hash("late")
    with pytest.raises(Busy):
        await passwords.verify("late", None)
    assert caught.value.retry_after_s == 2
    gate.open.set()
    assert await asyncio.gather(*accepted) == ["0", "1", "2", "3"]
    assert await passwords.hash("again") == "again"


async def test_a_caller_that_waits_too_long_gets_busy_and_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.05)
    monkeypatch.setattr(module, "_QUEUE", 2)
    passwords, gate = gated(monkeypatch)
    first = asyncio.create_task(passwords.hash("first"))
    await until(lambda: gate.running)
    for _ in range(5):
        begun = time.monotonic()
        with pytest.raises(Busy):
            await passwords.hash("late")
        assert time.monotonic() - begun >= 0.045
    gate.open.set()
    assert await first == "first"
    monkeypatch.setattr(module, "_WAIT_S", 10)
    assert await asyncio.gather(passwords.hash("b"), passwords.hash("c")) == ["b", "c"]


async def test_a_cancelled_caller_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUEUE", 2)
    passwords, gate = gated(monkeypatch)
    running = asyncio.create_task(passwords.hash("running"))
    await until(lambda: gate.running)
    gone = [asyncio.create_task(passwords.hash("gone")) for _ in range(2)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    waiting = [asyncio.create_task(passwords.hash(str(n))) for n in range(2)]
    await asyncio.sleep(0)
    gate.open.set()
    assert await asyncio.gather(running, *waiting) == ["running", "0", "1"]


async def test_a_running_hash_of_a_cancelled_caller_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, gate = gated(monkeypatch)
    gone = asyncio.create_task(passwords.hash("gone"))
    await until(lambda: gate.running)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    gate.open.set()
    assert await passwords.hash("next") == "next"
    assert gate.most_running == 1


@pytest.mark.parametrize(
    "damaged", ["$argon2id$v=19$m=19456,t=2,p=1$garbage", "$argon2id$v=19$m=0,t=0,p=0$YWFhYWFhYWE$YQ"]
)
async def test_a_damaged_hash_matches_no_password(damaged: str) -> None:
    passwords = Passwords()
    with pytest.raises(DamagedHash):
        await passwords.verify("a long enough passphrase", damaged)
    passwords.close()


# --- the cost of judging a new password ---

SENTENCES = "correct horse battery staple, " * 40
LONGEST = [
    "x" * 1024,
    "ab" * 512,
    "a" * 1023 + "b",
    SENTENCES[:1024],
    "\ufdfa" * 341,
    "é" * 512,
    "abcdefghijklmno" * 68,
]


def quickest_s(work: Callable[[], object]) -> float:
    """Return the best time of twenty, because other work on the machine can only add to it."""

    def took_s() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return min(took_s() for _ in range(20))


@pytest.fixture(scope="module")
def cheapest_hash_s() -> float:
    hasher = argon2.using(type="ID", memory_cost=MEMORY_KIB, time_cost=PASSES, parallelism=LANES)
    return quickest_s(lambda: hasher.hash(GOOD))


@pytest.mark.parametrize("password", LONGEST, ids=lambda password: password[:4])
def test_judging_the_longest_password_takes_at_most_a_tenth_of_the_cheapest_hash(
    password: str, cheapest_hash_s: float
) -> None:
    policy = PasswordPolicy()
    policy.reasons("the lists are loaded")
    assert quickest_s(lambda: policy.reasons(password, "margaret.h")) <= cheapest_hash_s / 10

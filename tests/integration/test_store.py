"""The store on a real Valkey: pipelining, scripts, cancelled callers, outages."""

import asyncio
import gc
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoScriptError, ResponseError

from gateway.redis import store as store_module
from gateway.redis.refusals import reply_text
from gateway.redis.store import Store, StoreError, connect
from tests.fake_redis import fake_redis
from tests.servers import HOST, LockedValkey, Valkey, free_port

INCREMENT = "return redis.call('INCR', KEYS[1])"
DEADLINE_S = 0.2


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    """A server that a test may pause and kill."""
    with Valkey(tmp_path) as server:
        yield server


@pytest.fixture
async def hasty(own: Valkey) -> AsyncIterator[Store]:
    """A connected store of that server with a short deadline."""
    store = Store(connect(own.url), deadline_s=DEADLINE_S)
    assert await store.execute("PING") == b"PONG"
    yield store
    await store.close()
    gc.collect()  # an unclosed connection would cause a warning here, which is an error


async def recovered(store: Store) -> None:
    """Wait until the store has recovered by itself."""
    async with asyncio.timeout(15):
        while True:
            try:
                assert await store.execute("ECHO", "recovered") == b"recovered"
            except StoreError:
                await asyncio.sleep(0.02)
            else:
                return


async def outcomes(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def all_failed(results: list[Any]) -> bool:
    return bool(results) and all(type(result) is StoreError for result in results)


def stats(valkey: Valkey) -> dict[str, Any]:
    with valkey.client() as client:
        found: dict[str, Any] = client.info("stats") | client.info("commandstats")
    return found


def calls_of(valkey: Valkey, command: str) -> tuple[int, int]:
    """Return how often the server executed a command, and how often it failed."""
    found = stats(valkey).get(f"cmdstat_{command}", {"calls": 0, "failed_calls": 0})
    return found["calls"], found["failed_calls"]


def reads(valkey: Valkey) -> Callable[[], int]:
    """Return a function that returns how many reads the server has needed since, without its own."""

    def total() -> int:
        with valkey.client() as client:
            return int(client.info("stats")["total_reads_processed"])

    first = total()
    own_reads = total() - first  # the reads for connecting and asking
    begun = first + own_reads
    return lambda: total() - begun - own_reads


# --- pipelining ---


async def test_commands_of_one_turn_are_sent_in_one_write(store: Store, valkey: Valkey) -> None:
    await store.execute("PING")
    since = reads(valkey)
    assert since() == 0
    since = reads(valkey)
    assert await asyncio.gather(*(store.execute("ECHO", str(n)) for n in range(300))) == [
        str(n).encode() for n in range(300)
    ]
    assert since() == 1


async def test_commands_of_different_turns_do_not_wait_for_one_another(store: Store, valkey: Valkey) -> None:
    await store.execute("PING")
    since = reads(valkey)
    for n in range(3):
        await store.execute("ECHO", str(n))
    assert since() == 3


async def test_a_cold_store_opens_one_connection_for_all_its_callers(redis_url: str, valkey: Valkey) -> None:
    store = Store(connect(redis_url), deadline_s=5)
    with valkey.client() as client:
        before = int(client.info("stats")["total_connections_received"])
        replies = await asyncio.gather(*(store.execute("ECHO", str(n)) for n in range(100)))
        after = int(client.info("stats")["total_connections_received"])
    await store.close()
    assert replies == [str(n).encode() for n in range(100)]
    assert after - before == 1


async def test_replies_of_any_size_reach_the_right_callers(store: Store) -> None:
    sizes = [0, 1, 70_000, 3, 3_000_000, 0, 20, 500_000]
    bodies = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
    assert await asyncio.gather(*(store.execute("ECHO", body) for body in bodies)) == bodies


async def test_the_redis_of_unit_tests_replies_like_a_real_one(store: Store) -> None:
    async def replies(execute: Any) -> list[Any]:
        return [
            await execute("SET", "k", "1"),
            await execute("SET", "k", "2", "NX"),
            await execute("HSET", "h", "a", "1"),
            await execute("HGETALL", "h"),
            await execute("HGETALL", "none"),
            await execute("HMGET", "h", "a", "b"),
            await execute("ZADD", "z", 5, "m"),
            await execute("ZSCORE", "z", "m"),
            await execute("ZRANGE", "z", 0, -1, "WITHSCORES"),
            await execute("ZRANGEBYSCORE", "z", "-inf", "+inf", "WITHSCORES"),
            await execute("ZREVRANGE", "z", 0, -1, "WITHSCORES"),
            await execute("XADD", "s", "1-1", "entry", "v"),
            await execute("XREVRANGE", "s", "+", "-"),
            await execute("EXISTS", "k"),
            await execute("EXPIRE", "k", 9),
            await execute("EVAL", "return {1, 'a', false}", 0),
        ]

    real = await replies(store.execute)
    assert await replies(fake_redis().execute_command) == real
    assert real[3:5] + real[7:9] == [{b"a": b"1"}, {}, 5.0, [[b"m", 5.0]]]


async def test_commands_of_one_caller_are_executed_in_their_order(store: Store) -> None:
    await asyncio.gather(*(store.execute("RPUSH", "list", n) for n in range(500)))
    assert await store.execute("LRANGE", "list", 0, -1) == [str(n).encode() for n in range(500)]


async def test_a_refused_command_reaches_only_its_caller(store: Store) -> None:
    await store.execute("SET", "text", "abc")
    first, wrong_type, unknown, too_few, last = await outcomes(
        store.execute("GET", "text"),
        store.execute("LPUSH", "text", "x"),
        store.execute("NOSUCHCOMMAND"),
        store.execute("GET"),
        store.execute("ECHO", "last"),
    )
    assert (first, last) == (b"abc", b"last")
    for error in (wrong_type, unknown, too_few):
        assert isinstance(error, ResponseError)
    assert "WRONGTYPE" in str(wrong_type)
    assert await store.execute("PING") == b"PONG"


# --- scripts ---


async def test_failures_that_nobody_awaited_are_not_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    sent = [store.execute("NOSUCHCOMMAND") for _ in range(3)]
    with pytest.raises(ResponseError):
        await sent[0]
    del sent
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_an_unknown_script_is_sent_once_in_full_and_then_by_its_hash(store: Store, valkey: Valkey) -> None:
    with valkey.client() as client:
        client.script_flush()
        client.config_resetstat()
    assert await store.execute("EVAL", INCREMENT, 1, "n") == 1
    assert (calls_of(valkey, "evalsha"), calls_of(valkey, "eval")) == ((1, 1), (1, 0))
    for n in range(2, 12):
        assert await store.execute("EVAL", INCREMENT, 1, "n") == n
    assert (calls_of(valkey, "evalsha"), calls_of(valkey, "eval")) == ((11, 1), (1, 0))


async def test_concurrent_first_calls_of_a_script_are_each_executed_once(store: Store, valkey: Valkey) -> None:
    with valkey.client() as client:
        client.script_flush()
    replies = await asyncio.gather(*(store.execute("EVAL", INCREMENT, 1, "n") for _ in range(100)))
    assert sorted(replies) == list(range(1, 101))


async def test_scripts_flushed_meanwhile_are_sent_again_and_nothing_runs_twice(store: Store) -> None:
    async def caller(n: int) -> int:
        for _ in range(n % 7):
            await asyncio.sleep(0)
        if n % 50 == 25:
            await store.execute("SCRIPT", "FLUSH")
        return int(await store.execute("EVAL", INCREMENT, 1, "n"))

    replies = await asyncio.gather(*(caller(n) for n in range(1000)))
    assert sorted(replies) == list(range(1, 1001))


async def test_an_error_within_a_script_reaches_its_caller_and_is_not_retried(store: Store) -> None:
    broken = "redis.call('INCR', KEYS[1]) return redis.error_reply('ERR on purpose')"
    error, beside = await outcomes(store.execute("EVAL", broken, 1, "n"), store.execute("ECHO", "beside"))
    assert isinstance(error, ResponseError)
    assert "on purpose" in str(error)
    assert beside == b"beside"
    assert await store.execute("GET", "n") == b"1"


async def test_an_unknown_hash_sent_by_a_caller_is_that_callers_error(store: Store) -> None:
    with pytest.raises(NoScriptError):
        await store.execute("EVALSHA", "0" * 40, 0)


async def test_a_cancelled_caller_of_an_unknown_script_shifts_no_reply(store: Store) -> None:
    for n in range(50):
        script = f"return 'script {n}'"
        calls = [store.execute("EVAL", script, 0) for _ in range(4)]
        for _ in range(n % 6):
            await asyncio.sleep(0)
        calls[0].cancel()
        calls[2].cancel()
        echo = store.execute("ECHO", str(n))
        assert (await outcomes(*calls[1::2], echo)) == [f"script {n}".encode()] * 2 + [str(n).encode()]


# --- cancelled callers ---


async def test_ten_thousand_callers_never_get_each_others_replies_although_half_are_cancelled(store: Store) -> None:
    chance = random.Random(20260101)
    answered = 0
    for wave in range(20):
        calls = {word: store.execute("ECHO", word) for word in (f"{wave}-{n}" for n in range(500))}
        words = list(calls)
        chance.shuffle(words)
        leaving, staying = words[:250], words[250:]
        for word in leaving:  # some before they are sent, some while they wait, some perhaps after
            if chance.random() < 0.05:
                await asyncio.sleep(0 if chance.random() < 0.8 else 0.001)
            calls[word].cancel()
        for word in staying:
            assert await calls[word] == word.encode()
            answered += 1
        gone = await outcomes(*(calls[word] for word in leaving))
        for word, outcome in zip(leaving, gone, strict=True):
            assert isinstance(outcome, asyncio.CancelledError) or outcome == word.encode()
    assert answered == 5000
    assert await store.execute("ECHO", "after") == b"after"


async def test_callers_with_their_own_timeout_shift_no_reply(store: Store) -> None:
    async def hasty_caller(n: int) -> bool:
        try:
            async with asyncio.timeout(n % 5 / 1000):
                assert await store.execute("ECHO", f"hasty {n}") == f"hasty {n}".encode()
        except TimeoutError:
            return False
        return True

    async def patient(n: int) -> bool:
        return await store.execute("ECHO", f"patient {n}") == f"patient {n}".encode()

    for _ in range(5):
        results = await asyncio.gather(*(hasty_caller(n) if n % 2 else patient(n) for n in range(400)))
        assert all(results[::2])


# --- outages ---


async def test_a_server_that_stops_answering_fails_every_caller_and_recovers(
    own: Valkey, hasty: Store, caplog: pytest.LogCaptureFixture
) -> None:
    own.pause()
    begun = time.monotonic()
    assert all_failed(await outcomes(*(hasty.execute("ECHO", f"lost {n}") for n in range(200))))
    assert hasty.failures == 200
    assert DEADLINE_S * 0.9 <= time.monotonic() - begun < 10
    for _ in range(3):  # the kernel still accepts connections; each caller waits at most for their own deadline
        begun = time.monotonic()
        assert all_failed(await outcomes(*(hasty.execute("ECHO", f"lost {n}") for n in range(20))))
        assert time.monotonic() - begun < 10
    own.resume()
    await recovered(hasty)
    # Replies to abandoned commands arrive on no connection of ours.
    words = [f"found {n}".encode() for n in range(200)]
    assert await asyncio.gather(*(hasty.execute("ECHO", word) for word in words)) == words
    logged = [record.getMessage() for record in caplog.records if record.name == "gateway.store"]
    assert len([text for text in logged if "unavailable" in text]) == 1
    assert len([text for text in logged if "available again" in text]) == 1


async def test_an_abandoned_connection_is_closed(own: Valkey, hasty: Store) -> None:
    gc.disable()  # the garbage collector must not close it
    try:
        own.pause()
        assert all_failed(await outcomes(hasty.execute("PING")))
        own.resume()
        await recovered(hasty)
        with own.client() as client:
            async with asyncio.timeout(10):
                while len(client.client_list()) > 2:  # noqa: ASYNC110  the store's one, and the one that asks
                    await asyncio.sleep(0.02)
    finally:
        gc.enable()


async def test_new_callers_do_not_prolong_the_wait_of_earlier_ones(own: Valkey, hasty: Store) -> None:
    own.pause()
    first = hasty.execute("PING")
    newcomers = []
    begun = time.monotonic()
    while not first.done() and time.monotonic() - begun < 10:
        newcomers.append(hasty.execute("PING"))
        await asyncio.sleep(DEADLINE_S / 10)
    waited_s = time.monotonic() - begun
    own.resume()
    assert isinstance((await outcomes(first))[0], StoreError)
    assert waited_s < 9
    await outcomes(*newcomers)
    await recovered(hasty)


async def test_an_abandoned_write_is_not_sent_again(own: Valkey, hasty: Store) -> None:
    own.pause()
    assert all_failed(await outcomes(*(hasty.execute("EVAL", INCREMENT, 1, "n") for _ in range(5))))
    own.resume()
    await recovered(hasty)
    assert int(await hasty.execute("GET", "n") or 0) <= 5
    assert await hasty.execute("EVAL", INCREMENT, 1, "other") == 1


async def test_a_killed_server_fails_waiting_callers_at_once_and_new_ones_too(own: Valkey) -> None:
    store = Store(connect(own.url), deadline_s=60)
    await store.execute("PING")
    own.pause()
    waiting = [store.execute("PING") for _ in range(50)]
    await asyncio.sleep(0.05)
    begun = time.monotonic()
    own.kill()
    assert all_failed(await outcomes(*waiting))
    for _ in range(20):
        assert all_failed(await outcomes(store.execute("PING"), store.execute("PING")))
    assert time.monotonic() - begun < 20  # a third of the deadline: no caller waited for it
    await store.close()


async def test_a_restarted_server_is_found_again_by_the_same_store(
    own: Valkey, hasty: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3):
        assert await hasty.execute("EVAL", INCREMENT, 1, f"n{n}") == 1
        own.kill()
        assert all_failed(await outcomes(*(hasty.execute("PING") for _ in range(10))))
        own.start()
        await recovered(hasty)
    logged = [record.getMessage() for record in caplog.records if record.name == "gateway.store"]
    assert len([text for text in logged if "unavailable" in text]) == 3


async def test_a_connection_closed_by_the_server_is_replaced(own: Valkey, hasty: Store) -> None:
    for n in range(5):
        with own.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.02)  # the end of the stream arrives before the next command
        await recovered(hasty)
        assert await hasty.execute("ECHO", str(n)) == str(n).encode()


async def test_a_reply_to_no_command_ends_the_connection_and_reaches_no_caller(own: Valkey, hasty: Store) -> None:
    link = hasty._link
    assert link is not None
    asking = hasty.execute("ECHO", "mine")
    await asyncio.sleep(0)  # it is sent
    link.data_received(b"$6\r\nothers\r\n$6\r\nothers\r\n")
    assert all_failed(await outcomes(asking))
    await recovered(hasty)
    assert await hasty.execute("ECHO", "mine") == b"mine"


async def test_a_busy_event_loop_is_not_reported_as_an_outage_of_redis(hasty: Store) -> None:
    for _ in range(3):
        asking = hasty.execute("ECHO", "patience")
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(DEADLINE_S * 2)  # noqa: ASYNC251  the point: the loop is blocked beyond the deadline
        assert await asking == b"patience"


async def test_a_server_that_never_existed_fails_fast(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(connect(f"redis://{HOST}:{free_port()}/0"), deadline_s=60)
    begun = time.monotonic()
    for _ in range(5):
        assert all_failed(await outcomes(*(store.execute("PING") for _ in range(10))))
    assert time.monotonic() - begun < 20
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    await store.close()


async def test_a_post_is_sent_with_the_next_flush_and_its_failure_affects_no_caller(
    own: Valkey, hasty: Store, caplog: pytest.LogCaptureFixture
) -> None:
    since = reads(own)
    hasty.post("SET", "posted", "1")
    assert await hasty.execute("GET", "posted") == b"1"
    assert since() == 1
    hasty.post("LPUSH", "posted", "a wrong type")
    hasty.post("NOSUCHCOMMAND")
    assert await hasty.execute("ECHO", "beside") == b"beside"
    own.kill()
    hasty.post("SET", "posted", "2")
    await asyncio.sleep(0.05)
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_while_redis_is_unreachable_calls_fail_at_once_and_soon_one_probes(own: Valkey, hasty: Store) -> None:
    assert hasty.state == "closed"
    own.pause()
    assert all_failed(await outcomes(*(hasty.execute("PING") for _ in range(200))))
    assert hasty.state == "open"
    calls = [hasty.execute("PING") for _ in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert sum(call.done() for call in calls) >= 49  # all except one, which may probe
    assert all_failed(await outcomes(*calls))
    own.resume()
    await recovered(hasty)
    assert hasty.state == "closed"


# --- a server that is not scheduled for a while (SIGSTOP), under load ---

PATIENT_S = 1.0  # four times the default, as are the stops: a busy machine prolongs each by tenths of a second
CALLERS = 16


class Load:
    """Callers that send calls continuously; records when each call ended, its duration and whether it failed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._calls: list[tuple[float, float, bool]] = []
        self._callers = [asyncio.create_task(self._ask()) for _ in range(CALLERS)]

    async def _ask(self) -> None:
        while True:
            begun = time.monotonic()
            (result,) = await outcomes(self._store.execute("EVAL", INCREMENT, 1, "n"))
            ended = time.monotonic()
            assert isinstance(result, int | StoreError), result
            self._calls.append((ended, ended - begun, isinstance(result, StoreError)))
            await asyncio.sleep(0.001)

    def failed(self) -> list[float]:
        """Return how long each failed call waited."""
        return [waited_s for _, waited_s, failed in self._calls if failed]

    def answered_since(self, instant: float) -> int:
        return sum(ended > instant and not failed for ended, _, failed in self._calls)

    async def stop(self) -> None:
        for caller in self._callers:
            caller.cancel()
        await outcomes(*self._callers)


@pytest.fixture
async def patient(own: Valkey) -> AsyncIterator[Store]:
    store = Store(connect(own.url), deadline_s=PATIENT_S)
    await store.execute("PING")
    yield store
    own.resume()
    await store.close()


async def under_load(own: Valkey, store: Store, stop_s: float) -> tuple[Load, float]:
    """Stop the server for a while under load; return the load and the time at which the server resumed."""
    load = Load(store)
    await asyncio.sleep(0.3)
    own.pause()
    await asyncio.sleep(stop_s)
    own.resume()
    resumed = time.monotonic()
    await asyncio.sleep(0.5)
    return load, resumed


@pytest.mark.parametrize("part", [0.16, 0.48])  # 40 and 120 ms of 250 ms
async def test_a_stop_of_half_the_deadline_fails_no_call(own: Valkey, patient: Store, part: float) -> None:
    load, resumed = await under_load(own, patient, part * PATIENT_S)
    await load.stop()
    assert load.failed() == []
    assert load.answered_since(resumed) >= CALLERS


async def test_a_stop_just_over_the_deadline_fails_only_the_calls_that_waited_for_all_of_it(
    own: Valkey, patient: Store
) -> None:
    load, resumed = await under_load(own, patient, 1.6 * PATIENT_S)  # 400 ms of 250 ms
    await load.stop()
    assert 1 <= len(load.failed()) <= CALLERS  # the next call of each waited for the new connection
    assert min(load.failed()) >= PATIENT_S * 0.9
    assert load.answered_since(resumed) >= CALLERS
    assert patient.state == "closed"


async def test_a_longer_stop_opens_the_breaker_after_two_deadlines_and_calls_fail_at_once(
    own: Valkey, patient: Store
) -> None:
    load = Load(patient)
    async with asyncio.timeout(10):
        while load.answered_since(0) <= 4 * CALLERS:  # noqa: ASYNC110  so the share of failures would not open it
            await asyncio.sleep(0.005)
    own.pause()
    async with asyncio.timeout(10):
        while patient.state != "open":  # noqa: ASYNC110  what the test is about
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)  # the callers record their failures
    await load.stop()
    assert len(load.failed()) >= 2 * CALLERS
    begun = time.monotonic()
    assert all_failed(await outcomes(*(patient.execute("PING") for _ in range(20))))
    assert time.monotonic() - begun < PATIENT_S / 4
    own.resume()
    await recovered(patient)


async def test_commands_that_redis_refuses_do_not_look_like_an_outage(store: Store) -> None:
    errors = await outcomes(*(store.execute("NOSUCHCOMMAND") for _ in range(100)))
    assert all(isinstance(error, ResponseError) for error in errors)
    assert store.state == "closed"


# --- closing ---


REFUSALS = {
    "maxmemory is reached": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "OOM"),
    "a replica is missing": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
        "NOREPLICAS",
    ),
    "the server is a replica": (("REPLICAOF", HOST, "1"), ("REPLICAOF", "NO", "ONE"), "READONLY"),
}


@pytest.mark.parametrize(("begin", "end", "code"), REFUSALS.values(), ids=REFUSALS)
async def test_a_check_fails_while_redis_refuses_writes(
    own: Valkey, monkeypatch: pytest.MonkeyPatch, begin: tuple[str, ...], end: tuple[str, ...], code: str
) -> None:
    monkeypatch.setattr(store_module, "_PROBE_S", 0.0)
    store = Store(connect(own.url), deadline_s=2)
    await store.check()
    with own.client() as client:
        client.execute_command(*begin)
        with pytest.raises(ResponseError) as refused:
            await store.check()
        assert reply_text(refused.value).startswith(code + " ")
        client.execute_command(*end)
    await store.check()
    await store.close()


async def test_a_check_writes_once_a_second_at_most_and_its_key_expires(store: Store, valkey: Valkey) -> None:
    before = calls_of(valkey, "set")[0]
    for _ in range(20):
        await store.check()
    assert calls_of(valkey, "set")[0] - before <= 2
    assert await store.execute("KEYS", "*") == [b"pr:1"]
    assert 0 < await store.execute("TTL", "pr:1") <= 60


async def test_closing_fails_waiting_callers_and_can_be_repeated(own: Valkey, hasty: Store) -> None:
    own.pause()
    waiting = [hasty.execute("PING") for _ in range(5)]
    await asyncio.sleep(0.01)
    await hasty.close()
    assert all_failed(await asyncio.wait_for(outcomes(*waiting), 10))
    await hasty.close()
    own.resume()


async def test_a_store_that_never_connected_can_be_closed() -> None:
    await Store(connect(f"redis://{HOST}:{free_port()}/0"), deadline_s=5).close()


async def test_a_store_can_be_closed_while_it_connects(own: Valkey) -> None:
    store = Store(connect(own.url), deadline_s=5)
    own.pause()
    asking = store.execute("PING")
    await asyncio.sleep(0.05)
    await asyncio.wait_for(store.close(), 10)
    assert all_failed(await asyncio.wait_for(outcomes(asking), 10))
    own.resume()


# --- the password ---


def texts_of(error: BaseException | None) -> str:
    """Return everything that an error and its causes could reveal."""
    shown = ""
    while error:
        shown += f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__
    return shown


async def test_the_redis_password_never_appears_in_an_error_or_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with LockedValkey(tmp_path) as locked:
        good = Store(connect(locked.url), deadline_s=2)
        wrong_password = "wrong-" + locked.password
        wrong = Store(connect(locked.url.replace(locked.password, wrong_password)), deadline_s=2)
        missing = Store(connect(f"redis://{HOST}:{locked.port}/0"), deadline_s=2)
        assert await good.execute("PING") == b"PONG"
        refused = await outcomes(*(store.execute("PING") for store in (wrong, missing) for _ in range(3)))
        with locked.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        refused += [error for error in await outcomes(good.execute("PING")) if isinstance(error, Exception)]
        await recovered(good)
        locked.kill()
        refused += await outcomes(good.execute("PING"), wrong.execute("PING"))
        assert len(refused) >= 8
        assert all(isinstance(error, StoreError | redis.RedisError) for error in refused)
        shown = "".join(texts_of(error) for error in refused) + caplog.text
        shown += "".join(f"{store!r} {store}" for store in (good, wrong, missing))
        assert locked.password not in shown
        assert "unavailable" in caplog.text
        for store in (good, wrong, missing):
            await store.close()


async def test_a_word_that_cannot_be_encoded_fails_only_its_caller(store: Store) -> None:
    wrong, good, unicode = await asyncio.gather(
        store.execute("SET", "b", None), store.execute("PING"), store.execute("SET", "c", "\ud800"),
        return_exceptions=True,
    )  # fmt: skip
    assert good == b"PONG"
    assert isinstance(wrong, TypeError)
    assert isinstance(unicode, UnicodeError)
    assert store.state == "closed"

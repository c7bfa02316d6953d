"""Delivery of events: to every endpoint that wants them, again after failures, and never at the cost of another."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace

import pytest

from gateway.audit import Audit
from gateway.outgoing import messages
from gateway.outgoing import outbox as outbox_module
from gateway.outgoing.control import Outgoing, UnknownEndpoint
from gateway.outgoing.deliveries import EVERY_S, IDLE_S, Deliveries
from gateway.outgoing.messages import Announcer, Message
from gateway.outgoing.outbox import BACKOFF_S, Outbox
from gateway.outgoing.sender import NotSent
from gateway.policy.endpoints import EVENTS, Endpoint
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError
from tests.fake_redis import fake_redis

BILLING = Endpoint("billing", "https://billing.test/", EVENTS)
CRM = Endpoint("crm", "https://crm.test/", frozenset({"user.blocked"}))


class FakeSender:
    """Answers each endpoint with its status; a text means that nothing was answered."""

    def __init__(self) -> None:
        self.answers: dict[str, int | str] = {}
        self.sent: list[tuple[str, Message]] = []
        self.asked, self.release = asyncio.Event(), asyncio.Event()  # of the slow endpoint
        self.slow = ""

    async def send(self, endpoint: Endpoint, message: Message) -> int:
        if endpoint.name == self.slow:
            self.asked.set()
            await self.release.wait()
        self.sent.append((endpoint.name, message))
        answer = self.answers.get(endpoint.name, 200)
        if isinstance(answer, str):
            raise NotSent(answer)
        if answer < 0:
            raise ZeroDivisionError
        return answer

    async def close(self) -> None:
        pass


class Bench:
    def __init__(self, *endpoints: Endpoint) -> None:
        self.now_ms = 1_000_000_000_000
        self.redis = fake_redis()
        self.policy = PolicyInForce(replace(load_policy(), endpoints=endpoints))
        self.audit = Audit(self.redis.execute_command, announce=Announcer(self.policy))
        self.outbox = Outbox(self.redis.execute_command)
        self.sender = FakeSender()
        self.deliveries = self.restarted()
        self.operator = Outgoing(self.outbox, self.sender, self.policy, self.audit)  # type: ignore[arg-type]

    def restarted(self) -> Deliveries:
        return Deliveries(self.outbox, self.sender, self.policy, self.clock)  # type: ignore[arg-type]

    async def clock(self) -> int:
        return self.now_ms

    async def happen(self, action: str = "user.disabled", **details: str | int) -> None:
        await self.audit.record(action, by="B", subject="U", **details)

    async def block(self) -> None:
        await self.happen("limits.override", name="*", until_us=0)

    async def work(self, after_s: float = 0) -> list[tuple[str, Message]]:
        self.now_ms += int(after_s * 1000)
        before = len(self.sender.sent)
        await self.deliveries.work()
        await self.deliveries.settle()
        return self.sender.sent[before:]

    async def die(self) -> None:
        """Let every attempt at the one message fail."""
        for wait_s in (0, *BACKOFF_S):
            assert len(await self.work(wait_s)) == 1


@pytest.fixture
def bench() -> Bench:
    return Bench(BILLING, CRM)


async def test_an_event_reaches_each_endpoint_that_wants_it_once_and_with_the_same_id(bench: Bench) -> None:
    await bench.block()
    await bench.happen()
    sent = await bench.work()
    assert sorted((name, message.type) for name, message in sent) == [
        ("billing", "user.blocked"),
        ("billing", "user.disabled"),
        ("crm", "user.blocked"),
    ]
    assert len({message.id for _, message in sent}) == 2
    assert await bench.work(10) == []
    assert not await bench.redis.xlen(messages.INBOX)
    assert not await bench.redis.keys("o[qd]:1*")
    state = await bench.operator.state()
    assert [(one.name, one.waiting, one.delivered, one.failed, one.dead) for one in state] == [
        ("billing", 0, 2, 0, 0),
        ("crm", 0, 1, 0, 0),
    ]


async def test_nothing_is_stored_for_a_policy_whose_endpoints_do_not_want_it() -> None:
    bench = Bench(CRM)
    await bench.happen()
    assert not await bench.redis.exists(messages.INBOX)
    bench.policy.now = load_policy()
    await bench.block()
    assert not await bench.redis.exists(messages.INBOX)
    assert await bench.deliveries.work() == IDLE_S


async def test_a_failed_event_is_sent_again_with_the_same_id_and_body_until_it_is_a_dead_letter(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    assert BACKOFF_S == (5, 30, 120, 600, 3600, 21_600)
    bench.sender.answers["billing"] = 500
    await bench.happen()
    attempts = await bench.work()
    for wait_s in BACKOFF_S:
        assert await bench.work(wait_s - 0.1) == []
        attempts += await bench.work(0.1)
    assert len(attempts) == 7
    assert len({(message.id, message.body) for _, message in attempts}) == 1
    assert await bench.work(100_000) == []
    [letter], _ = await bench.operator.dead(size=10)
    assert (letter.endpoint, letter.why, letter.message.id) == ("billing", "answered 500", attempts[0][1].id)
    state = (await bench.operator.state())[0]
    assert (state.failed, state.dead, state.last_failure) == (7, 1, "answered 500")
    assert [record.levelno for record in caplog.records if record.name == "gateway.outgoing"] == [
        logging.WARNING,
        logging.ERROR,
    ]


@pytest.mark.parametrize("answer", [199, 301, 400, 404, 429, 500, 503, "no answer within 10 s", -1])
async def test_everything_but_2xx_is_a_failure(bench: Bench, answer: int | str) -> None:
    bench.sender.answers["billing"] = answer
    await bench.happen()
    assert len(await bench.work()) == 1
    bench.sender.answers["billing"] = 299
    assert len(await bench.work(5)) == 1
    assert await bench.work(30) == []


async def test_an_endpoint_that_does_not_answer_delays_no_other(bench: Bench) -> None:
    bench.sender.slow = "billing"
    for _ in range(3):
        await bench.block()
        assert await bench.deliveries.work() == EVERY_S
        await asyncio.sleep(0.01)
    assert [name for name, _ in bench.sender.sent] == ["crm"] * 3
    bench.sender.release.set()
    await bench.deliveries.settle()
    await bench.work()
    assert [name for name, _ in bench.sender.sent].count("billing") == 3


async def test_an_endpoint_that_is_down_gets_one_attempt_at_a_time_and_everything_once_it_works(bench: Bench) -> None:
    bench.sender.answers["billing"] = "no connection could be made"
    for _ in range(4):
        await bench.happen()
    assert len(await bench.work()) == 1
    assert len(await bench.work()) == 1
    bench.sender.answers.clear()
    assert len(await bench.work()) == 2
    assert len(await bench.work(5)) == 2


async def test_an_attempt_that_was_cut_off_by_the_end_of_the_process_is_made_again(bench: Bench) -> None:
    bench.sender.slow = "billing"
    await bench.happen()
    await bench.deliveries.work()
    await bench.sender.asked.wait()
    await bench.deliveries.close()
    assert bench.sender.sent == []
    bench.sender.slow, bench.deliveries = "", bench.restarted()
    assert len(await bench.work()) == 1


async def test_two_leaders_deliver_twice_but_count_and_keep_once(bench: Bench) -> None:
    await bench.happen()
    other = bench.restarted()
    await asyncio.gather(bench.deliveries.work(), other.work())
    await asyncio.gather(bench.deliveries.settle(), other.settle())
    assert 1 <= len(bench.sender.sent) <= 2
    assert await bench.work(100) == []
    assert (await bench.operator.state())[0].delivered == 1


async def test_a_failure_after_another_leader_has_delivered_changes_nothing(bench: Bench) -> None:
    await bench.happen()
    [(_, message)] = await bench.work()
    assert not await bench.outbox.failed("billing", message, "answered 500", bench.now_ms)
    await bench.outbox.bury("billing", message, "answered 500", bench.now_ms)
    await bench.outbox.delivered("billing", message, bench.now_ms)
    assert await bench.work(100_000) == []
    [state, _] = await bench.operator.state()
    assert (state.waiting, state.delivered, state.failed, state.dead) == (0, 1, 0, 0)
    assert await bench.operator.count_dead() == 0


async def test_what_two_processes_move_at_once_moves_once(bench: Bench) -> None:
    bench.sender.answers["billing"] = 410
    await bench.happen()
    [(place, message)] = await bench.outbox.arrived(10)
    assert len(await bench.work()) == 1
    await bench.outbox.share(place, message, ["billing"], bench.now_ms)
    assert await bench.work(10) == []
    [letter], _ = await bench.outbox.dead(size=10)
    assert [await bench.outbox.replay(letter, bench.now_ms) for _ in range(2)] == [True, False]


async def test_gone_ends_all_attempts_until_a_restart(bench: Bench) -> None:
    bench.sender.answers["billing"] = 410
    await bench.happen()
    await bench.happen()
    assert len(await bench.work()) == 1
    await bench.happen()
    assert await bench.work(30_000) == []
    letters, _ = await bench.operator.dead(size=10)
    assert [letter.why for letter in letters] == ["the endpoint has answered 410 Gone"] * 2 + ["answered 410"]
    assert (await bench.operator.state())[0].gone_ms is not None
    bench.sender.answers.clear()
    bench.deliveries = bench.restarted()
    await bench.happen()
    assert len(await bench.work()) == 1
    assert (await bench.operator.state())[0].gone_ms is None


async def test_a_full_queue_gives_to_the_dead_letters(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MOST_WAITING", 2)
    monkeypatch.setattr(outbox_module, "MOST_DEAD", 3)
    bench.sender.answers["billing"] = 500
    await bench.happen()
    await bench.happen()
    await bench.work()
    for _ in range(5):
        await bench.happen()
    await bench.work()
    letters, _ = await bench.operator.dead(size=10)
    assert [letter.why for letter in letters] == ["too many events waited"] * 3
    assert (await bench.operator.state())[0].waiting == 2


async def test_the_inbox_is_bounded(bench: Bench) -> None:
    [words] = [bench.audit._announce("user.disabled", {"by": "B", "subject": "U"})]  # type: ignore[misc]
    assert words is not None
    assert words[:5] == ("XADD", messages.INBOX, "MAXLEN", "~", messages.MOST_IN_INBOX)


async def test_what_is_no_event_leaves_the_inbox(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for text in (b"\xff", b"{}", b"null"):
        await bench.redis.execute_command("XADD", messages.INBOX, "*", "message", text)
    await bench.happen()
    assert len(await bench.work()) == 1
    assert not await bench.redis.xlen(messages.INBOX)
    assert caplog.text.count("cannot be read and is dropped") == 3


async def test_a_replayed_letter_has_all_its_attempts_and_its_id_and_is_audited(bench: Bench) -> None:
    bench.sender.answers["billing"] = "the connection failed"
    await bench.happen()
    await bench.die()
    [letter], _ = await bench.operator.dead(size=10)
    assert await bench.operator.replay(letter.id, by="cli")
    assert not await bench.operator.replay(letter.id, by="cli")
    for wrong in ("0-0", "x", "-", "+"):
        assert not await bench.operator.replay(wrong, by="cli")
    bench.now_ms = 10_000_000_000_000  # a replay is due now by the real clock
    [(_, again)] = await bench.work()
    assert (again.id, again.body, again.attempts) == (letter.message.id, letter.message.body, 0)
    [entry], _ = await bench.audit.page(size=1)
    assert (entry.action, entry.by) == ("webhooks.replayed", "cli")
    assert entry.details == {"endpoint": "billing", "letter": letter.id}
    for _ in BACKOFF_S:
        await bench.work(30_000)
    assert await bench.operator.replay_all(by="cli") == 1


async def test_letters_of_an_endpoint_that_the_policy_does_not_have_stay(bench: Bench) -> None:
    bench.sender.answers["billing"] = 410
    await bench.happen()
    await bench.work()
    [letter], _ = await bench.operator.dead(size=10)
    bench.policy.now = replace(load_policy(), endpoints=(CRM,))
    with pytest.raises(UnknownEndpoint, match="no endpoint 'billing'"):
        await bench.operator.replay(letter.id, by="cli")
    assert await bench.operator.replay_all(by="cli") == 0
    assert await bench.operator.count_dead() == 1


async def test_a_test_is_sent_once_at_once_and_says_what_was_answered(bench: Bench) -> None:
    trial = await bench.operator.test("crm", by="cli")
    assert (trial.delivered, trial.status, trial.failure) == (True, 200, "")
    [(name, message)] = bench.sender.sent
    assert (name, message.type, json.loads(message.body)["data"]) == ("crm", "webhook.test", {"endpoint": "crm"})
    bench.sender.answers["crm"] = "not sent: 10.0.0.1 is private"
    failed = await bench.operator.test("crm", by="cli")
    assert (failed.delivered, failed.status, failed.failure) == (False, None, "not sent: 10.0.0.1 is private")
    assert await bench.work(10) == []
    with pytest.raises(UnknownEndpoint):
        await bench.operator.test("x", by="cli")


async def test_an_outage_of_redis_ends_an_attempt_without_a_trace(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("no connection")

    await bench.happen()
    with monkeypatch.context() as broken:
        broken.setattr(bench.outbox, "delivered", fail)
        await bench.work()
    assert not [record for record in caplog.records if record.name.startswith("gateway")]
    assert len(await bench.work()) == 1, "it is made again"

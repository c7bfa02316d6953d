"""100ms hangs, resets connections, or answers what cannot be read."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.table import Row
from tests.chaos.trial import Expected, Measured, Trial, in_thread
from tests.servers import Installation

pytestmark = pytest.mark.alone


async def break_100ms(own: Installation, fault: str, seconds: float, expected: Expected) -> Measured:
    async with Trial(own) as trial:
        await trial.calm()
        trial.strike()
        await in_thread(lambda: own.break_upstream(fault))
        await asyncio.sleep(seconds)
        trial.repair()
        await in_thread(own.mend_upstream)
    return await trial.check(expected)


async def test_100ms_hangs(own: Installation, row: Row) -> None:
    """For 2 s, 100ms answers no request; the gateway waits for 5 s"""
    codes = ("upstream_timeout", "upstream_busy", "idempotency_conflict")
    measured = await break_100ms(
        own, "delay=30", 2, Expected(codes=codes, seen=["504 upstream_timeout"], actions={"create"}, slowest_s=6.5)
    )
    row(measured, may_lose="nothing")


async def test_100ms_resets_connections(own: Installation, row: Row) -> None:
    """100ms closes every connection for 1.2 s, without an answer"""
    codes = ("upstream_error", "upstream_busy", "idempotency_conflict")
    measured = await break_100ms(
        own, "reset", 1.2, Expected(codes=codes, seen=["502 upstream_error"], actions={"create"}, slowest_s=3)
    )
    row(measured, may_lose="nothing")


async def test_100ms_answers_garbage(own: Installation, row: Row) -> None:
    """For 1.2 s, 100ms answers with something that is not JSON"""
    codes = ("upstream_error", "upstream_busy", "idempotency_conflict")
    measured = await break_100ms(
        own, "garbage", 1.2, Expected(codes=codes, seen=["502 upstream_error"], actions={"create"}, slowest_s=3)
    )
    row(measured, may_lose="nothing")

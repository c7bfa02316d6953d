"""The contracts on a cluster, where every key may be on another server, and behind Sentinels.

In one module, so that one of each is started for all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina

from gateway.hms.calls import ATTEMPTS
from gateway.redis.topology import AnyStore
from gateway.usage.archive import Archive

# Tests that run here again, with their fixtures.
from tests.integration.test_acting import (  # noqa: F401
    test_concurrent_requests_never_exceed_either_limit,
    test_denial_by_the_user_gives_the_key_back_what_it_took,
    test_revoked_key_charges_no_user_on_any_worker,
    test_user_and_key_are_both_charged_and_counted,
    town,
)
from tests.integration.test_metering_consumer import (  # noqa: F401
    intake,
    owned,
    test_a_close_counts_whatever_else_a_batch_says_about_its_session,
    test_a_replayed_letter_is_processed_again,
    test_an_event_whose_consumer_died_between_two_credits_is_credited_once,
    test_events_become_minutes_and_are_forgotten,
    test_two_consumers_at_once_credit_each_event_once,
)
from tests.integration.test_usage_archive import (  # noqa: F401
    test_a_roll_up_copies_finished_days_once_and_changed_days_again,
    test_redis_forgets_months_that_are_copied_and_too_old_to_change,
)
from tests.unit.auth.test_account_changes import AccountChangesContract
from tests.unit.auth.test_accounts import AccountsContract
from tests.unit.auth.test_identities import IdentitiesContract
from tests.unit.auth.test_sessions import SessionsContract
from tests.unit.auth.test_vouchers import VouchersContract
from tests.unit.gateway.metering.stays_contract import StaysContract
from tests.unit.gateway.metering.upkeep_contract import UpkeepContract
from tests.unit.gateway.rooms.test_create import RoomCreationContract
from tests.unit.gateway.rooms.test_idempotency import IdempotencyContract
from tests.unit.gateway.rooms.test_invites import RoomInvitesContract
from tests.unit.gateway.rooms.test_locks import RoomLocksContract
from tests.unit.gateway.rooms.test_names import RoomNamesContract
from tests.unit.gateway.rooms.test_relations import MembersContract
from tests.unit.limits.contract import LimiterContract
from tests.unit.limits.metered_contract import MeteredContract

pytestmark = pytest.mark.topologies("cluster", "sentinels")


@pytest.fixture
def execute(store: AnyStore) -> Callable[..., Awaitable[Any]]:
    """What contracts send. What they ask about all keys is asked of every master."""

    async def everywhere(*words: Any) -> Any:
        replies = (await store.each(*words)).values()
        return [key for keys in replies for key in keys] if words[0] == "KEYS" else sum(map(int, replies))

    def send(*words: Any) -> Awaitable[Any]:
        if words[0] == "FLUSHALL":
            return store.each(*words)
        return everywhere(*words) if words[0] in ("KEYS", "DBSIZE") else store.execute(*words)

    return send


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    archive = Archive(f"sqlite:///{tmp_path}/usage.db")
    yield archive
    await archive.close()


class TestLimiter(LimiterContract):
    pass


class TestMetered(MeteredContract):
    pass


class TestAccounts(AccountsContract):
    # About hashes, and slow.
    test_a_damaged_hash_is_like_a_wrong_password_and_logged_once = None


class TestAccountChanges(AccountChangesContract):
    pass


class TestIdentities(IdentitiesContract):
    pass


class TestSessions(SessionsContract):
    pass


class TestVouchers(VouchersContract):
    pass


class TestRoomLocks(RoomLocksContract):
    pass


class TestRoomNames(RoomNamesContract):
    pass


class TestMembers(MembersContract):
    pass


class TestRoomInvites(RoomInvitesContract):
    pass


class TestIdempotency(IdempotencyContract):
    pass


class TestRoomCreation(RoomCreationContract):
    pass


class TestStays(StaysContract):
    pass


class TestUpkeep(UpkeepContract):
    @pytest.fixture(autouse=True)
    def impatient(self) -> Iterator[None]:
        with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
            yield

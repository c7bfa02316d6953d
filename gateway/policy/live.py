"""Follows the policy file while the gateway runs."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from auth.tokens import Principal
from gateway.policy.effective import policy_of
from gateway.policy.model import Policy
from gateway.policy.scopes import narrowed
from gateway.policy.tables import PolicyError
from gateway.settings import Settings
from gateway.threads import in_daemon_thread

log = logging.getLogger("gateway")

LOOK_S = 2.0
READ_S = 5.0  # a local file takes milliseconds; one on a network file system may take forever
_SETTLE_S = 0.2

Stamp = tuple[int, int, int, int] | None


class PolicyInForce:
    """The policy in force. Read `now` anew for each decision: the file may have changed in between."""

    def __init__(self, policy: Policy) -> None:
        self.now = policy

    def of(self, caller: Principal) -> Policy:
        """Return the policy as it applies to a caller; a service key has only the rights of its scopes."""
        return self.now if caller.key is None else narrowed(self.now, caller.key.scopes, acting=caller.is_acting)

    def zone(self) -> str:
        """Return the time zone in which usage is counted now."""
        return self.now.time_zone


class PolicyReload:
    """Follows the policy file of the settings. Each process has one; every worker follows the file by itself.

    The constructor notes the state of the file: construct it before the policy is read, so that no change is missed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.policy_path
        self._seen = stamp_of(self._path)
        self._wrong = False

    async def follow(self, policy: PolicyInForce, *, changed: Callable[[], None] = lambda: None) -> None:
        """Put each change into force within two seconds, then call `changed`; log a wrong file once. Never returns."""
        while self._path is not None:
            await asyncio.sleep(LOOK_S)
            try:
                read = await self._read()
            except PolicyError as error:
                self._wrong = True
                log.error("the policy file is wrong; the old policy stays in force: %s", error)
            except Exception:  # no error may end this task
                self._wrong = True
                log.exception("the policy file cannot be read; the old policy stays in force")
            else:
                # A file that was only touched holds the policy in force.
                if read is not None and (read != policy.now or self._wrong):
                    policy.now, self._wrong = read, False
                    log.warning("the policy has changed: %s", read.source)
                    changed()

    async def _read(self) -> Policy | None:
        """Look at the file in a thread. Waits as long as the thread takes, so that at most one thread waits."""
        looking = asyncio.wrap_future(in_daemon_thread(self._look, "policy"))
        try:
            if not (await asyncio.wait({looking}, timeout=READ_S))[0]:
                log.error("the policy file was not read within %g s; the old policy stays in force", READ_S)
            return await looking
        finally:
            looking.cancel()  # the thread may outlive the event loop

    def _look(self) -> Policy | None:
        """Return the policy of a file that has changed; None if it has not, or is being written. Blocks."""
        stamp = stamp_of(self._path)
        if stamp == self._seen:
            return None
        # It may be being written in place, and half a file can be a valid policy, but a wrong one.
        time.sleep(_SETTLE_S)
        if stamp_of(self._path) != stamp:
            return None
        self._seen = stamp
        return policy_of(self._settings)


def stamp_of(path: Path | None) -> Stamp:
    """Return what changes when a file is written, replaced or made readable; None without a file."""
    try:
        stat = path.stat() if path else None
    except OSError:
        stat = None
    return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino) if stat else None

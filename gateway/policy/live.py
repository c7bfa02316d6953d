"""The policy file while the gateway runs: a change is put in force, and what does not fit 100ms is reported."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from gateway.hms.client import HmsClient
from gateway.policy.effective import policy_of
from gateway.policy.file import PolicyError
from gateway.policy.model import Policy
from gateway.policy.templates import missing_roles
from gateway.settings import Settings

log = logging.getLogger("gateway")

LOOK_S = 2.0
_SETTLE_S = 0.2

Stamp = tuple[int, int, int, int] | None


class PolicyInForce:
    """The policy of this moment. Whoever decides reads `now` anew for each decision: the file may have been changed."""

    def __init__(self, policy: Policy) -> None:
        self.now = policy


class PolicyReload:
    """Follows the policy file of the settings. One for each process; every worker follows it by itself.

    It takes note of the file when it is made: make it before the policy is read, so that no change in between is lost.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.policy_path
        self._seen = stamp_of(self._path)
        self._wrong = False

    async def follow(self, policy: PolicyInForce, *, changed: Callable[[], None] = lambda: None) -> None:
        """Put each change in force within about two seconds, then call `changed`.

        A wrong file is logged once, and the old policy stays.
        """
        while self._path is not None:
            await asyncio.sleep(LOOK_S)
            stamp = stamp_of(self._path)
            if stamp == self._seen:
                continue
            # Somebody may be writing it in place: half a file can be a valid policy, and a wrong one.
            await asyncio.sleep(_SETTLE_S)
            if stamp_of(self._path) == stamp:
                self._seen = stamp
                if self._read(policy):
                    changed()

    def _read(self, policy: PolicyInForce) -> bool:
        """Read the file; tell whether there is another policy in force now."""
        try:
            read = policy_of(self._settings)
        except PolicyError as error:
            self._wrong = True
            log.error("the policy file is wrong and the old policy stays: %s", error)
            return False
        except Exception:  # whatever it is, it must not end the following
            self._wrong = True
            log.exception("the policy file cannot be read and the old policy stays")
            return False
        if read == policy.now and not self._wrong:  # somebody only touched it
            return False
        policy.now, self._wrong = read, False
        log.warning("the policy has changed: %s", read.source)
        return True


class TemplateWatch:
    """Warns of the roles that a policy names and a template lacks: whoever should join in one of them cannot."""

    def __init__(self, policy: PolicyInForce) -> None:
        self._policy = policy
        self._said: dict[str, tuple[str, ...]] = {}

    def look(self, hms: HmsClient) -> None:
        """Compare all templates that are known, and have the others asked for."""
        for template_id in set(self._policy.now.template_ids.values()):
            existing = hms.template_roles(template_id)
            if existing is not None:
                self.seen(template_id, existing)

    def seen(self, template_id: str, existing: frozenset[str]) -> None:
        """Compare a template as 100ms has it now; what was said of it already is not said again."""
        policy = self._policy.now
        for alias in sorted(alias for alias, known in policy.template_ids.items() if known == template_id):
            missing = missing_roles(policy, alias, existing)
            if missing and self._said.get(alias) != missing:
                log.warning(
                    "the policy names roles that template %s (%s) does not have: %s; it has %s."
                    " See gateway doctor and [templates.%s] of the policy",
                    template_id,
                    alias,
                    ", ".join(missing),
                    ", ".join(sorted(existing)) or "none",
                    alias,
                )
            self._said[alias] = missing


def stamp_of(path: Path | None) -> Stamp:
    """Return what changes when a file is written, replaced, or made readable; None if there is none."""
    try:
        stat = path.stat() if path else None
    except OSError:
        stat = None
    return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino) if stat else None

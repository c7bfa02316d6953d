"""Compares the 100ms roles in a policy with the roles of a template at 100ms."""

import json
import logging
import re
from collections.abc import Mapping

from gateway.hms.client import HmsClient
from gateway.hms.replies import HmsRole, HmsTemplate
from gateway.policy.file import built_in_text
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from gateway.policy.tables import INTERNAL, NAMES_ALLOWED, ROLE_NAME

log = logging.getLogger("gateway")

_OVER_OTHERS = frozenset({"endRoom", "removeOthers", "changeRole"})  # worse than powers that only cost money
_ORDINARY = ("participant", "viewer")
_SECTION = re.compile(r"^\[templates\.default\]\n(?:[a-z]+ = .*\n)+", re.MULTILINE)
_TITLE = "# The built-in policy. Copy this file, edit the copy, and point GATEWAY_POLICY at it.\n"


class NoMapping(Exception):
    """No mapping of a template's roles can be recommended. The text says why in one line."""


def named_roles(policy: Policy, alias: str) -> tuple[str, ...]:
    """Return the 100ms roles that a policy lists for a template, each once, in order."""
    lists = policy.templates.get(alias, {}).values()
    return tuple(dict.fromkeys(role for roles in lists for role in roles))


def missing_roles(policy: Policy, alias: str, existing: frozenset[str]) -> tuple[str, ...]:
    """Return the roles that a policy lists for a template but the template does not have."""
    return tuple(role for role in named_roles(policy, alias) if role not in existing)


def privileged_mints(policy: Policy, alias: str, template: HmsTemplate) -> list[tuple[str, HmsRole]]:
    """Return (relation, role) for every role with powers that a participant, a viewer or a guest may join with."""
    roles = {role.name: role for role in template.roles}
    return [
        (relation, roles[name])
        for relation in _ORDINARY
        for name in policy.mintable(alias, relation)
        if name in roles and roles[name].privileged_by
    ]


def unusable_names(template: HmsTemplate) -> tuple[str, ...]:
    """Return the roles that no policy can list, because a join token cannot hold their names; not 100ms's own roles."""
    return tuple(role.name for role in _joinable(template) if not ROLE_NAME.fullmatch(role.name))


def _joinable(template: HmsTemplate) -> list[HmsRole]:
    return [role for role in template.roles if not role.name.startswith(INTERNAL)]


def recommended_mapping(template: HmsTemplate) -> dict[str, list[str]]:
    """Return the lists for [templates.default]: per relation its roles, the least privileged first.

    Owner and cohost get all roles, the others the least privileged one, even if it has powers; `privileged_mints`
    reports those. Raises: NoMapping
    """
    usable = [role for role in _joinable(template) if ROLE_NAME.fullmatch(role.name)]
    if not usable:
        has = ", ".join(map(repr, unusable_names(template))) or "none that a user can join with"
        raise NoMapping(
            f"template {template.id} has no role with a name that a join token can hold, {NAMES_ALLOWED}; it has {has}"
        )
    usable.sort(key=_privilege)
    everything, least = [role.name for role in usable], [usable[0].name]
    return {"owner": everything, "cohost": everything, "participant": least, "viewer": least}


def _privilege(role: HmsRole) -> tuple[int, int, int, str]:
    over_others = len(_OVER_OTHERS.intersection(role.privileged_by))
    return over_others, len(role.privileged_by), len(role.publishes), role.name


def policy_text(mapping: Mapping[str, list[str]]) -> str:
    """Return the built-in policy with other lists for the default template."""
    # JSON strings and lists of strings are valid TOML.
    lines = "".join(f"{relation} = {json.dumps(names)}\n" for relation, names in mapping.items())
    text, changed = _SECTION.subn(lambda _: f"[templates.default]\n{lines}", built_in_text())
    if changed != 1 or not text.startswith(_TITLE):
        raise RuntimeError("the built-in policy does not have the expected form")
    return "# The policy, written by `gateway init`. Edit it; see docs/policy.md.\n" + text.removeprefix(_TITLE)


class TemplateWatch:
    """Warns of roles that a policy lists and a template does not have: users cannot join with them."""

    def __init__(self, policy: PolicyInForce) -> None:
        self._policy = policy
        self._warned: dict[str, tuple[str, ...]] = {}

    def look(self, hms: HmsClient) -> None:
        """Compare all templates whose roles are known, and request the roles of the others from 100ms."""
        for template_id in set(self._policy.now.template_ids.values()):
            existing = hms.template_roles(template_id)
            if existing is not None:
                self.seen(template_id, existing)

    def seen(self, template_id: str, existing: frozenset[str]) -> None:
        """Compare the policy with a template's present roles; warn once of each set of missing roles."""
        policy = self._policy.now
        for alias in sorted(alias for alias, known in policy.template_ids.items() if known == template_id):
            missing = missing_roles(policy, alias, existing)
            if missing and self._warned.get(alias) != missing:
                log.warning(
                    "the policy names roles that template %s (%s) does not have: %s; it has %s."
                    " Run gateway doctor, and see [templates.%s] of the policy",
                    template_id,
                    alias,
                    ", ".join(missing),
                    ", ".join(sorted(existing)) or "none",
                    alias,
                )
            self._warned[alias] = missing

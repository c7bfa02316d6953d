"""The 100ms roles a policy names, compared with those that a template really has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from gateway.hms.client import HmsRole, HmsTemplate
from gateway.policy.file import NAMES_ALLOWED, ROLE_NAME, built_in_text
from gateway.policy.model import Policy

_INTERNAL = "__internal"  # 100ms's own, such as __internal_recorder; nobody joins as one
_OVER_OTHERS = frozenset({"endRoom", "removeOthers", "changeRole"})  # worse than what only costs the account money
_ORDINARY = ("participant", "viewer")
_SECTION = re.compile(r"^\[templates\.default\]\n(?:[a-z]+ = .*\n)+", re.MULTILINE)
_TITLE = "# The built-in policy. Copy this file, edit the copy, and point GATEWAY_POLICY at it.\n"


class NoMapping(Exception):
    """No mapping of a template's roles can be recommended. The text says why, in one line."""


def named_roles(policy: Policy, alias: str) -> tuple[str, ...]:
    """Return the 100ms roles that a policy names for a template, each once, in its order."""
    lists = policy.templates.get(alias, {}).values()
    return tuple(dict.fromkeys(role for roles in lists for role in roles))


def missing_roles(policy: Policy, alias: str, existing: frozenset[str]) -> tuple[str, ...]:
    """Return the roles that a policy names for a template and that the template does not have."""
    return tuple(role for role in named_roles(policy, alias) if role not in existing)


def privileged_mints(policy: Policy, alias: str, template: HmsTemplate) -> list[tuple[str, HmsRole]]:
    """Return (relation, role) for every role with powers that a participant or a viewer, so also a guest, may have."""
    roles = {role.name: role for role in template.roles}
    return [
        (relation, roles[name])
        for relation in _ORDINARY
        for name in policy.mintable(alias, relation)
        if name in roles and roles[name].privileged_by
    ]


def unusable_names(template: HmsTemplate) -> tuple[str, ...]:
    """Return the roles that no policy can name, as a join token cannot hold their names; not 100ms's own."""
    return tuple(
        role.name
        for role in template.roles
        if not ROLE_NAME.fullmatch(role.name) and not role.name.startswith(_INTERNAL)
    )


def recommended_mapping(template: HmsTemplate) -> dict[str, list[str]]:
    """Return per relation the roles to put into [templates.default], the least privileged first.

    Who is in charge gets all of them, everybody else the least, even if that one has powers as well: `privileged_mints`
    tells of it.

    Raises:
        NoMapping: no role has a name that a join token can hold.
    """
    usable = [role for role in template.roles if ROLE_NAME.fullmatch(role.name) and not role.name.startswith(_INTERNAL)]
    if not usable:
        has = ", ".join(map(repr, unusable_names(template))) or "none that anybody joins as"
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
    """Return the built-in policy with another mapping of the default template's roles in it."""
    # JSON's texts and lists of texts are TOML's.
    lines = "".join(f"{relation} = {json.dumps(names)}\n" for relation, names in mapping.items())
    text, changed = _SECTION.subn(lambda _: f"[templates.default]\n{lines}", built_in_text())
    if changed != 1 or not text.startswith(_TITLE):
        raise RuntimeError("the built-in policy is not of the expected form")
    return "# The policy, written by `gateway init`. Edit it; see docs/policy.md.\n" + text.removeprefix(_TITLE)

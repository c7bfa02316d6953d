"""`gateway policy`: checks a policy file and explains decisions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli.explain import explain_command
from gateway.cli.terminal import JSON, fields, print_result
from gateway.policy.actions import MINUTES, RELATIONS
from gateway.policy.file import load_policy
from gateway.policy.model import Policy, written
from gateway.settings import load_env, policy_path
from limits.policy import Quota


@click.group()
def policy() -> None:
    """Check a policy file, explain a decision."""


@policy.command("check", epilog="Example: gateway policy check policy.toml")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@JSON
def check(file: Path | None, as_json: bool) -> None:
    """Check a policy file and print what it grants. FILE defaults to GATEWAY_POLICY, then to the built-in policy.

    If the file is wrong, the exit code is 1 and one line names file, key and reason.
    """
    checked = load_policy(file or policy_path(load_env()))
    print_result(_plain_policy(checked), "\n".join(_lines(checked)), as_json=as_json)


policy.add_command(explain_command)


def _lines(policy: Policy) -> Iterator[str]:
    yield f"{policy.source} is valid."
    for name, role in policy.roles.items():
        uninvited = "" if role.open_rooms else "; joins no open room without a relation"
        yield _entry("Role", name, f"may {' '.join(sorted(role.permissions)) or 'nothing'}{uninvited}")
        for limit in role.limits.values():
            yield f"{'':14}{limit.id}: {limit.rate}, burst {limit.burst}{'; shadow' if limit.shadow else ''}"
        for quota in role.quotas.values():
            shadow = "; shadow" if quota.shadow else ""
            yield f"{'':14}{quota.id}: {written(quota, quota.amount)}{_budget(policy, quota)}{shadow}"
        at_once = [f"{role.concurrent_rooms} rooms at once"] if role.concurrent_rooms else []
        at_once += [f"{role.max_participants} people in each"] if role.max_participants else []
        if at_once:
            yield f"{'':14}{', '.join(at_once)}"
    for quota in policy.installation:
        shadow = "; shadow" if quota.shadow else ""
        yield _entry("Installation", quota.id, f"{written(quota, quota.amount)}{_budget(policy, quota)}{shadow}")
    for alias, relations in policy.templates.items():
        template_id = policy.template_ids.get(alias, "from HMS_TEMPLATE_ID")
        yield _entry("Template", alias, f"id {template_id}; roles, least privileged first:")
        for relation in RELATIONS:
            yield f"{'':14}{relation}: {', '.join(relations.get(relation, ())) or 'none'}"
    yield _entry("Reports", policy.time_zone, "time zone of their days and months")
    if policy.prices is not None:
        yield _entry("Prices", policy.prices.currency, f"{policy.prices.per_1000_minutes} per 1,000 minutes")
    rooms, registration, guests = policy.rooms, policy.registration, policy.guests
    yield _entry(
        "Rooms", rooms.access, f"region {rooms.region}; {rooms.size} people; {rooms.active_per_owner} per owner"
    )
    unique = "; names are unique" if rooms.unique_names else ""
    yield f"{'':14}sessions of {_span(rooms.max_duration_s)}, join tokens {_span(rooms.token_ttl_s)}{unique}"
    mode = registration.mode or "from GATEWAY_REGISTRATION, else closed"
    yield _entry("Registration", mode, f"roles: {' '.join(registration.roles) or 'none'}")
    yield _entry(
        "Guests", guests.role or "none", f"for {_span(guests.lasts_s)}" if guests.role else "no invites for guests"
    )
    for provider in policy.identities:
        roles = [f"{theirs} is {ours}" for theirs, ours in provider.roles.items()]
        roles += [f"others are {provider.default_role}"] if provider.default_role else []
        accounts = "makes accounts" if provider.create_accounts else "for accounts that exist"
        yield _entry(
            "Identity", provider.name, f"{provider.issuer}, {accounts}; {', '.join(roles) or 'gives no roles'}"
        )
    for one in policy.endpoints:
        private = "; may be in your own network" if one.allow_private else ""
        yield _entry("Webhook", one.name, f"{one.host} receives {' '.join(sorted(one.events))}{private}")


def _budget(policy: Policy, quota: Quota) -> str:
    """Return whose minutes a quota counts and whether it ends rooms; nothing for a quota of requests."""
    if not quota.metered:
        return ""
    whose = {"user": "the user's own", "owner": "of everyone in the owner's rooms", "all": "of all users together"}
    return f", {whose[policy.scope_of(quota)]}{'; ends rooms' if quota.id in policy.ending else ''}"


def _entry(title: str, name: str, text: str) -> str:
    return f"{title:13} {name}: {text}"


def _span(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds % length == 0 and seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _plain_quota(policy: Policy, quota: Quota) -> dict[str, Any]:
    plain = fields(quota, "amount", "period", "shadow") | {"time_zone": quota.zone, "scope": policy.scope_of(quota)}
    on_exhausted = "end" if quota.id in policy.ending else "refuse"
    return plain | {"counter": MINUTES if quota.metered else quota.counter, "on_exhausted": on_exhausted}


def _plain_policy(policy: Policy) -> dict[str, Any]:
    return {
        "valid": True,
        "source": policy.source,
        "roles": {
            name: {
                "permissions": sorted(role.permissions),
                "open_rooms": role.open_rooms,
                "limits": {
                    limit: fields(its, "rate", "burst", "strict", "shadow") | {"cost": policy.costs.get(limit, 1)}
                    for limit, its in role.limits.items()
                },
                "quotas": {quota.id: _plain_quota(policy, quota) for quota in role.quotas.values()},
                **fields(role, "concurrent_rooms", "max_participants"),
            }
            for name, role in policy.roles.items()
        },
        "installation": {quota.id: _plain_quota(policy, quota) for quota in policy.installation},
        "limits": {name: {"applies_to": sorted(actions)} for name, actions in policy.applies_to.items()},
        "templates": {
            alias: {"id": policy.template_ids.get(alias), **{name: list(roles) for name, roles in relations.items()}}
            for alias, relations in policy.templates.items()
        },
        "reports": fields(policy, "time_zone"),
        "prices": msgspec.to_builtins(policy.prices),
        "rooms": msgspec.to_builtins(policy.rooms),
        "registration": msgspec.to_builtins(policy.registration),
        "guests": msgspec.to_builtins(policy.guests) if policy.guests.role else None,
        "identities": {
            one.name: {
                **fields(one, "issuer", "create_accounts", "default_role", "roles_claim"),
                "audience": sorted(one.audience),
                "azp": sorted(one.azp),
                "algorithms": sorted(one.algorithms),
                "roles": dict(one.roles),
            }
            for one in policy.identities
        },
        "webhooks": {
            one.name: {"host": one.host, "events": sorted(one.events), "allow_private": one.allow_private}
            for one in policy.endpoints
        },
    }

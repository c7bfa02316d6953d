"""`gateway policy`: checks a policy file and explains decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli.explain import explain_command
from gateway.policy.file import load_policy
from gateway.policy.model import RELATIONS, Policy
from gateway.settings import load_env, policy_path


@click.group("policy")
def policy_group() -> None:
    """Check a policy file, explain a decision."""


@policy_group.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path | None, as_json: bool) -> None:
    """Check a policy file and print what it grants. FILE defaults to GATEWAY_POLICY, then to the built-in policy.

    If the file is wrong, the exit code is 1 and one line names file, key and reason.
    """
    policy = load_policy(file or policy_path(load_env()))
    if as_json:
        click.echo(json.dumps(_plain_policy(policy), indent=2))
    else:
        _print_policy(policy)


policy_group.add_command(explain_command)


def _print_policy(policy: Policy) -> None:
    click.echo(f"{policy.source} is valid.")
    for name, role in policy.roles.items():
        uninvited = "" if role.open_rooms else "; joins no open room without a relation"
        _entry("Role", name, f"may {' '.join(sorted(role.permissions)) or 'nothing'}{uninvited}")
        for limit in role.limits.values():
            click.echo(f"{'':14}{limit.id}: {limit.rate}, burst {limit.burst}{'; shadow' if limit.shadow else ''}")
        for quota in role.quotas.values():
            shadow = "; shadow" if quota.shadow else ""
            click.echo(f"{'':14}{quota.id}: {quota.amount} per {quota.period}, {quota.zone}{shadow}")
    for alias, relations in policy.templates.items():
        _entry(
            "Template",
            alias,
            f"id {policy.template_ids.get(alias, 'from HMS_TEMPLATE_ID')}; roles, least privileged first:",
        )
        for relation in RELATIONS:
            click.echo(f"{'':14}{relation}: {', '.join(relations.get(relation, ())) or 'none'}")
    rooms, registration, guests = policy.rooms, policy.registration, policy.guests
    _entry("Rooms", rooms.access, f"region {rooms.region}; {rooms.size} people; {rooms.active_per_owner} per owner")
    unique = "; names are unique" if rooms.unique_names else ""
    click.echo(f"{'':14}sessions of {_span(rooms.max_duration_s)}, join tokens {_span(rooms.token_ttl_s)}{unique}")
    mode = registration.mode or "from GATEWAY_REGISTRATION, else closed"
    _entry("Registration", mode, f"roles: {' '.join(registration.roles) or 'none'}")
    _entry("Guests", guests.role or "none", f"for {_span(guests.lasts_s)}" if guests.role else "no invites for guests")


def _entry(title: str, name: str, text: str) -> None:
    click.echo(f"{title:13} {name}: {text}")


def _span(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds % length == 0 and seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _plain_policy(policy: Policy) -> dict[str, Any]:
    def limit_of(name: str, role: str) -> dict[str, Any]:
        limit = policy.roles[role].limits[name]
        return {
            "rate": limit.rate,
            "burst": limit.burst,
            "cost": policy.costs.get(name, 1),
            "strict": limit.strict,
            "shadow": limit.shadow,
        }

    return {
        "valid": True,
        "source": policy.source,
        "roles": {
            name: {
                "permissions": sorted(role.permissions),
                "open_rooms": role.open_rooms,
                "limits": {limit: limit_of(limit, name) for limit in role.limits},
                "quotas": {
                    quota.id: {
                        "counter": quota.counter,
                        "amount": quota.amount,
                        "period": quota.period,
                        "time_zone": quota.zone,
                        "shadow": quota.shadow,
                    }
                    for quota in role.quotas.values()
                },
            }
            for name, role in policy.roles.items()
        },
        "limits": {name: {"applies_to": sorted(actions)} for name, actions in policy.applies_to.items()},
        "templates": {
            alias: {"id": policy.template_ids.get(alias), **{name: list(roles) for name, roles in relations.items()}}
            for alias, relations in policy.templates.items()
        },
        "rooms": msgspec.to_builtins(policy.rooms),
        "registration": msgspec.to_builtins(policy.registration),
        "guests": msgspec.to_builtins(policy.guests) if policy.guests.role else None,
    }

"""`gateway policy explain`: explains a decision."""

import contextlib
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from auth.accounts import Accounts
from auth.errors import UnknownUser
from gateway.cli.connection import with_store
from gateway.cli.failures import CommandError
from gateway.cli.terminal import JSON, fields, print_json, say
from gateway.hms.client import HmsClient, connect
from gateway.hms.errors import HmsError
from gateway.hms.tokens import HmsTokens
from gateway.metering.budgets import Budgets
from gateway.policy.actions import ACTIONS, ROOM_ACTIONS
from gateway.policy.effective import policy_of
from gateway.policy.explain import Explanation, Question, Standing, explain, standing
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy, written
from gateway.redis.topology import AnyStore
from gateway.rooms.registry import Rooms
from gateway.rooms.room import Found
from gateway.routes.schemas import LimitsNow
from gateway.settings import Settings, hms_given, load_env, policy_path
from gateway.text import near
from limits.limiter import Limiter
from limits.policy import QuotaState


@click.command("explain", epilog="Example: gateway policy explain ada tokens.mint ROOM host")
@click.argument("user")
@click.argument("action")
@click.argument("room", required=False)
@click.argument("role", required=False)
@click.option("--offline", is_flag=True, help="Do not ask 100ms which roles the room's template has.")
@JSON
def explain_command(user: str, action: str, room: str | None, role: str | None, offline: bool, as_json: bool) -> None:
    """Explain whether a user may perform an action, and why.

    USER is a name or an id. ROOM is an id, for actions on a room; ROLE is a role at 100ms, for tokens.mint. Uses the
    functions that decide requests, with the present accounts, rooms and limits. Charges nothing. The exit code is 0 for
    both answers.
    """
    if action not in ACTIONS:
        raise CommandError(f"unknown action {action!r}; {near(action, ACTIONS, 'docs/policy.md')}")
    if action in ROOM_ACTIONS and room is None:
        raise CommandError(f"{action} needs a room: give its id (see `gateway rooms list`)")
    if action not in ROOM_ACTIONS and room is not None:
        raise CommandError(f"{action} takes no room")
    if role is not None and action != "tokens.mint":
        raise CommandError(f"{action} takes no role; only tokens.mint does")
    answer = _ask(user, action, room or "", role, offline=offline)
    if as_json:
        print_json(_plain_answer(answer))
    else:
        _print_answer(answer)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is printed. `asked` says where the template's roles are from; `owner` is the name of the room's owner."""

    question: Question
    explanation: Explanation
    standing: Standing
    room_id: str
    found: Found | None
    asked: str
    owner: str
    budgets: list[tuple[str, QuotaState]]  # of the room's owner and of everyone, by scope

    @property
    def short(self) -> list[str]:
        """Name what would still refuse the request now."""
        spent = [state.name for _, state in self.budgets if not state.allowed and state.decides]
        return [*self.standing.short, *spent]


def _ask(user: str, action: str, room_id: str, role: str | None, *, offline: bool) -> _Answer:
    env = load_env()
    # With settings, if any: HMS_TEMPLATE_ID and GATEWAY_REGISTRATION are part of the policy in force.
    settings = Settings.from_env(env) if hms_given(env)[0] else None
    policy = PolicyInForce(policy_of(settings) if settings else load_policy(policy_path(env)))

    async def work(store: AnyStore) -> _Answer:
        accounts = Accounts(store.execute)
        one = await accounts.lookup(user)
        limiter = Limiter(store.execute, zone=policy.zone)
        found, existing, asked, owner = None, None, "", ""
        if room_id:
            found = await _find(store, limiter, policy, room_id, one.id)
        budgets: list[tuple[str, QuotaState]] = []
        if found is not None:
            owner = found.room.owner_id
            with contextlib.suppress(UnknownUser):  # the owner was deleted
                owner = (await accounts.get(owner)).username
        if found is not None and action == "tokens.mint":
            existing, asked = await _template_roles(None if offline else settings, policy.now, found.room.template)
            looks = await Budgets(store.execute, limiter, policy).of_room(found.room.owner_id)
            budgets = [(scope, state) for scope, look in looks.items() for state in look.quotas]
        question = Question(one, action, found.facts if found else None, role, existing)
        limits = await standing(limiter, policy, one, action)
        return _Answer(question, explain(policy.now, question), limits, room_id, found, asked, owner, budgets)

    return with_store(work)


async def _find(store: AnyStore, limiter: Limiter, policy: PolicyInForce, room_id: str, uid: str) -> Found | None:
    async with connect("http://127.0.0.1") as http:  # never used: a room is found in Redis
        rooms = Rooms(store.execute, HmsClient(http, HmsTokens("", "")), limiter, policy)
        return await rooms.find(room_id, uid, people=True)


async def _template_roles(
    settings: Settings | None, policy: Policy, template: str
) -> tuple[frozenset[str] | None, str]:
    """Ask 100ms for the roles of a template. Return None and the reason if they are unknown."""
    template_id = policy.template_ids.get(template)
    if settings is None or template_id is None:
        return None, "100ms was not asked; the policy's own lists are used"
    async with connect(settings.hms_api_url) as http:
        hms = HmsClient(http, HmsTokens(settings.hms_app_access_key, settings.hms_app_secret))
        try:
            return (await hms.fetch_template(template_id)).role_names, "from the template at 100ms"
        except HmsError as error:
            return None, f"the template could not be read ({error}); the policy's own lists are used"


def _print_answer(answer: _Answer) -> None:
    question, why = answer.question, answer.explanation
    user, found = question.user, answer.found
    about = f" in room {answer.room_id}" if answer.room_id else ""
    click.secho("ALLOWED" if why.allowed else "DENIED", fg="green" if why.allowed else "red", bold=True, nl=False)
    say(f"  {question.action} by {user.username}{about}")
    rows = [("Rule", why.rule), ("Why", why.reason + (f" [{why.code}]" if why.code else ""))]
    rows.append(("User", f"{user.id}, {user.status}, roles: {' '.join(user.roles) or 'none'}"))
    rows.append(("Permissions", " ".join(why.permissions) or "none"))
    if answer.room_id:
        rows += [("Room", _room_text(found, answer.owner)), ("Relation", _relation_text(why))]
    if why.role is not None:
        rows.append(("100ms role", f"{_role_text(why)} ({answer.asked})"))
    rows += [("Charges" if not n else "", line) for n, line in enumerate(_charge_lines(answer))]
    if answer.short:
        rows.append(("Now", f"would still be refused with 429 by: {', '.join(answer.short)}"))
    for name, text in rows:
        say(f"  {name:12} {text}")


def _room_text(found: Found | None, owner: str) -> str:
    if found is None:
        return "not registered with the gateway"
    room = found.room
    state = "enabled" if room.enabled else f"disabled{' by an operator' if room.held else ''}"
    return f"{room.name!r}, {room.access}, {state}, template {room.template}, owner {owner}"


def _relation_text(why: Explanation) -> str:
    if why.effective is None:
        return f"{why.stored} (stored)" if why.stored else "none"
    return f"{why.effective} ({'stored' if why.stored else 'implicit: the room is open'})"


def _role_text(why: Explanation) -> str:
    assert why.role is not None  # noqa: S101  the caller has looked
    allowed = ", ".join(why.role.allowed) or "none"
    return f"{why.role.role or 'none'}; may have {allowed}"


def _charge_lines(answer: _Answer) -> list[str]:
    decision, costs = answer.standing.decision, {one.limit.id: one.cost for one in answer.explanation.charges}
    lines = []
    for state in decision.limits:
        cost = f"{costs[state.name]} of " if costs[state.name] != 1 else ""
        shadow = "; shadow, denies nothing" if state.limit.shadow else ""
        lines.append(f"{cost}limit {state.name}: {state.rate}, burst {state.burst}; {state.remaining} left{shadow}")
    lines += [_quota_line("quota", state) for state in decision.quotas]
    whose = {"owner": "budget of the owner", "all": "budget of all"}
    lines += [_quota_line(whose[scope], state) for scope, state in answer.budgets]
    lines += [f"place {lease.name}: {lease.lease.most} at once; {lease.held} held" for lease in decision.leases]
    return lines or ["nothing"]


def _quota_line(what: str, state: QuotaState) -> str:
    shadow = "; shadow, denies nothing" if state.quota.shadow else ""
    return f"{what} {state.name}: {written(state.quota, state.amount)}; {state.remaining} left{shadow}"


def _plain_answer(answer: _Answer) -> dict[str, Any]:
    question, why = answer.question, answer.explanation
    user = question.user
    plain: dict[str, Any] = {
        "allowed": why.allowed,
        "rule": why.rule,
        "code": why.code or None,
        "reason": why.reason,
        "missing_permission": why.missing,
        "action": question.action,
        "user": fields(user, "id", "username", "status", "roles"),
        "permissions": list(why.permissions),
    }
    if answer.room_id:
        plain["room"] = {"id": answer.room_id, **_plain_room(answer.found)}
        plain["relation"] = {"stored": why.stored, "effective": why.effective}
    if why.role is not None:
        plain["role"] = {
            "role": why.role.role or None,
            "requested": question.requested,
            "allowed": list(why.role.allowed),
            "template_roles": sorted(question.existing) if question.existing is not None else None,
        }
    costs = {one.limit.id: one.cost for one in why.charges}
    now = msgspec.to_builtins(LimitsNow.of(answer.standing.decision))
    if answer.budgets:
        plain["budgets"] = [
            {"of": scope, **fields(state, "name", "amount", "used", "remaining")} for scope, state in answer.budgets
        ]
    now["limits"] = [one | {"cost": costs[one["name"]]} for one in now["limits"]]
    return plain | {"charges": now, "refused_now_by": answer.short}


def _plain_room(found: Found | None) -> dict[str, Any]:
    known = fields(found.room, "name", "access", "enabled", "template", "owner_id") if found else {}
    return {"registered": found is not None} | known

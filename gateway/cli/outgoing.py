"""`gateway webhooks out`: the events that the gateway sends to an operator's own systems."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from rich.table import Column

from gateway.audit import CLI, Audit
from gateway.cli.connection import every, with_store
from gateway.cli.terminal import CSV, JSON, for_terminal, print_list, print_result, table_of
from gateway.outgoing.control import EndpointState, Outgoing, Trial, UnknownEndpoint
from gateway.outgoing.outbox import DeadMessage, Outbox
from gateway.outgoing.sender import Sender
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.redis.topology import AnyStore
from gateway.routes.schemas import iso
from gateway.settings import load_env, policy_path, signing_keys

T = TypeVar("T")

_EVENT = ("Endpoint", "Event")


@click.group("out")
def out() -> None:
    """Events for your own systems: status, dead letters, replay, test."""


@out.command("status", epilog="Example: gateway webhooks out status")
@CSV
@JSON
def status(as_csv: bool, as_json: bool) -> None:
    """Show the endpoints of the policy, and whether events reach them."""

    async def work(outgoing: Outgoing) -> tuple[list[EndpointState], int]:
        return await outgoing.state(), await outgoing.count_dead()

    found, letters = _with_outgoing(work)
    counts = (Column(name, justify="right") for name in ("Waiting", "Delivered", "Failed", "Dead"))
    rows = [(one.name, *map(str, (one.waiting, one.delivered, one.failed, one.dead)), _state(one)) for one in found]
    table, kept = table_of(("Endpoint", *counts, "State"), rows), f"{letters} dead letters are kept."
    plain, none = {"endpoints": found, "dead_letters": letters}, "The policy has no endpoint; see docs/webhooks.md."
    print_list(plain, table, kept, none=none, as_json=as_json, as_csv=as_csv)


@out.command("dead", epilog="Example: gateway webhooks out dead")
@CSV
@JSON
def dead(as_csv: bool, as_json: bool) -> None:
    """List the events that could not be delivered, newest first."""

    async def work(outgoing: Outgoing) -> list[DeadMessage]:
        return await every(lambda before: outgoing.dead(before=before, size=100), None)

    found = _with_outgoing(work)
    stacked = for_terminal(as_csv=as_csv)
    table = table_of(["Id, given up", *_EVENT, "Why"] if stacked else ["Id", *_EVENT, "Given up", "Why"])
    for one in found:
        at, about = iso(one.at_ms / 1000), (one.endpoint, one.message.type)
        table.add_row(*((f"{one.id}\n{at}", *about) if stacked else (one.id, *about, at)), one.why)
    print_list(found, table, none="There are no dead letters.", as_json=as_json, as_csv=as_csv)


@out.command("replay", epilog="Example: gateway webhooks out replay --all")
@click.argument("letter", required=False)
@click.option("--all", "all_", is_flag=True, help="All that there are.")
@click.option("--json", "as_json", is_flag=True, help="Print how many as JSON.")
def replay(letter: str | None, all_: bool, as_json: bool) -> None:
    """Deliver a dead letter after all, or all of them. The gateway must be running to do it."""
    if all_ == (letter is not None):
        raise click.UsageError("Give the id of a dead letter, or --all.")
    if letter is not None:
        if not _with_outgoing(lambda outgoing: outgoing.replay(letter, by=CLI)):
            raise click.ClickException(f"there is no dead letter {letter!r}")
        count = 1
    else:
        count = _with_outgoing(lambda outgoing: outgoing.replay_all(by=CLI))
    print_result({"replayed": count}, f"{count} events are delivered again.", as_json=as_json)


@out.command("test", epilog="Example: gateway webhooks out test billing")
@click.argument("name")
@JSON
def test(name: str, as_json: bool) -> None:
    """Send an event `webhook.test` to an endpoint.

    Sends it from this machine and prints the answer. The exit code is 1 if it failed.
    """
    trial = _with_outgoing(lambda outgoing: outgoing.test(name, by=CLI))
    if not as_json and not trial.delivered:
        raise click.ClickException(f"{name}: {_answer(trial)}")
    print_result(trial, f"{name}: {_answer(trial)}", as_json=as_json)
    if not trial.delivered:
        raise SystemExit(1)


def _answer(trial: Trial) -> str:
    said = trial.failure if trial.status is None else f"answered {trial.status}"
    return f"{said} after {trial.took_ms} ms"


def _state(one: EndpointState) -> str:
    if one.gone_ms is not None:
        return f"disabled: answered 410 at {iso(one.gone_ms / 1000)}"
    if one.last_failure:
        return f"fails: {one.last_failure}"
    return "never used" if one.last_delivered_ms is None else f"ok, last at {iso(one.last_delivered_ms / 1000)}"


def _with_outgoing(work: Callable[[Outgoing], Coroutine[Any, Any, T]]) -> T:
    env = load_env()
    policy, keys = PolicyInForce(load_policy(policy_path(env))), signing_keys(env)

    async def inner(store: AnyStore) -> T:
        sender = Sender(keys)
        try:
            return await work(Outgoing(Outbox(store.execute), sender, policy, Audit(store.execute)))
        except UnknownEndpoint as error:
            raise click.ClickException(str(error)) from None
        finally:
            await sender.close()

    return with_store(inner)

"""`gateway webhooks`: the events of 100ms, by which minutes are counted."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from rich.table import Column

from gateway.audit import CLI, Audit
from gateway.cli.connection import every, with_store
from gateway.cli.outgoing import out
from gateway.cli.terminal import CSV, JSON, console, print_csv, print_list, print_result, table_of
from gateway.metering.dead_letters import DeadLetter
from gateway.metering.webhooks import Webhooks
from gateway.redis.topology import AnyStore
from gateway.routes.schemas import iso
from gateway.text import printable

T = TypeVar("T")

_MOST_CHARS = 200  # of a body in a terminal
_NONE = "There are no dead letters."


@click.group()
def webhooks() -> None:
    """Webhook events of 100ms: status, dead letters, replay. `out`: events for your own systems."""


webhooks.add_command(out)


@webhooks.command("status", epilog="Example: gateway webhooks status")
@CSV
@JSON
def status(as_csv: bool, as_json: bool) -> None:
    """Show whether events arrive, and what became of them."""
    state = _with_webhooks(lambda hooks: hooks.state())
    rows = [(name, str(count)) for name, count in state.counts.items()]
    rows += [(f"  {name}", str(count)) for name, count in state.types.items()]
    last = "never" if state.last_ms is None else f"{iso(state.last_ms / 1000)}, processed after {state.lag_ms} ms"
    waiting = f"Waiting events: {state.waiting}. Dead letters: {state.dead_letters}."
    table = table_of(("Events", Column("Count", justify="right")), rows)
    print_list(state, table, f"Last event: {last}.", waiting, as_json=as_json, as_csv=as_csv)


@webhooks.command("dead", epilog="Example: gateway webhooks dead")
@CSV
@JSON
def dead(as_csv: bool, as_json: bool) -> None:
    """List the events that could not be understood.

    The newest comes first. Secrets in them are hidden.
    """

    async def work(hooks: Webhooks) -> list[DeadLetter]:
        return await every(lambda before: hooks.dead(before=before, size=50), None)

    found = _with_webhooks(work)
    if as_csv:
        rows = ((one.id, iso(one.at_ms / 1000), one.why, one.body) for one in found)
        print_csv(table_of(("Id", "At", "Why", "Body"), rows))
        return
    # Lines, because a table of 80 columns has no room for a body.
    most = _MOST_CHARS if console().is_terminal else None
    lines = [f"{one.id}  {iso(one.at_ms / 1000)}  {one.why}\n    {printable(one.body[:most])}" for one in found]
    print_result(found, "\n".join(lines) or _NONE, as_json=as_json)


@webhooks.command("replay", epilog="Example: gateway webhooks replay --all")
@click.argument("letter", required=False)
@click.option("--all", "all_", is_flag=True, help="All dead letters.")
@click.option("--json", "as_json", is_flag=True, help="Print how many as JSON.")
def replay(letter: str | None, all_: bool, as_json: bool) -> None:
    """Process a dead letter again, or all of them. The running gateway does this."""
    if all_ == (letter is not None):
        raise click.UsageError("Give the id of a dead letter, or --all.")
    if letter is not None:
        if not _with_webhooks(lambda hooks: hooks.replay(letter, by=CLI)):
            raise click.ClickException(f"there is no dead letter {letter!r}")
        count = 1
    else:
        count = _with_webhooks(lambda hooks: hooks.replay_all(by=CLI))
    text = (
        _NONE if not count else "1 event is processed again." if count == 1 else f"{count} events are processed again."
    )
    print_result({"replayed": count}, text, as_json=as_json)


def _with_webhooks(work: Callable[[Webhooks], Coroutine[Any, Any, T]]) -> T:
    async def inner(store: AnyStore) -> T:
        return await work(Webhooks(store.execute, Audit(store.execute)))

    return with_store(inner)

"""`gateway limits`: one user's limits from the command line."""

from typing import Any

import click
import msgspec
from rich.table import Column, Table

from gateway.accounts.actor import Actor
from gateway.accounts.limits import SetOverride, Standing
from gateway.cli.connection import with_office
from gateway.cli.terminal import CSV, DURATION, JSON, fields, format_option, print_list, print_result, say, table_of
from gateway.routes.schemas import LimitsNow, iso
from limits.overrides import BLOCK, Override

_BY = Actor.command_line()


@click.group()
def limits() -> None:
    """One user's limits: show, reset, override."""


@limits.command("show", epilog="Example: gateway limits show ada")
@click.argument("user")
@CSV
@JSON
def show(user: str, as_csv: bool, as_json: bool) -> None:
    """Show a user's limits, quotas and overrides, and what is left."""
    standing = with_office(lambda office: office.limits.show(user, by=_BY))
    states = msgspec.to_builtins(LimitsNow.of(standing.decision))
    plain = {"user": standing.user.username, **states, "overrides": [plain_override(one) for one in standing.overrides]}
    title = f"Limits of {standing.user.username} ({' '.join(standing.user.roles)})"
    print_list(plain, limits_table(states, title), *notes_on(standing, states), as_json=as_json, as_csv=as_csv)


@limits.command("reset", epilog="Example: gateway limits reset ada --name api")
@click.argument("user")
@click.option("--name", "names", multiple=True, help="Only this limit or quota; may be given several times.")
@format_option("json", "Print the units used before as JSON.")
def reset(user: str, names: tuple[str, ...], as_json: bool) -> None:
    """Reset a user's limits. Usage counters stay; the units used before are printed and audited."""
    used = with_office(lambda office: office.limits.reset(user, list(names) or None, by=_BY))
    listed = ", ".join(f"{name} {count}" for name, count in used.items()) or "nothing"
    print_result(used, f"Reset. Used before: {listed}", as_json=as_json)


@limits.command("override", epilog="Example: gateway limits override ada --block --for 2h --reason spam")
@click.argument("user")
@click.option("--name", help="The limit or quota.")
@click.option("--rate", help="For a limit, e.g. 600/min.")
@click.option("--burst", type=int, help="For a limit: units at once.")
@click.option("--amount", type=int, help="For a quota; in minutes, if it counts them.")
@click.option("--block", is_flag=True, help="Deny the user everything instead.")
@click.option("--lift", is_flag=True, help="Remove the override of --name, or with --block the block.")
@click.option("--for", "lasts_s", type=DURATION, default="1h", show_default=True, help="How long, e.g. 30min, 2h, 7d.")
@click.option("--reason", default="", help="Why, for the audit; needed unless you --lift.")
def override(user: str, name: str | None, block: bool, lift: bool, **numbers: Any) -> None:
    """Set other numbers for a limit or quota, or block a user.

    Either lasts for a limited time, and takes effect with the user's next request.
    """
    if block == (name is not None):
        raise click.UsageError("Give --name, or --block.")
    if lift:
        gone = with_office(lambda office: office.limits.lift(user, name or BLOCK, by=_BY))
        say("Lifted." if gone else "Nothing of that name was set.")
        return
    if not str(numbers["reason"]).strip():
        raise click.UsageError("Give --reason; the audit keeps it.")
    wanted = SetOverride(name=name, block=block, **numbers)  # its fields are named like the options
    done = with_office(lambda office: office.limits.override(user, wanted, by=_BY))
    say(f"Set until {iso(done.until_us / 1_000_000)}; it takes effect with the next request.")


def limits_table(states: dict[str, Any], title: str | None = None) -> Table:
    """Return the limits of a user as a table; `states` as `LimitsNow` has them."""
    rows = []
    for one in states["limits"]:
        rows.append((one["name"], f"{one['rate']}, burst {one['burst']}", str(one["remaining"]), one["full_again_at"]))
    for one in states["quotas"]:
        unit = " min" if one["unit"] == "minutes" else ""
        allows = f"{one['amount']}{unit} per {one['period']}, {one['time_zone']}"
        rows.append((one["name"], allows, str(one["remaining"]), one["full_again_at"]))
    for one in states["leases"]:
        rows.append((one["name"], f"{one['most']} at once", str(one["most"] - one["held"]), ""))
    return table_of(("Name", "Allows", Column("Left", justify="right"), "Full again"), rows, title)


def notes_on(standing: Standing, states: dict[str, Any]) -> list[str]:
    """Return a line for a block and for each override, with who set it, why and for how long."""
    notes = [f"Blocked until {states['blocked_until']}."] if states["blocked_until"] else []
    for what in map(plain_override, standing.overrides):
        notes.append("Set by {by} until {until}: {name} {numbers} ({reason})".format_map(what))
    return notes


def plain_override(override: Override) -> dict[str, str]:
    """Return an override for JSON."""
    numbers = f"{override.rate}, burst {override.burst}" if override.rate else f"{override.amount}"
    numbers = "blocked" if override.name == BLOCK else numbers
    until = iso(override.until_us / 1_000_000)
    return fields(override, "name", "reason", "by") | {"numbers": numbers, "until": until}

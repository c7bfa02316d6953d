"""`gateway keys`: service keys, and under `signing` the keys that sign access tokens."""

import time
from collections.abc import Sequence

import click
from rich.table import Table

from auth.service_keys import NewKey, ServiceKey
from gateway.accounts.actor import Actor
from gateway.accounts.service_keys import MOST_OVERLAP_S
from gateway.cli.connection import Office, with_office
from gateway.cli.signing import signing
from gateway.cli.terminal import CSV, DURATION, JSON, for_terminal, minute_of, print_list, print_result, say, table_of
from gateway.policy.scopes import SCOPES
from gateway.routes.keys import OneServiceKey

_CLI = Actor.command_line()


@click.group()
def keys() -> None:
    """Service keys of backends; keys that sign access tokens."""


keys.add_command(signing)


@keys.command("add", epilog="Example: gateway keys add billing --scope usage:read-any --expires 90d")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE",
    help=f"May be given several times: {', '.join(sorted(SCOPES))}.",
)
@click.option("--expires", type=DURATION, help="How long it is valid: 12h, 90d.  [default: until it is revoked]")
@click.option("--cidr", "cidrs", multiple=True, help="Only from this network; may be given several times.")
@JSON
def add_key(name: str, scopes: tuple[str, ...], expires: int | None, cidrs: tuple[str, ...], as_json: bool) -> None:
    """Make a service key and print it. This is the only time it is shown: only its SHA-256 is stored."""
    expires_ms = int((time.time() + expires) * 1000) if expires else 0
    key, text = with_office(lambda office: office.keys.create(_CLI, NewKey(name, scopes, expires_ms, cidrs)))
    print_result({"key": text, "service_key": OneServiceKey.of(key)}, text, as_json=as_json)


@keys.command("list", epilog="Example: gateway keys list")
@click.option("--revoked", is_flag=True, help="Also those revoked in the last 400 days.")
@CSV
@JSON
def list_keys(revoked: bool, as_csv: bool, as_json: bool) -> None:
    """List service keys, the oldest first."""

    async def read(office: Office) -> tuple[list[ServiceKey], str]:
        return await office.keys.all(), office.time_zone

    every, zone = with_office(read)
    found = [key for key in every if revoked or key.status == "active"]
    none = "No service keys yet. Make one: gateway keys add NAME --scope usage:read-any"
    table = keys_table(found, zone, stacked=for_terminal(as_csv=as_csv))
    print_list([OneServiceKey.of(one) for one in found], table, none=none, as_json=as_json, as_csv=as_csv)


@keys.command("show", epilog="Example: gateway keys show billing")
@click.argument("key")
@CSV
@JSON
def show_key(key: str, as_csv: bool, as_json: bool) -> None:
    """Show one service key, by name or id."""

    async def read(office: Office) -> tuple[ServiceKey, str]:
        return await office.keys.find(key), office.time_zone

    found, zone = with_office(read)
    table = keys_table([found], zone, stacked=for_terminal(as_csv=as_csv))
    print_list(OneServiceKey.of(found), table, as_json=as_json, as_csv=as_csv)


@keys.command("rotate", epilog="Example: gateway keys rotate billing --overlap 1h")
@click.argument("key")
@click.option("--overlap", type=DURATION, help="How long the old secret stays valid, e.g. 1h.  [default: not at all]")
@JSON
def rotate_key(key: str, overlap: int | None, as_json: bool) -> None:
    """Give a service key, by name or id, a new secret, and print it. It is shown only this once."""
    if overlap and overlap > MOST_OVERLAP_S:
        raise click.BadParameter(f"at most {MOST_OVERLAP_S // 86_400}d", param_hint="--overlap")
    rotated, text = with_office(lambda office: office.keys.rotate(_CLI, key, overlap_s=overlap or 0))
    print_result({"key": text, "service_key": OneServiceKey.of(rotated)}, text, as_json=as_json)


@keys.command("revoke", epilog="Example: gateway keys revoke billing")
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
def revoke_key(key: str, yes: bool) -> None:
    """Revoke a service key, by name or id, for good. Its next request is refused."""

    async def work(office: Office) -> ServiceKey:
        return await office.keys.revoke(_CLI, key)

    if not yes:
        click.confirm(f"Revoke {key} for good?", abort=True, err=True)
    say(f"{with_office(work).name} is revoked.")


def keys_table(found: Sequence[ServiceKey], zone: str, *, stacked: bool) -> Table:
    """Return service keys as a table; `stacked` has ids and times below names and states, for 80 columns."""
    now_ms = time.time_ns() // 1_000_000
    columns = ["Key", "Scopes", "Status", "Expires", "Last used", "From", "Id"]
    table = table_of(["Key, id", "Scopes", "Status, expires, last used", "From"] if stacked else columns)
    for one in found:
        times = [minute_of(at, zone) if at else "never" for at in (one.expires_ms, one.used_ms)]
        state = [one.state(now_ms), *times]
        scopes, networks = "\n".join(sorted(one.scopes)), "\n".join(map(str, one.cidrs))
        if stacked:
            table.add_row(f"{one.name}\n{one.id}", scopes, "\n".join(state), networks)
        else:
            table.add_row(one.name, scopes, *state, networks, one.id)
    return table

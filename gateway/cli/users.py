"""`gateway users`: accounts from the command line."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import click
import msgspec
from rich.console import Console
from rich.table import Table

from auth.accounts import Accounts, User
from auth.sessions import Sessions
from gateway.cli.connection import with_accounts
from gateway.policy_file import load_policy
from gateway.settings import load_env, policy_path


@click.group()
def users() -> None:
    """Accounts: add, list, show, disable, enable, roles."""


@users.command("add")
@click.argument("username")
@click.option("--role", "roles", multiple=True, required=True, help="Gateway role; may be given several times.")
@click.option("--display-name", default="", help="Name shown to others.  [default: the user name]")
@click.option("--json", "as_json", is_flag=True, help="Print the user as JSON.")
def add_user(username: str, roles: tuple[str, ...], display_name: str, as_json: bool) -> None:
    """Create an account. The password comes from a prompt, or from standard input; never from the command line."""
    _check_roles(roles)
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    user = with_accounts(lambda accounts, _: accounts.add(username, password, roles=roles, display_name=display_name))
    _print_users([user], as_json=as_json)


@users.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_users(as_json: bool) -> None:
    """List all accounts, oldest first."""

    async def every(accounts: Accounts, _: Sessions) -> list[User]:
        found: list[User] = []
        after: int | None = 0
        while after is not None:
            page, after = await accounts.page(after=after, size=500)
            found += page
        return found

    everybody = with_accounts(every)
    if not everybody and not as_json:
        click.echo("No users yet. Add one: gateway users add NAME --role host")
        return
    _print_users(everybody, as_json=as_json, many=True)


@users.command("show")
@click.argument("username")
@click.option("--json", "as_json", is_flag=True, help="Print the user as JSON.")
def show_user(username: str, as_json: bool) -> None:
    """Show one account."""
    _print_users([with_accounts(lambda accounts, _: accounts.find(username))], as_json=as_json)


@users.command("roles")
@click.argument("username")
@click.argument("roles", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the user as JSON.")
def set_roles(username: str, roles: tuple[str, ...], as_json: bool) -> None:
    """Replace an account's roles. Login tokens of before are refused from the next request on."""
    _check_roles(roles)

    async def change(accounts: Accounts, _: Sessions) -> User:
        return await accounts.set_roles((await accounts.find(username)).id, roles)

    _print_users([with_accounts(change)], as_json=as_json)


@users.command("disable")
@click.argument("username")
def disable_user(username: str) -> None:
    """Disable an account and end its sessions; its tokens are refused from the next request on."""

    async def change(accounts: Accounts, sessions: Sessions) -> User:
        user = await accounts.set_status((await accounts.find(username)).id, "disabled")
        await sessions.end_all(user.id)
        return user

    click.echo(f"{with_accounts(change).username} is disabled.")


@users.command("enable")
@click.argument("username")
def enable_user(username: str) -> None:
    """Enable an account again."""

    async def change(accounts: Accounts, _: Sessions) -> User:
        return await accounts.set_status((await accounts.find(username)).id, "active")

    click.echo(f"{with_accounts(change).username} is enabled.")


def _check_roles(roles: tuple[str, ...]) -> None:
    known = load_policy(policy_path(load_env())).roles
    for role in roles:
        if role not in known:
            raise click.BadParameter(f"the policy has no role {role!r}; it has {', '.join(known)}", param_hint="role")


def _print_users(found: list[User], *, as_json: bool, many: bool = False) -> None:
    if as_json:
        plain = [msgspec.to_builtins(user) for user in found]
        click.echo(json.dumps(plain if many else plain[0], indent=2))
        return
    table = Table()
    for name in ("User", "Roles", "Status", "Created", "Id"):
        table.add_column(name)
    for user in found:
        created = datetime.fromtimestamp(user.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(user.username, " ".join(user.roles), user.status, created, user.id)
    Console(markup=False).print(table)

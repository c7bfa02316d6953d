"""`gateway users`: accounts from the command line."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Column, Table

from auth.sessions import Session
from auth.users import User
from gateway.accounts.actor import Actor
from gateway.accounts.admin import PASSWORD_LINK_S, Changes
from gateway.accounts.registration import MOST_INVITE_S, MOST_INVITE_USES
from gateway.cli.connection import Office, with_office
from gateway.cli.durations import DURATION
from gateway.cli.failures import CommandError
from gateway.text import plain_text

_MOST_SHOWN = 100
_CLI = Actor.command_line()
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ROLE = click.option("--role", "roles", multiple=True, required=True, help="Gateway role; may be given several times.")


@click.group()
def users() -> None:
    """Accounts: users, their roles and their sessions."""


@users.command("add")
@click.argument("username")
@_ROLE
@click.option("--display-name", default="", help="Name shown to others.  [default: the user name]")
@click.option("--no-password", is_flag=True, help="Set no password; see `gateway users password-link`.")
@_JSON
def add_user(username: str, roles: tuple[str, ...], display_name: str, no_password: bool, as_json: bool) -> None:
    """Create an account. The password comes from a prompt, or from standard input; never from the command line."""
    _check_shown(display_name)
    password = None if no_password else _ask_password()
    user = with_office(
        lambda office: office.admin.create(_CLI, username, password, roles=roles, display_name=display_name)
    )
    _print_users([user], as_json=as_json)


@users.command("list")
@click.option("--name", default="", help="Only users whose names begin with this text.")
@_JSON
def list_users(name: str, as_json: bool) -> None:
    """List all accounts, the oldest first, or with --name the matching ones by name."""

    async def every(office: Office) -> list[User]:
        found: list[User] = []
        after: int | None = 0
        while after is not None:
            page, after = await office.accounts.page(after=after, size=500)
            found += [user for user in page if user.username]  # the others were deleted
        return found

    async def named(office: Office) -> list[User]:
        found: list[User] = []
        after: str | None = ""
        while after is not None:
            page, after = await office.accounts.search(name, after=after, size=500)
            found += page
        return found

    found = with_office(named if name else every)
    if not found and not as_json:
        click.echo(
            f"No user's name begins with {name!r}."
            if name
            else "No users yet. Add one: gateway users add NAME --role host"
        )
        return
    _print_users(found, as_json=as_json, many=True)


@users.command("show")
@click.argument("username")
@_JSON
def show_user(username: str, as_json: bool) -> None:
    """Show one account, by name or id."""
    _print_users([with_office(lambda office: office.accounts.lookup(username))], as_json=as_json)


@users.command("roles")
@click.argument("username")
@click.argument("roles", nargs=-1, required=True)
@_JSON
def set_roles(username: str, roles: tuple[str, ...], as_json: bool) -> None:
    """Replace an account's roles. Earlier login tokens are refused from the next request on."""
    _print_users([_change(username, Changes(roles=roles))], as_json=as_json)


@users.command("disable")
@click.argument("username")
def disable_user(username: str) -> None:
    """Disable an account. Its sessions end, its tokens are refused from the next request on."""
    click.echo(f"{_change(username, Changes(status='disabled')).username} is disabled.")


@users.command("enable")
@click.argument("username")
def enable_user(username: str) -> None:
    """Enable an account again."""
    click.echo(f"{_change(username, Changes(status='active')).username} is enabled.")


@users.command("rename")
@click.argument("username")
@click.argument("display_name")
def rename_user(username: str, display_name: str) -> None:
    """Change the name that others see. The user name stays."""
    _check_shown(display_name)
    user = _change(username, Changes(display_name=display_name))
    click.echo(f"{user.username} is shown as {user.display_name}.")


@users.command("delete")
@click.argument("username")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete_user(username: str, yes: bool) -> None:
    """Delete an account: its name, password, roles and sessions. Its usage stays counted, under its id only."""
    if not yes:
        click.confirm(f"Delete {username} for good?", abort=True, err=True)
    with_office(lambda office: office.admin.delete(_CLI, username))
    click.echo(f"{username} is deleted.")


@users.command("sessions")
@click.argument("username")
@_JSON
def list_sessions(username: str, as_json: bool) -> None:
    """List where a user is logged in."""

    async def read(office: Office) -> list[Session]:
        return await office.sessions.current((await office.accounts.lookup(username)).id)

    found = with_office(read)
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(one) for one in found], indent=2))
        return
    if not found:
        click.echo(f"{username} has no sessions.")
        return
    texts = [Column(name, overflow="fold") for name in ("Address", "Client")]
    table = Table(Column("Session", no_wrap=True), "Since, last used, until", *texts)
    for one in found:
        times = "\n".join(map(_time, (one.opened_ms, one.used_ms, one.expires_ms)))
        table.add_row(one.id, times, one.address, one.agent)
    Console(markup=False).print(table)


@users.command("logout")
@click.argument("username")
def end_sessions(username: str) -> None:
    """Log a user out everywhere, at once."""
    ended = with_office(lambda office: office.admin.end_sessions(_CLI, username))
    click.echo(f"{ended} session{'' if ended == 1 else 's'} of {username} ended.")


@users.command("password-link")
@click.argument("username")
@click.option("--page", help="URL of your app's page for it; the code is added as its fragment.")
@_JSON
def password_link(username: str, page: str | None, as_json: bool) -> None:
    """Print a code that sets a password. It works once, within 24 hours.

    Send it to POST /api/auth/password/setup as {"token": CODE, "new_password": ...}. With --page it is printed as a
    link; the part after # is not sent to any server and appears in no log.
    """
    if page and not re.fullmatch(r"https?://[^\s#]+", page):
        raise click.BadParameter("must begin with http:// or https:// and contain no #", param_hint="--page")
    code = with_office(lambda office: office.admin.password_link(_CLI, username))
    if as_json:
        click.echo(json.dumps({"token": code, "expires_in": PASSWORD_LINK_S}, indent=2))
    else:
        click.echo(f"{page}#token={code}" if page else code)


@users.command("uninvite")
@click.argument("code")
def uninvite(code: str) -> None:
    """Revoke an invitation to register. Accounts created with it stay."""
    if not with_office(lambda office: office.registration.revoke_invite(_CLI, code)):
        raise CommandError("there is no such invitation; it may have expired")
    click.echo("The invitation is revoked.")


@users.command("invite")
@_ROLE
@click.option("--expires", type=DURATION, default="7d", show_default=True, help="How long it is valid: 90min, 12h, 7d.")
@click.option("--uses", type=click.IntRange(1, MOST_INVITE_USES), default=1, show_default=True, help="How many people.")
@_JSON
def invite(roles: tuple[str, ...], expires: int, uses: int, as_json: bool) -> None:
    """Print a code to register with. Users who register with it get these roles.

    Send it to POST /api/auth/register as "invite". GATEWAY_REGISTRATION must be invite or open.
    """
    if expires > MOST_INVITE_S:
        raise click.BadParameter(f"at most {MOST_INVITE_S // 86_400}d", param_hint="--expires")

    async def work(office: Office) -> tuple[str, str]:
        return await office.registration.invite(_CLI, roles=roles, lasts_s=expires, uses=uses), office.registration_mode

    code, registration = with_office(work)
    if registration == "closed":
        click.echo(
            "Registration is closed. The invitation needs GATEWAY_REGISTRATION=invite or open.",
            err=True,
        )
    click.echo(json.dumps({"invite": code, "expires_in": expires, "uses": uses}, indent=2) if as_json else code)


def _check_shown(display_name: str) -> None:
    if len(plain_text("display name", display_name)) > _MOST_SHOWN:
        raise click.BadParameter(f"a display name has at most {_MOST_SHOWN} characters")


def _change(username: str, changes: Changes) -> User:
    return with_office(lambda office: office.admin.change(_CLI, username, changes))


def _ask_password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.BadParameter("the password on standard input is not valid UTF-8") from None


def _print_users(found: list[User], *, as_json: bool, many: bool = False) -> None:
    if as_json:
        plain: list[Any] = [msgspec.to_builtins(user) for user in found]
        for one in plain:
            del one["mark"]  # internal
        click.echo(json.dumps(plain if many else plain[0], indent=2))
        return
    table = Table("User", "Roles", "Status", "Created", "Id")
    for user in found:
        table.add_row(user.username, " ".join(user.roles), user.status, _time(user.created_ms), user.id)
    Console(markup=False).print(table)


def _time(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")

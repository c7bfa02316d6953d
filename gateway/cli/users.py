"""`gateway users`: accounts from the command line."""

import re
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import click

from auth.errors import UnknownUser
from auth.names import UID
from auth.sessions import Session
from auth.users import User
from gateway.accounts.actor import Actor
from gateway.accounts.admin import PASSWORD_LINK_S, Changes, NewAccount
from gateway.accounts.registration import MOST_INVITE_S, MOST_INVITE_USES
from gateway.cli.connection import Office, every, with_office
from gateway.cli.failures import CommandError
from gateway.cli.terminal import CSV, DURATION, JSON, console, print_json, print_list, print_result, say
from gateway.cli.user_views import Shown, plain_shown, plain_user, print_shown, sessions_table, users_table
from gateway.text import plain_text

_MOST_SHOWN = 100
_CLI = Actor.command_line()
_ROLE = click.option("--role", "roles", multiple=True, required=True, help="Gateway role; may be given several times.")


@click.group()
def users() -> None:
    """Accounts: users, their roles and their sessions."""


@users.command("add", epilog="Example: gateway users add ada --role host")
@click.argument("username")
@_ROLE
@click.option("--display-name", default="", help="Name shown to others.  [default: the user name]")
@click.option("--no-password", is_flag=True, help="Set no password; see `gateway users password-link`.")
@click.option(
    "--identity",
    metavar="PROVIDER:SUBJECT",
    help="Who logs in as this user: a provider of the policy, and the `sub` of its tokens. Sets no password.",
)
@JSON
def add_user(
    username: str, roles: tuple[str, ...], display_name: str, no_password: bool, identity: str | None, as_json: bool
) -> None:
    """Create an account. The password comes from a prompt, or from standard input; never from the command line."""
    _check_shown(display_name)
    provider, colon, subject = (identity or "").partition(":")
    if identity and not colon:
        raise click.BadParameter("must be PROVIDER:SUBJECT", param_hint="--identity")
    password = None if no_password or identity else _ask_password()
    new = NewAccount(username, password, roles, display_name, (provider, subject) if identity else None)
    _print_user(lambda office: office.admin.create(_CLI, new), as_json=as_json)


@users.command("list", epilog="Example: gateway users list --name a")
@click.option("--name", default="", help="Only users whose names begin with this text.")
@CSV
@JSON
def list_users(name: str, as_csv: bool, as_json: bool) -> None:
    """List all accounts, the oldest first. With --name only the matching ones, by name."""

    async def read(office: Office) -> tuple[list[User], str]:
        if name:
            found = await every(lambda after: office.accounts.search(name, after=after, size=500), "")
        else:
            found = await every(lambda after: office.accounts.page(after=after, size=500), 0)
        return [user for user in found if user.username], office.time_zone  # the others were deleted

    found, zone = with_office(read)
    none = (
        f"No user's name begins with {name!r}." if name else "No users yet. Add one: gateway users add NAME --role host"
    )
    table = users_table(found, zone)
    print_list([plain_user(user) for user in found], table, none=none, as_json=as_json, as_csv=as_csv)


@users.command("show", epilog="Example: gateway users show ada --sessions")
@click.argument("username")
@click.option("--sessions", "with_sessions", is_flag=True, help="Also list where the user is logged in.")
@JSON
def show_user(username: str, with_sessions: bool, as_json: bool) -> None:
    """Show one account, by name or id.

    Shows its last login, its limits, and what it has used today, this month and in all. A deleted one is found by id.
    """

    async def read(office: Office) -> Shown:
        user = await _find(office, username)
        standing = None if user.status == "deleted" else await office.limits.show(user.id, by=_CLI)
        login_ms = await office.sessions.last_login_ms(user.id)
        used = await office.counters.usage(user.id, time.time_ns() // 1000, office.time_zone)
        return Shown(user, login_ms, await office.sessions.current(user.id), used, standing, office.time_zone)

    shown = with_office(read)
    if as_json:
        print_json(plain_shown(shown, with_sessions=with_sessions))
    else:
        print_shown(shown, with_sessions=with_sessions)


async def _find(office: Office, username: str) -> User:
    """Find a user by id or name, and a deleted one by id. Raises: UnknownUser"""
    try:
        return await office.accounts.lookup(username)
    except UnknownUser:
        deleted = (await office.accounts.several([username])).get(username) if UID.fullmatch(username) else None
        if deleted is None:
            raise
        return deleted


@users.command("roles", epilog="Example: gateway users roles ada host operator")
@click.argument("username")
@click.argument("roles", nargs=-1, required=True)
@JSON
def set_roles(username: str, roles: tuple[str, ...], as_json: bool) -> None:
    """Replace an account's roles. Earlier login tokens are refused from the next request on."""
    _print_user(lambda office: office.admin.change(_CLI, username, Changes(roles=roles)), as_json=as_json)


@users.command("disable", epilog="Example: gateway users disable ada")
@click.argument("username")
def disable_user(username: str) -> None:
    """Disable an account. Its sessions end, its tokens are refused from the next request on."""
    say(f"{_change(username, Changes(status='disabled')).username} is disabled.")


@users.command("enable", epilog="Example: gateway users enable ada")
@click.argument("username")
def enable_user(username: str) -> None:
    """Enable an account again."""
    say(f"{_change(username, Changes(status='active')).username} is enabled.")


@users.command("rename", epilog="Example: gateway users rename ada 'Ada L.'")
@click.argument("username")
@click.argument("display_name")
def rename_user(username: str, display_name: str) -> None:
    """Change the name that others see. The user name stays."""
    _check_shown(display_name)
    user = _change(username, Changes(display_name=display_name))
    say(f"{user.username} is shown as {user.display_name}.")


@users.command("delete", epilog="Example: gateway users delete ada")
@click.argument("username")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete_user(username: str, yes: bool) -> None:
    """Delete an account: its name, password, roles and sessions. Its usage stays counted, under its id only."""
    if not yes:
        click.confirm(f"Delete {username} for good?", abort=True, err=True)
    with_office(lambda office: office.admin.delete(_CLI, username))
    say(f"{username} is deleted.")


@users.command("sessions", epilog="Example: gateway users sessions ada")
@click.argument("username")
@CSV
@JSON
def list_sessions(username: str, as_csv: bool, as_json: bool) -> None:
    """List where a user is logged in."""

    async def read(office: Office) -> tuple[list[Session], str]:
        user = await office.accounts.lookup(username)
        return await office.sessions.current(user.id), office.time_zone

    found, zone = with_office(read)
    table = sessions_table(found, zone, stacked=not as_csv and console().is_terminal)
    none = f"{username} has no sessions."
    print_list(found, table, none=none, as_json=as_json, as_csv=as_csv)


@users.command("logout", epilog="Example: gateway users logout ada")
@click.argument("username")
@click.option("--session", help="Only this session, an id of `gateway users sessions`.")
def end_sessions(username: str, session: str | None) -> None:
    """End all sessions of a user, or with --session one. Takes effect at once."""

    async def end(office: Office) -> int:
        if session is None:
            return await office.admin.end_sessions(_CLI, username)
        await office.admin.end_session(_CLI, username, session)
        return 1

    ended = with_office(end)
    say(f"{ended} session{'' if ended == 1 else 's'} of {username} ended.")


@users.command("password-link", epilog="Example: gateway users password-link ada --page https://app.example.com/pw")
@click.argument("username")
@click.option("--page", help="URL of your app's page for it; the code is added as its fragment.")
@JSON
def password_link(username: str, page: str | None, as_json: bool) -> None:
    """Print a code that sets a password. It works once, within 24 hours.

    Send it to POST /api/auth/password/setup as {"token": CODE, "new_password": ...}. With --page it is printed as a
    link; the part after # is not sent to any server and appears in no log.
    """
    if page and not re.fullmatch(r"https?://[^\s#]+", page):
        raise click.BadParameter("must begin with http:// or https:// and contain no #", param_hint="--page")
    code = with_office(lambda office: office.admin.password_link(_CLI, username))
    text = f"{page}#token={code}" if page else code
    print_result({"token": code, "expires_in": PASSWORD_LINK_S}, text, as_json=as_json)


@users.command("uninvite", epilog="Example: gateway users uninvite CODE")
@click.argument("code")
def uninvite(code: str) -> None:
    """Revoke an invitation to register. Accounts created with it stay."""
    if not with_office(lambda office: office.registration.revoke_invite(_CLI, code)):
        raise CommandError("there is no such invitation; it may have expired")
    say("The invitation is revoked.")


@users.command("invite", epilog="Example: gateway users invite --role member --uses 20 --expires 2d")
@_ROLE
@click.option("--expires", type=DURATION, default="7d", show_default=True, help="How long it is valid: 90min, 12h, 7d.")
@click.option("--uses", type=click.IntRange(1, MOST_INVITE_USES), default=1, show_default=True, help="How many people.")
@JSON
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
        say("Registration is closed. The invitation needs GATEWAY_REGISTRATION=invite or open.", err=True)
    print_result({"invite": code, "expires_in": expires, "uses": uses}, code, as_json=as_json)


def _check_shown(display_name: str) -> None:
    if len(plain_text("display name", display_name)) > _MOST_SHOWN:
        raise click.BadParameter(f"a display name has at most {_MOST_SHOWN} characters")


def _change(username: str, changes: Changes) -> User:
    return with_office(lambda office: office.admin.change(_CLI, username, changes))


def _print_user(work: Callable[[Office], Coroutine[Any, Any, User]], *, as_json: bool, as_csv: bool = False) -> None:
    """Run work and print the account that it returns."""

    async def inner(office: Office) -> tuple[User, str]:
        return await work(office), office.time_zone

    user, zone = with_office(inner)
    print_list(plain_user(user), users_table([user], zone), as_json=as_json, as_csv=as_csv)


def _ask_password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.BadParameter("the password on standard input is not valid UTF-8") from None

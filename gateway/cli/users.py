"""`gateway users`: accounts from the command line."""

import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from rich.table import Column, Table

from auth.sessions import Session
from auth.users import User
from gateway.accounts.actor import Actor
from gateway.accounts.admin import PASSWORD_LINK_S, Changes, NewAccount
from gateway.accounts.registration import MOST_INVITE_S, MOST_INVITE_USES
from gateway.cli.connection import Office, every, with_office
from gateway.cli.failures import CommandError
from gateway.cli.terminal import CSV, DURATION, JSON, print_json, print_list, print_result, print_table, table_of
from gateway.routes.schemas import iso
from gateway.text import plain_text
from limits.counters import METERED, Tally, Usage

_MOST_SHOWN = 100
_CLI = Actor.command_line()
_ROLE = click.option("--role", "roles", multiple=True, required=True, help="Gateway role; may be given several times.")


@click.group()
def users() -> None:
    """Accounts: users, their roles and their sessions."""


@users.command("add")
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
    _print_user(with_office(lambda office: office.admin.create(_CLI, new)), as_json=as_json)


@users.command("list")
@click.option("--name", default="", help="Only users whose names begin with this text.")
@CSV
@JSON
def list_users(name: str, as_csv: bool, as_json: bool) -> None:
    """List all accounts, the oldest first, or with --name the matching ones by name."""

    async def read(office: Office) -> list[User]:
        if name:
            return await every(lambda after: office.accounts.search(name, after=after, size=500), "")
        return await every(lambda after: office.accounts.page(after=after, size=500), 0)

    found = [user for user in with_office(read) if user.username]  # the others were deleted
    none = (
        f"No user's name begins with {name!r}." if name else "No users yet. Add one: gateway users add NAME --role host"
    )
    print_list([_plain(user) for user in found], _table(found), none=none, as_json=as_json, as_csv=as_csv)


@users.command("show")
@click.argument("username")
@JSON
def show_user(username: str, as_json: bool) -> None:
    """Show one account, by name or id: its last login, where it is logged in, and what it has used."""

    async def read(office: Office) -> tuple[User, int | None, list[Session], Usage, str]:
        user = await office.accounts.lookup(username)
        sessions = await office.sessions.current(user.id)
        login_ms = await office.sessions.last_login_ms(user.id)
        used = await office.counters.usage(user.id, time.time_ns() // 1000, office.time_zone)
        return user, login_ms, sessions, used, office.time_zone

    user, login_ms, sessions, used, zone = with_office(read)
    if as_json:
        login = iso(login_ms / 1000) if login_ms else None
        print_json(_plain(user) | {"last_login": login, "sessions": len(sessions), "usage": used, "time_zone": zone})
        return
    print_table(_table([user]))
    if user.identity:
        mapped = f"; roles by its claims: {' '.join(user.mapped)}" if user.mapped else ""
        click.echo(
            f"\nLogs in at {user.identity.provider} ({user.identity.issuer}) as {user.identity.subject}{mapped}."
        )
    click.echo(f"\nLast login: {_time(login_ms) if login_ms else 'none is known'}; sessions: {len(sessions)}.\n")
    actions = sorted({*used.today, *used.month, *used.total})
    if not actions:
        click.echo("Nothing was used yet.")
        return
    spans = (used.today, used.month, used.total)
    columns = [Column(name, justify="right") for name in ("Today", "This month", "In all")]
    rows = [(action, *(_done(action, span.get(action, Tally())) for span in spans)) for action in actions]
    print_table(table_of(["Used", *columns], rows), f"Days and months are those of {zone}.")


@users.command("roles")
@click.argument("username")
@click.argument("roles", nargs=-1, required=True)
@JSON
def set_roles(username: str, roles: tuple[str, ...], as_json: bool) -> None:
    """Replace an account's roles. Earlier login tokens are refused from the next request on."""
    _print_user(_change(username, Changes(roles=roles)), as_json=as_json)


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
@JSON
def list_sessions(username: str, as_json: bool) -> None:
    """List where a user is logged in."""

    async def read(office: Office) -> list[Session]:
        return await office.sessions.current((await office.accounts.lookup(username)).id)

    found = with_office(read)
    texts = [Column(name, overflow="fold") for name in ("Address", "Client")]
    columns = [Column("Session", no_wrap=True), Column("Since, last used, until"), *texts]
    table = table_of(columns, ((one.id, _times(one), one.address, one.agent) for one in found))
    print_list(found, table, none=f"{username} has no sessions.", as_json=as_json)


@users.command("logout")
@click.argument("username")
@click.option("--session", help="Only this session, an id of `gateway users sessions`.")
def end_sessions(username: str, session: str | None) -> None:
    """Log a user out everywhere, or with --session in one place; at once."""

    async def end(office: Office) -> int:
        if session is None:
            return await office.admin.end_sessions(_CLI, username)
        await office.admin.end_session(_CLI, username, session)
        return 1

    ended = with_office(end)
    click.echo(f"{ended} session{'' if ended == 1 else 's'} of {username} ended.")


@users.command("password-link")
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
        click.echo("Registration is closed. The invitation needs GATEWAY_REGISTRATION=invite or open.", err=True)
    print_result({"invite": code, "expires_in": expires, "uses": uses}, code, as_json=as_json)


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


def _done(action: str, tally: Tally) -> str:
    return f"{tally.ok / 60:.2f} min" if action in METERED else str(tally.ok)


def _print_user(user: User, *, as_json: bool) -> None:
    if as_json:
        print_json(_plain(user))
    else:
        print_table(_table([user]))


def _table(found: list[User]) -> Table:
    rows = ((one.username, " ".join(one.roles), one.status, _time(one.created_ms), one.id) for one in found)
    texts = [Column(name, overflow="fold") for name in ("User", "Roles", "Status", "Created", "Id")]
    return table_of(texts, rows)


def _plain(user: User) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(user)
    for internal in ("mark", "mapped_s", "voided_s"):
        del plain[internal]
    return plain


def _times(session: Session) -> str:
    return "\n".join(map(_time, (session.opened_ms, session.used_ms, session.expires_ms)))


def _time(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")

"""The one-line messages for commands that fail or that have wrong arguments."""

from collections.abc import Sequence
from errno import ENOSPC

import click
from click.exceptions import NoArgsIsHelpError

from auth.breaches import BadBreachFile
from gateway.policy.tables import PolicyError
from gateway.setting_values import SettingsError
from gateway.settings import demo_in_use, load_env
from gateway.text import FieldError


class CommandError(Exception):
    """A command failed. The text is one line without secrets that says what to do."""


def misuse(error: click.ClickException) -> str:
    """Describe in one line what is wrong with the arguments. Prints the help first if there were none."""
    text = error.format_message()
    if isinstance(error, NoArgsIsHelpError):
        click.echo(text)
        text = "Missing command."
    text = " ".join(text.split())  # click puts each choice on a line of its own
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return text
    return f"{text}{'' if text.endswith(('.', '?', '?)')) else '.'} Try '{context.command_path} --help'."


def not_text(arguments: Sequence[str]) -> str:
    """Return a message about the first argument that is not UTF-8, or an empty text."""
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()  # bytes that are not UTF-8 arrive as lone surrogates (PEP 383)
        except UnicodeEncodeError:
            return f"argument {number} is not UTF-8 text"
    return ""


def start_hint() -> str:
    """Say that the demo whose settings a command uses is not running, and how to start it; empty if it uses none."""
    demo = demo_in_use()
    if demo is None:
        return ""
    start = "`gateway demo` (or `make demo`)" if "DEMO_REDIS_PASSWORD" in load_env() else "`docker compose up`"
    return f"the demo of {demo.parent} is not running. Start it: {start}"


def place_of(url: str) -> str:
    """Return the servers or the socket that a URL of Redis names, without any secret; empty if that is in doubt."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if "@" in query and "@" not in place:  # perhaps the password has a question mark
        return ""
    place = place.rpartition("@")[2]
    return place if scheme == "unix" else place.partition("/")[0]


def foreseen(error: Exception) -> str:
    """Return in one line what went wrong; an empty text for a bug, which needs its traceback."""
    if isinstance(error, SettingsError | PolicyError | BadBreachFile | CommandError | FieldError):
        return str(error)
    if isinstance(error, OSError) and error.errno == ENOSPC:
        return f"cannot write: {error.strerror}"

    # Imported here, because a command that starts needs none of them.
    from redis.exceptions import RedisError

    from auth.errors import AuthError
    from gateway.accounts.actor import NotAllowed
    from gateway.accounts.admin import AdminsBusy, LastAdmin, NoSession
    from gateway.hms.errors import HmsError, HmsUnreachable
    from gateway.redis.store import StoreError
    from gateway.rooms.names import NameTaken
    from gateway.rooms.registry import NotOurs
    from gateway.usage.archive import ArchiveError

    if isinstance(error, HmsUnreachable) and (hint := start_hint()):
        return f"{error} Perhaps {hint}"
    known = AuthError | HmsError | NameTaken | NotOurs | LastAdmin | AdminsBusy | NoSession | NotAllowed | ArchiveError
    if isinstance(error, known):
        return str(error)
    if isinstance(error, StoreError):
        return f"Redis (REDIS_URL): {store_text(error)}"
    if isinstance(error, RedisError):
        return f"Redis (REDIS_URL) refused: {type(error).__name__}"
    return ""


def store_text(error: Exception, url: str = "") -> str:
    """Say what is wrong with Redis; if it cannot be reached, where it was looked for and whether a demo is stopped.

    Without a URL it is the Redis of the settings.
    """
    text = str(error)
    if not any(words in text for words in ("connecting", "cannot be asked")):  # the latter of a cluster
        return text
    where = f" at {place}" if (place := place_of(url or load_env().get("REDIS_URL", ""))) else ""
    tried = text.replace("Redis", f"Redis{where}", 1) if "Redis" in text else f"{text}{where}"
    hint = "" if url else start_hint()
    return f"{hint}; {tried}" if hint else tried

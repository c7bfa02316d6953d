"""What a command says when it cannot do what it was asked, or does not understand it."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.exceptions import NoArgsIsHelpError

from auth.breaches import BadBreachFile
from gateway.policy.file import PolicyError
from gateway.settings import SettingsError
from gateway.text import FieldError


class CommandError(Exception):
    """A command cannot do what it was asked. The text is one line, with a way out, and holds no secret."""


def misuse(error: click.ClickException) -> str:
    """Say in one line what is wrong with the arguments. A command without any is shown its help first."""
    text = error.format_message()
    if isinstance(error, NoArgsIsHelpError):
        click.echo(text)
        text = "Missing command."
    text = " ".join(text.split())  # click lists choices one to a line
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return text
    return f"{text}{'' if text.endswith(('.', '?', '?)')) else '.'} Try '{context.command_path} --help'."


def not_text(arguments: Sequence[str]) -> str:
    """Say which argument is not in the encoding of the system, UTF-8 nearly everywhere; empty if all are."""
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()  # such bytes come as lone surrogates (PEP 383), which nothing can print or send
        except UnicodeEncodeError:
            return f"argument {number} is not UTF-8 text"
    return ""


def foreseen(error: Exception) -> str:
    """Say in one line what went wrong; empty if that is a fault of ours, which wants its traceback.

    Only what most starts fail over is imported before: whoever raised one of the others has imported most of this.
    """
    if isinstance(error, SettingsError | PolicyError | BadBreachFile | CommandError | FieldError):
        return str(error)

    from redis.exceptions import RedisError

    from auth.errors import AuthError
    from gateway.accounts.actor import NotAllowed
    from gateway.accounts.admin import AdminsBusy, LastAdmin, UnknownRole
    from gateway.hms.client import HmsError
    from gateway.redis.store import StoreError
    from gateway.rooms.names import NameTaken
    from gateway.rooms.registry import NotOurs

    if isinstance(error, AuthError | HmsError | NameTaken | NotOurs):
        return str(error)
    if isinstance(error, UnknownRole | LastAdmin | AdminsBusy | NotAllowed):
        return str(error)
    if isinstance(error, StoreError):
        return f"Redis (REDIS_URL): {error}"
    if isinstance(error, RedisError):
        return f"Redis (REDIS_URL) refused: {type(error).__name__}"
    return ""

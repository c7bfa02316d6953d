"""All commands of the command line."""

from __future__ import annotations

import click

from gateway.cli import cli


def commands(group: click.Group = cli) -> dict[str, click.Command]:
    """Return every command that does something, by the words that call it."""
    found: dict[str, click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{name} {path}": one for path, one in commands(command).items()}
        if not isinstance(command, click.Group) or command.invoke_without_command:
            found[name] = command
    return found

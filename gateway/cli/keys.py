"""`gateway keys`: the keys that sign access tokens."""

import click

from gateway.cli.signing import signing


@click.group()
def keys() -> None:
    """Keys that sign access tokens."""


keys.add_command(signing)

"""Durations on the command line, for the options of several commands."""

from __future__ import annotations

import re

import click

_DURATION = re.compile(r"([1-9][0-9]{0,5})(min|h|d)")


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in its stubs
    """Converts a text such as 30min, 2h or 7d to seconds."""

    name = "duration"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(value)
        if match is None:
            self.fail("must look like 30min, 2h or 7d", param, ctx)
        return int(match[1]) * {"min": 60, "h": 3600, "d": 86_400}[match[2]]


DURATION = Duration()

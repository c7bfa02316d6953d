"""Authentication: accounts, passwords, login tokens and sessions.

The package knows no HTTP, no limits and no 100ms. It receives `execute`, which sends one Redis command.
"""

from collections.abc import Awaitable, Callable
from typing import Any

Execute = Callable[..., Awaitable[Any]]
"""Sends one Redis command, given as its words, and returns the reply as RESP3 has it: bytes, int, float, list, dict."""

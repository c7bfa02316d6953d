"""Exact rate limits, quotas, leases and usage counters: one atomic decision in one Redis script call.

The package knows no HTTP, no users and no 100ms. It receives `execute`, which sends one Redis command, and it decides
about *subjects*, which are opaque strings.
"""

from collections.abc import Awaitable, Callable
from typing import Any

Execute = Callable[..., Awaitable[Any]]
"""Sends one Redis command, given as its words, and returns the reply as RESP3 has it: bytes, int, float, list, dict."""

"""`gateway demo`: a whole installation on one machine.

A real Valkey server, the local 100ms and the gateway run as children of a supervisor; secrets, passwords and data live
in one folder and survive a restart.
"""

from __future__ import annotations

HOST = "127.0.0.1"


class DemoError(Exception):
    """The demo cannot start or go on. The text is one line with a way out."""

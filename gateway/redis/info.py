"""What Redis says about itself."""

from typing import Any


def info_of(reply: Any) -> dict[str, str]:
    """Return the fields of a reply to INFO."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value for name, colon, value in lines if colon}

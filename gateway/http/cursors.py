"""Cursors: positions in a list, as opaque texts that only the gateway can make."""

import base64
from typing import Annotated

from litestar.params import QueryParameter

from auth.keys import KeyRing
from gateway.text import FieldError

PageCursor = Annotated[str | None, QueryParameter(max_length=512, description="`next_cursor` of the previous page.")]
PageSize = Annotated[int, QueryParameter(ge=1, le=500, description="How many items a page has at most.")]


class Cursors:
    """Seals a position (a few short words) into a text, and opens it only for the same `kind` of list."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def seal(self, kind: str, *place: str | int) -> str:
        text = "\n".join([kind, *map(str, place)])
        return base64.urlsafe_b64encode(f"{self._ring.mac(text)}{text}".encode()).decode().rstrip("=")

    def open(self, kind: str, cursor: str) -> list[str]:
        """Return the words of the position. Raises: FieldError, unless the gateway made it for this kind of list."""
        try:
            text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        except ValueError:  # among them binascii.Error and UnicodeError
            raise FieldError("cursor", "is not a cursor of this list") from None
        mac, text = text[:32], text[32:]
        words = text.split("\n")
        if not self._ring.check(text, mac) or words[0] != kind:
            raise FieldError("cursor", "is not a cursor of this list")
        return words[1:]

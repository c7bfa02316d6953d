"""Texts that people write: names, descriptions, reasons. What they may not hold, wherever they come from."""

from __future__ import annotations

import re
import unicodedata

# What turns the order of the text around it: a name could end in another's line (CVE-2021-42574).
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")


class FieldError(ValueError):
    """A value breaks a rule. `field` names it as the caller does, `rule` says what it must be."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}" if field else rule)
        self.field = field
        self.rule = rule


def plain_text(field: str, value: str | None) -> str:
    """Return a text without surrounding space, in NFC.

    Raises:
        FieldError: control characters, surrogates, line breaks, or what turns the direction of writing.
    """
    text = unicodedata.normalize("NFC", value or "").strip()
    if _TURNING.search(text):
        raise FieldError(field, "must not have characters that turn the direction of writing")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        raise FieldError(field, "must not have control characters or line breaks")
    return text

"""Passwords known from breaches: a file that the operator mounts, searched on disk and never loaded."""

import codecs
import hashlib
import os
import re
import stat
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

MOST_PLAIN_BYTES = 256 << 20  # a lookup reads a plain file to its end: up to 0.3 s for this much
_HEAD_BYTES = 4096
_CHUNK_BYTES = 1 << 20  # one step under the interpreter lock: well below a millisecond
_LINE_BYTES = 64  # a line of hashes at most: 40 digits, a colon, 12 digits of a count, CR LF
_SCAN_BYTES = 4096  # below this much, one read costs no more than another halving
_SAMPLES = 64
_SHA1_LINE = re.compile(rb"([0-9A-Fa-f]{40})(?::[0-9]{1,12})?\r?(?:\n|\Z)")
_NTLM_LINE = re.compile(rb"[0-9A-Fa-f]{32}(?::[0-9]{1,12})?\r?(?:\n|\Z)")


class BadBreachFile(Exception):
    """The file cannot be used. The text is one line, names the path, and says what to do."""


class BreachFile:
    """Looks passwords up in a file of breached ones.

    The file is either the SHA-1 edition of "Have I Been Pwned" ordered by hash (lines `HEX40:count`), of any size: a
    lookup is a binary search of some 25 reads in 40 GB. Or it is plain passwords, one per line, up to
    `MOST_PLAIN_BYTES`: a lookup reads all of it. A set of 14 million passwords would take 1.5 GB in every process.
    Each lookup opens the file anew, so a newer edition moved to its place needs no restart.
    """

    def __init__(self, path: Path) -> None:
        """Look at the beginning of the file, and of hashes at samples from all over it. Raises: BadBreachFile"""
        self.path = path
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise BadBreachFile(f"{path} is not a regular file")
            with _open(path) as file:
                self.is_hashed = _is_hashed(path, _first_lines(path, file))
                if self.is_hashed:
                    _check_order(path, file, found.st_size)
        except OSError as error:
            raise BadBreachFile(f"{path} cannot be read: {error.strerror}") from error
        if not self.is_hashed and found.st_size > MOST_PLAIN_BYTES:
            raise BadBreachFile(
                f"{path}: more than {MOST_PLAIN_BYTES >> 20} MiB of plain passwords; use SHA-1 hashes ordered by hash"
            )

    def holds(self, password: str) -> bool:
        """Tell whether a password is in the file. Reads the disk: not for the event loop. Raises: BadBreachFile"""
        try:
            return self._holds(password)
        except OSError as error:
            raise BadBreachFile(f"{self.path} cannot be read: {error.strerror}") from error

    def _holds(self, password: str) -> bool:
        forms = {unicodedata.normalize(form, password).encode("utf-8", "surrogatepass") for form in ("NFC", "NFD")}
        with _open(self.path) as file:
            if not self.is_hashed:
                return _scan(file, forms)
            size = file.seek(0, 2)
            # The edition's own hash, not ours: nothing is protected by it
            digests = {hashlib.sha1(form, usedforsecurity=False).hexdigest().upper().encode() for form in forms}
            return any(_search(self.path, file, size, digest) for digest in digests)


def _open(path: Path) -> BinaryIO:
    """Open a regular file. The path may have become a pipe, which would wait for a writer, or an endless device."""
    file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115  the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BadBreachFile(f"{path} is not a regular file")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no such flag


def _first_lines(path: Path, file: BinaryIO) -> list[bytes]:
    head = file.read(_HEAD_BYTES)
    if b"\0" in head:
        raise BadBreachFile(f"{path} is not text; if it is an archive, unpack it first")
    whole = head if len(head) < _HEAD_BYTES else head[: head.rfind(b"\n") + 1]
    lines = [line for line in whole.splitlines() if line.strip()]
    if not lines and len(head) < _HEAD_BYTES:
        raise BadBreachFile(f"{path} is empty")
    if not lines:
        raise BadBreachFile(f"{path} does not begin with lines of passwords or SHA-1 hashes")
    return lines


def _is_hashed(path: Path, lines: list[bytes]) -> bool:
    if all(_NTLM_LINE.fullmatch(line) for line in lines):
        raise BadBreachFile(f"{path} holds NTLM hashes; use the SHA-1 edition, ordered by hash")
    if not all(_SHA1_LINE.fullmatch(line) for line in lines):
        return False
    if any(one[:40].upper() > other[:40].upper() for one, other in pairwise(lines)):
        raise BadBreachFile(f"{path} is not ordered by hash; use the edition ordered by hash")
    return True


def _check_order(path: Path, file: BinaryIO, size: int) -> None:
    samples = [_line_after(path, file, size * part // (_SAMPLES + 1))[1] for part in range(_SAMPLES + 1)]
    if any(one > other for one, other in pairwise(sample for sample in samples if sample)):
        raise BadBreachFile(f"{path} is not ordered by hash; use the edition ordered by hash")


def _line_after(path: Path, file: BinaryIO, offset: int) -> tuple[int, bytes]:
    """Return where the first line that begins after an offset begins, and its hash; b"" behind the last line."""
    file.seek(offset)
    window = file.read(3 * _LINE_BYTES)
    begin = window.find(b"\n") + 1
    if begin and (match := _SHA1_LINE.match(window, begin)):
        return offset + begin, match[1].upper()
    if len(window) < 3 * _LINE_BYTES and not (begin and window[begin:].strip()):
        return offset + len(window), b""
    raise BadBreachFile(f"{path}: no line of a SHA-1 hash near byte {offset}")


def _search(path: Path, file: BinaryIO, size: int, wanted: bytes) -> bool:
    low, high = 0, size  # a line begins at `low`; the wanted one begins before `high`
    while high - low > _SCAN_BYTES:
        middle = (low + high) // 2
        begin, found = _line_after(path, file, middle)
        if found == wanted:
            return True
        if found and found < wanted:
            low = begin
        else:
            high = middle + 1
    file.seek(low)
    block = file.read(high - low + _LINE_BYTES).upper()
    return block.startswith(wanted) or b"\n" + wanted in block


def _scan(file: BinaryIO, passwords: set[bytes]) -> bool:
    lines = [b"\n" + password + end for password in passwords for end in (b"\n", b"\r\n")]
    overlap = max(len(line) for line in lines)
    seen = b"\n" + file.read(_CHUNK_BYTES).removeprefix(codecs.BOM_UTF8)
    while chunk := file.read(_CHUNK_BYTES):
        if any(line in seen for line in lines):
            return True
        seen = seen[-overlap:] + chunk
    seen += b"\n"  # the last line may have no end
    return any(line in seen for line in lines)

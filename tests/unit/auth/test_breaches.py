"""The breach file: both formats are recognised, damaged files are refused, and the file is never loaded whole."""

import hashlib
import io
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import breaches as module
from auth.breaches import BadBreachFile, BreachFile

KNOWN = [f"known password {n}" for n in range(20_000)]


def sha1(password: str) -> str:
    return hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()


def hash_lines(passwords: list[str], *, end: str = "\n", count: Callable[[int], str] = lambda n: f":{n}") -> str:
    generator = random.Random(1)
    return "".join(f"{digest}{count(generator.randrange(1, 10**7))}{end}" for digest in sorted(map(sha1, passwords)))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def writing(content: str | bytes) -> Path:
        path = tmp_path / "breached.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return writing


Write = Callable[[str | bytes], Path]


# --- plain passwords ---


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_a_plain_list_contains_exactly_its_lines(write: Write, end: str, last: bool) -> None:
    lines = ["first one", "pass: word", " blanks around ", "straße 1", "the last one"]
    breaches = BreachFile(write(end.join(lines) + (end if last else "")))
    assert not breaches.is_hashed
    assert all(breaches.holds(line) for line in lines)
    for other in ("first", "one", "irst one", "first one ", "First one", "blanks around"):
        assert not breaches.holds(other)


def test_composed_and_decomposed_forms_of_a_line_are_equal(write: Write) -> None:
    breaches = BreachFile(write("caf\u00e9 au lait\ncre\u0300me fraiche\n"))
    assert breaches.holds("cafe\u0301 au lait")
    assert breaches.holds("cr\u00e8me fraiche")


def test_a_byte_order_mark_and_lines_that_are_not_utf_8_do_no_harm(write: Write) -> None:
    breaches = BreachFile(write(b"\xef\xbb\xbffirst one\nstra\xdfe\nlast one\n"))
    assert breaches.holds("first one")
    assert breaches.holds("last one")
    assert not breaches.holds("\ud800")


@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_no_line_is_lost_between_two_chunks(write: Write, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    breaches = BreachFile(write("".join(f"{line}\r\n" for line in KNOWN[:60])))
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk)
    assert all(breaches.holds(line) for line in KNOWN[:60])
    assert not breaches.holds("known password 60")


def test_a_plain_list_beyond_the_maximum_size_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("one\ntwo\n")
    with path.open("r+b") as file:
        file.truncate(module.MOST_PLAIN_BYTES + 1)
    with pytest.raises(BadBreachFile, match=r"is not text|more than 256 MiB"):
        BreachFile(path)
    monkeypatch.setattr(module, "MOST_PLAIN_BYTES", 7)
    path = write("one\ntwo\n")
    with pytest.raises(BadBreachFile, match="use SHA-1 hashes ordered by hash"):
        BreachFile(path)


# --- hashes ---


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("lower", [True, False])
def test_exactly_the_hashes_of_the_ordered_edition_are_found(write: Write, end: str, lower: bool) -> None:
    text = hash_lines(KNOWN, end=end)
    breaches = BreachFile(write(text.lower() if lower else text))
    assert breaches.is_hashed
    assert all(breaches.holds(password) for password in KNOWN)
    assert not any(breaches.holds(f"unknown password {n}") for n in range(2_000))


@pytest.mark.parametrize("size", [1, 2, 3, 50, 90, 200])
def test_a_small_file_is_searched_to_both_ends(write: Write, size: int) -> None:
    for text in (hash_lines(KNOWN[:size]), hash_lines(KNOWN[:size]).rstrip(), hash_lines(KNOWN[:size]) + "\n\n"):
        breaches = BreachFile(write(text))
        assert all(breaches.holds(password) for password in KNOWN[:size])
        assert not any(breaches.holds(password) for password in KNOWN[size : size + 300])


def test_hashes_need_no_count(write: Write) -> None:
    breaches = BreachFile(write(hash_lines(KNOWN[:500], count=lambda _: "")))
    assert breaches.holds(KNOWN[17])
    assert not breaches.holds("known password 500")


def test_replacing_the_file_by_a_newer_edition_needs_no_restart(write: Write, tmp_path: Path) -> None:
    breaches = BreachFile(write(hash_lines(KNOWN[:100])))
    newer = tmp_path / "newer.txt"
    newer.write_text(hash_lines(KNOWN[:300]))
    assert not breaches.holds(KNOWN[200])
    newer.replace(breaches.path)
    assert breaches.holds(KNOWN[200])


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_in_place_of_the_file_is_refused_without_waiting(
    write: Write, tmp_path: Path, kind: str
) -> None:
    breaches = BreachFile(write(hash_lines(KNOWN[:100])))
    other = tmp_path / "other"
    if kind == "pipe":
        os.mkfifo(other)
    else:
        other.symlink_to("/dev/zero")
    other.replace(breaches.path)
    with pytest.raises(BadBreachFile, match="is not a regular file"):
        breaches.holds(KNOWN[17])


class Generated(io.RawIOBase):
    """A file of `lines` evenly distributed hashes, 53 bytes each, generated wherever it is read; counts the reads."""

    LINE = 40 + 1 + 10 + 2

    def __init__(self, lines: int) -> None:
        self.lines, self.step, self.at, self.reads = lines, (1 << 160) // lines, 0, 0

    def digest(self, line: int) -> bytes:
        return f"{line * self.step:040X}".encode()

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        first, last = self.at // self.LINE, min((self.at + size) // self.LINE + 1, self.lines)
        text = b"".join(self.digest(line) + b":%010d\r\n" % line for line in range(first, last))
        skipped = self.at - first * self.LINE
        return text[skipped : skipped + size]


@given(st.integers(0, 10**9 - 1), st.sampled_from([1, 37, 10**5, 10**9]))
def test_a_file_of_53_gigabytes_is_searched_in_fewer_than_forty_reads(line: int, lines: int) -> None:
    line %= lines
    file = Generated(lines)
    size = lines * Generated.LINE
    wanted = file.digest(line)
    assert module._search(Path("generated"), file, size, wanted)
    assert file.reads < 40
    beside = f"{int(wanted, 16) + 1:040X}".encode()
    assert not module._search(Path("generated"), file, size, beside)
    assert file.reads < 80


@pytest.mark.parametrize("hashed", [True, False])
def test_memory_does_not_grow_with_the_file(write: Write, monkeypatch: pytest.MonkeyPatch, hashed: bool) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1 << 16)
    text = hash_lines(KNOWN * 6) if hashed else "".join(f"{password}\n" for password in KNOWN * 12)
    path = write(text)
    assert path.stat().st_size > 4 << 20
    tracemalloc.start()
    try:
        breaches = BreachFile(path)
        assert breaches.holds(KNOWN[-1])
        assert not breaches.holds("no one's password")
        assert tracemalloc.get_traced_memory()[1] < 512 << 10
    finally:
        tracemalloc.stop()


# --- refused at the start ---

SHUFFLED = "".join(f"{sha1(password)}:1\n" for password in KNOWN)
LATE = hash_lines(KNOWN).splitlines(keepends=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n\r\n \n", "is empty"),
        ("\n" * 5000, "does not begin with lines"),
        ("x" * 5000, "does not begin with lines"),
        (b"\x1f\x8b\x08\0\0\0\0\0packed", "is not text"),
        ("one\ntwo\n".encode("utf-16"), "is not text"),
        (SHUFFLED, "not ordered"),
        ("".join(reversed(LATE)), "not ordered"),
        ("".join(LATE[10_000:] + LATE[:10_000]), "not ordered"),
        ("".join(LATE[:10_000]) + "garbage\n" * 60_000 + "".join(LATE[10_000:]), "no line of a SHA-1 hash near byte"),
        ("".join(LATE[:10_000]) + "x" * 400_000, "no line of a SHA-1 hash near byte"),
        ("".join(f"{n:032X}:{n}\r\n" for n in range(9)), "NTLM"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_an_unusable_file_is_refused_in_one_line(write: Write, content: str | bytes, words: str) -> None:
    path = write(content)
    with pytest.raises(BadBreachFile, match=words) as caught:
        BreachFile(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(BadBreachFile, match="is not a regular file"):
            BreachFile(path)
    for path in (tmp_path / "nothing", tmp_path / "x" / "y", tmp_path / ("long" * 100)):
        with pytest.raises(BadBreachFile, match="cannot be read"):
            BreachFile(path)

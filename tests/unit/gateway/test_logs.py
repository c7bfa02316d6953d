"""Log lines contain only ASCII and are one line per record, whatever their text."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from gateway import logs
from gateway.logs import _Console, _Json, _Lines, event, to_json

NASTY = "a\x1b[31mred\u202e\u00e9\U0001f600\r\n12:00:00 error   forged\x85\u2028\x7f\ud800"


def record(text: str, error: Exception | None = None, **fields: str) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("gateway", logging.ERROR, __file__, 1, "%s", (text,), exc_info)
    made.fields = fields
    return made


def raised(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


@pytest.mark.parametrize("formatter", [_Json(), _Console()], ids=["json", "console"])
def test_a_line_contains_only_printable_ascii(formatter: logging.Formatter) -> None:
    line = formatter.format(record(NASTY, name=NASTY))
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize("formatter", [_Json(), _Console()], ids=["json", "console"])
def test_a_traceback_contains_only_printable_ascii(formatter: logging.Formatter) -> None:
    for line in formatter.format(record("failed", raised(NASTY))).split("\n"):
        assert line.isascii()
        assert line.isprintable()


def test_the_text_of_an_exception_cannot_forge_a_console_line() -> None:
    first, *traceback = _Console().format(record("failed", raised(NASTY))).split("\n")
    assert first.endswith("error   failed")
    assert len(traceback) > 2
    assert all(line.startswith("    ") for line in traceback)


def test_escaped_characters_stay_readable() -> None:
    assert _Console().format(record("caf\u00e9 \x1b")).endswith(r"caf\xe9 \x1b")


@pytest.mark.parametrize(
    "value", ["plain", NASTY, "\x7f", 2**70, 0.1, None, True, {"a": ["\u00e9"]}, ValueError("odd")]
)
def test_json_of_a_line_is_printable_ascii_and_means_the_same(value: object) -> None:
    text = to_json({"value": value})
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == {"value": str(value) if isinstance(value, Exception) else value}


class Stream(io.StringIO):
    """A stream that remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)

    @property
    def messages(self) -> list[str]:
        return [json.loads(line)["message"] for line in "".join(self.writes).splitlines()]


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    stream = Stream()
    handler = _Lines(stream, _Json())
    monkeypatch.setattr(logs, "_handler", handler)
    logger = logging.getLogger("test.logs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)


LOG = logging.getLogger("test.logs")


def test_event_without_an_event_loop_is_written_at_once(stream: Stream) -> None:
    event(LOG, "one", {"path": "/a"})
    assert [json.loads(line)["path"] for line in stream.writes[0].splitlines()] == ["/a"]


async def test_events_of_a_short_time_are_one_write(stream: Stream) -> None:
    for number in range(5):
        event(LOG, str(number), {})
    assert not stream.writes
    async with asyncio.timeout(20):
        while not stream.writes:  # noqa: ASYNC110  a stream wakes no one
            await asyncio.sleep(logs.BATCH_S / 2)
    assert len(stream.writes) == 1
    assert stream.messages == ["0", "1", "2", "3", "4"]


async def test_record_is_written_at_once_after_the_events_before_it(stream: Stream) -> None:
    event(LOG, "event", {})
    LOG.error("error")
    assert stream.messages == ["event", "error"]


async def test_events_that_wait_are_written_when_the_process_ends(stream: Stream) -> None:
    event(LOG, "event", {})
    logging.shutdown(logging._handlerList)  # type: ignore[attr-defined]  # what `logging` registers with atexit
    assert stream.messages == ["event"]


async def test_number_of_events_that_wait_is_bounded(stream: Stream) -> None:
    for _ in range(logs.MOST_LINES):
        event(LOG, "event", {})
    assert len(stream.messages) == logs.MOST_LINES


async def test_no_write_is_longer_than_a_pipe_takes_at_once(stream: Stream) -> None:
    """Longer ones of two workers could mix within a line."""
    for size in (10, 3000, 1000, 5000, 10, 10):
        event(LOG, "x" * size, {})
    LOG.info("end")
    assert [len(message) for message in stream.messages] == [10, 3000, 1000, 5000, 10, 10, 3]
    assert all(len(text) <= logs.ATOMIC_BYTES or text.count("\n") == 1 for text in stream.writes)
    assert all(text.endswith("\n") for text in stream.writes)
    assert len(stream.writes) < 7


def test_events_are_written_by_a_second_loop_after_the_first_was_left(stream: Stream) -> None:
    async def log(message: str, wait_s: float) -> None:
        event(LOG, message, {})
        await asyncio.sleep(wait_s)

    asyncio.run(log("left", 0))
    assert not stream.writes
    asyncio.run(log("next", 20 * logs.BATCH_S))
    assert stream.messages == ["left", "next"]


def test_level_of_the_logger_counts(stream: Stream) -> None:
    LOG.setLevel(logging.WARNING)
    event(LOG, "quiet", {})
    assert not stream.writes


async def test_closed_stream_stops_no_request(stream: Stream) -> None:
    stream.close()
    stream.write = io.StringIO.write.__get__(stream)  # type: ignore[method-assign]
    event(LOG, "lost", {})
    logs._handler.flush()  # type: ignore[union-attr]


@pytest.fixture
def configured(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    root, kept = logging.getLogger(), logging.getLogger().handlers[:]
    logs.configure("json")
    yield
    root.handlers[:] = kept
    logs._handler = None
    logging.getLogger("uvicorn.error").filters.clear()


@pytest.mark.parametrize(("error", "is_logged"), [(asyncio.CancelledError("timeout"), False), (ValueError("x"), True)])
def test_a_request_that_a_stop_gives_up_has_no_traceback(
    configured: None, capsys: pytest.CaptureFixture[str], error: BaseException, is_logged: bool
) -> None:
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    assert ("Exception in ASGI application" in capsys.readouterr().err) == is_logged

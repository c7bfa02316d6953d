"""Usage of past days in SQL: a SQLite file or a PostgreSQL database. Redis holds the present and the last weeks.

One row per day, subject and metric holds the count of that day, not a change of it. So writing a day again replaces its
numbers, and a repeated roll-up converges. A row of kind `all` with the metric `zone.<name>` says in which time zone the
day was counted.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Kind = Literal["user", "room", "all"]
"""Whose counters a row holds: a user's, a room's, or those of the whole installation."""

_WAIT_S = 10  # for another process that writes the SQLite file, and for PostgreSQL
_MOST_AT_ONCE = 500  # subjects in one query; SQLite takes 32,766 parameters, PostgreSQL 65,535

# In words that SQLite and PostgreSQL share; `?` becomes `%s` for psycopg. Days are texts, which both compare alike.
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS usage_days (
    kind TEXT NOT NULL, day TEXT NOT NULL, subject TEXT NOT NULL, metric TEXT NOT NULL, value BIGINT NOT NULL,
    PRIMARY KEY (kind, subject, day, metric))""",
    "CREATE INDEX IF NOT EXISTS usage_days_by_day ON usage_days (kind, day)",
    "CREATE TABLE IF NOT EXISTS usage_state (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
_WRITE = """INSERT INTO usage_days (kind, day, subject, metric, value) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (kind, subject, day, metric) DO UPDATE SET value = excluded.value"""
_READ = """SELECT day, subject, metric, value FROM usage_days
    WHERE kind = ? AND day BETWEEN ? AND ? AND subject IN ({}) ORDER BY subject, day, metric"""
_SET = """INSERT INTO usage_state (name, value) VALUES (?, ?)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value"""


class ArchiveError(Exception):
    """The archive cannot be used. The text is one line without credentials."""


@dataclass(frozen=True, slots=True)
class Row:
    """The count of one metric (`tokens.mint.ok`, `minutes.ok` in seconds) of one subject on one day."""

    day: date
    subject: str
    metric: str
    value: int


class Archive:
    """Reads and writes the rows of past days, in a thread of its own.

    `url` is `sqlite:///path` or `postgresql://...`. Nothing is opened before the first use. A lost connection is opened
    again by the next call. All methods raise ArchiveError.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive")

    async def write(self, kind: Kind, rows: Sequence[Row]) -> None:
        """Write rows; those of the same day, subject and metric are replaced. All or none."""
        words = [(kind, row.day.isoformat(), row.subject, row.metric, row.value) for row in rows]
        if words:
            await self._run(lambda cursor: cursor.executemany(self._sql(_WRITE), words))

    async def read(self, kind: Kind, subjects: Sequence[str], first: date, last: date) -> list[Row]:
        """Return the rows of some subjects in a span of days, both ends included, by subject and day."""

        def work(cursor: Any) -> list[Row]:
            rows: list[Row] = []
            for at in range(0, len(subjects), _MOST_AT_ONCE):
                some = subjects[at : at + _MOST_AT_ONCE]
                marks = ", ".join("?" * len(some))
                cursor.execute(self._sql(_READ.format(marks)), (kind, first.isoformat(), last.isoformat(), *some))
                rows += _rows(cursor.fetchall())
            return rows

        return await self._run(work)

    async def subjects(self, kind: Kind, first: date, last: date) -> list[str]:
        """Return the subjects that have rows in a span of days."""
        query = self._sql("SELECT DISTINCT subject FROM usage_days WHERE kind = ? AND day BETWEEN ? AND ?")

        def work(cursor: Any) -> list[str]:
            cursor.execute(query, (kind, first.isoformat(), last.isoformat()))
            return sorted(subject for (subject,) in cursor.fetchall())

        return await self._run(work)

    async def state(self, name: str) -> str | None:
        """Return a note of the roll-up, None if it was never set."""

        def work(cursor: Any) -> str | None:
            cursor.execute(self._sql("SELECT value FROM usage_state WHERE name = ?"), (name,))
            found = cursor.fetchone()
            return None if found is None else str(found[0])

        return await self._run(work)

    async def set_state(self, name: str, value: str) -> None:
        """Set a note of the roll-up."""
        await self._run(lambda cursor: cursor.execute(self._sql(_SET), (name, value)))

    async def close(self) -> None:
        """Close the connection, after what was asked before."""
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[Any], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)

    def _transact(self, work: Callable[[Any], T]) -> T:
        """Do work in one transaction. After an error the connection is closed, so that the next call opens another."""
        try:
            if self._connection is None:
                self._connection = self._open()
            with closing(self._connection.cursor()) as cursor:
                result = work(cursor)
            self._connection.commit()
        except _errors() as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            raise ArchiveError(f"the archive cannot be used: {_line(error)}") from None  # the URL may hold a password
        return result

    def _open(self) -> Any:
        if self._is_sqlite:
            path = Path(self._url.removeprefix("sqlite:///"))
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            connection: Any = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")  # so that reports read while the roll-up writes
        else:
            import psycopg  # an extra; 60 ms

            connection = psycopg.connect(self._url, connect_timeout=_WAIT_S)
        with closing(connection.cursor()) as cursor:
            for statement in _SCHEMA:
                cursor.execute(statement)
        connection.commit()
        return connection

    @property
    def _is_sqlite(self) -> bool:
        return self._url.startswith("sqlite:")

    def _sql(self, query: str) -> str:
        return query if self._is_sqlite else query.replace("?", "%s")


def _rows(found: Iterable[tuple[str, str, str, int]]) -> list[Row]:
    return [Row(date.fromisoformat(day), subject, metric, value) for day, subject, metric, value in found]


def _errors() -> tuple[type[Exception], ...]:
    """Return what the drivers raise. psycopg is an extra and may be missing; then so is its error."""
    try:
        import psycopg
    except ImportError:
        return sqlite3.Error, OSError, ImportError
    return sqlite3.Error, OSError, psycopg.Error


def _line(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "PostgreSQL needs psycopg: pip install 'hms-gateway[postgres]'"
    return " ".join(str(error).split())[:300] or type(error).__name__

"""Installations under load, and the table of docs/reliability.md."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator

import pytest

from tests.chaos import people
from tests.chaos.table import Row, Table, row_of, title_of
from tests.chaos.trial import Measured, warm
from tests.servers import Installation


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A gateway of two workers, with Redis and 100ms."""
    made = Installation(tmp_path_factory.mktemp("chaos"), workers=2, policy=people.POLICY)
    people.settings(made)
    with made as running:
        asyncio.run(warm(running))
        yield running


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """The rows of this run, which CHAOS_WRITE puts into the page."""
    made = Table()
    yield made
    if os.environ.get("CHAOS_WRITE"):
        made.write()


@pytest.fixture
def row(request: pytest.FixtureRequest, table: Table) -> Row:
    """Adds the row of this test, whose docstring says what is done."""
    test = request.node.function

    def add(measured: Measured, *, may_lose: str) -> None:
        title = title_of(test.__name__)
        table.rows[title] = row_of(title, inspect.getdoc(test) or "", measured, may_lose)
        print(table.rows[title])

    return add

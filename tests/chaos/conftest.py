"""Installations under load, and the table of docs/reliability.md."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos import people
from tests.chaos.table import Row, Table, row_of, title_of
from tests.chaos.trial import Measured, warm
from tests.e2e.policies import roomy
from tests.servers import HOST, Installation, Valkey


@contextmanager
def start(
    folder: Path, prepare: Callable[[Installation], None] = lambda _: None, *, valkey: Valkey | None = None
) -> Iterator[Installation]:
    """Run a gateway of two workers, with Redis and 100ms, that has been under load. `prepare` changes its settings.

    The workers are spawned, as in production: forked ones share memory, which then seems to grow.
    """
    made = Installation(folder, workers=2, policy=people.POLICY, valkey=valkey, real=True)
    people.settings(made)
    prepare(made)
    with made as running:
        asyncio.run(warm(running))
        yield running


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation for faults that leave nothing behind."""
    with start(tmp_path_factory.mktemp("chaos")) as running:
        yield running


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A gateway behind proxies of this machine, whose forwarded addresses it believes."""
    installation = Installation(tmp_path_factory.mktemp("smuggling"), workers=2, policy=roomy())
    installation.env |= {"GATEWAY_TRUSTED_PROXIES": f"{HOST}/32"}
    with installation as running:
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
    """Adds the row of this test, whose docstring says what is done; it may have figures in braces."""
    test = request.node.function

    def add(measured: Measured, *, may_lose: str, **figures: float) -> None:
        title = title_of(test.__name__)
        table.rows[title] = row_of(title, (inspect.getdoc(test) or "").format(**figures), measured, may_lose)
        print(table.rows[title])

    return add

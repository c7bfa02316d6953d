"""Alerts, dashboard and docs/operations.md name metrics that the gateway has, and each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from gateway.cli import cli
from gateway.metrics.instruments import Instruments, _Shared
from gateway.metrics.readings import Readings
from gateway.metrics.slots import Slot
from gateway.metrics.tally import Tally
from gateway.outgoing.control import EndpointState
from tests.unit.gateway.metrics.test_tally import CALL, decision, limit_state

ROOT = Path(__file__).parents[2]
ALERTS = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
TESTS = (ROOT / "deploy" / "prometheus" / "alerts.test.yml").read_text()
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "gateway.json").read_text())
PAGE = (ROOT / "docs" / "operations.md").read_text()
BILLING = EndpointState("billing", "billing.example", [], 1, 2, 3, 4, None, None, "", None)
NAME = re.compile(r"\bgateway_[a-z0-9_]+")


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of all series that a gateway can have."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    instruments, tally = Instruments(Slot(tmp_path, 0)), Tally()
    tally.responded({"method": "GET", "path_template": "/"}, 200, 0.001)
    tally.decided(decision(limit_state(1)))
    tally.called(CALL, "ok", 0.1)
    instruments.flush(tally)
    instruments.set(event_loop_lag_seconds=0, password_hashes_waiting=0, redis_breaker_open=0, hms_breaker_open=0)
    shared = Readings(up=True, is_persisted=True, events={"received": 1}, budgets={"b": 0.5}, outgoing=[BILLING])
    text = instruments.render(shared)
    instruments.close()
    return {re.split("[{ ]", line)[0] for line in text.decode().splitlines() if not line.startswith("#")}


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def test_alerts_and_dashboard_name_only_series_that_exist(samples: set[str]) -> None:
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    assert len(queries) > 30
    for text in (ALERTS, TESTS, *queries):
        assert set(NAME.findall(text)) <= samples, text


def test_what_all_gateways_say_alike_is_neither_added_up_nor_shown_once_for_each() -> None:
    """Gateways share one Redis, and each says what is in it."""
    readings = Readings(up=True, is_persisted=True, events={"received": 1}, budgets={"b": 0.5}, outgoing=[BILLING])
    shared = {one.name for one in _Shared(readings).collect()} - {"gateway_build", "gateway_redis_up"}
    expressions = re.findall(r"expr: (?:\|\n((?: {10}.*\n)+)|(.*))", ALERTS)
    queries = [a or b for a, b in expressions] + [target["expr"] for panel in panels() for target in panel["targets"]]
    found = set()
    for query in queries:
        for name in NAME.finditer(query):
            if name[0].removesuffix("_total") in shared:
                around = re.findall(r"\b(sum|max|min|topk)\b", query[: name.start()])
                assert around[-1:] in (["max"], ["min"]), query
                found.add(name[0])
    assert len(found) > 15


def test_operations_page_names_exactly_the_metrics(samples: set[str]) -> None:
    rows = re.findall(r"^\| (`gateway_[^|]*)\|", PAGE, re.MULTILINE)
    listed = [name for row in rows for name in NAME.findall(row)]
    assert len(listed) == len(set(listed))
    assert set(listed) == {re.sub("_(bucket|sum|count)$", "", name) for name in samples}


def test_dashboard_shows_every_number_that_an_alert_is_about() -> None:
    shown = {name for panel in panels() for target in panel["targets"] for name in NAME.findall(target["expr"])}
    # These are states with an alert of their own, which is enough.
    assert set(NAME.findall(ALERTS)) - shown == {"gateway_redis_persistence_ok"}


def test_every_panel_has_a_unit_and_its_own_id() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}, panel["title"]


def test_every_alert_has_a_test_and_says_what_to_do() -> None:
    alerts = re.findall(r"^      - alert: (\w+)$", ALERTS, re.MULTILINE)
    assert len(alerts) == len(set(alerts)) > 20
    assert set(re.findall(r"^  - name: (Gateway\w+)$", TESTS, re.MULTILINE)) == set(alerts)
    healthy = TESTS.partition("a healthy gateway")[2]
    assert re.findall(r"alertname: (\w+), exp_alerts: \[\]", healthy) == alerts
    assert re.findall(r"^### (Gateway\w+)$", PAGE, re.MULTILINE) == alerts


def test_every_limit_of_an_alert_stands_in_its_description() -> None:
    sections = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    for section in sections:
        name, _, text = section.partition("\n")
        assert "What to do:" in text, name


@pytest.mark.parametrize(("page", "more_than"), [("operations", 5), ("deploy", 3)])
def test_page_names_only_commands_that_exist(page: str, more_than: int) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    code = [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]
    code += re.findall(r"^    (.+)$", text, re.MULTILINE)
    code = [re.sub(r"\bgateway --env-file \S+", "gateway", one) for one in code]  # of the group, before a command
    # "-n gateway" is a namespace of Kubernetes, and a user of Redis may have that name.
    lines = {
        found
        for one in code
        for found in re.findall(r"(?<!-n )(?<!SETUSER )\bgateway ((?:[a-z]|--[a-z])[^`\"#&]*)", one)
    }
    assert len(lines) > more_than
    for line in lines:
        command: click.Command = cli
        context = click.Context(cli)
        for word in line.split():
            if isinstance(command, click.Group) and not word.startswith("-"):
                found = command.get_command(context, word)
                assert found is not None, line
                command = found
            elif word.startswith("-"):
                assert word in {name for option in command.params for name in option.opts}, line

"""Traces of real processes arrive at a collector, or are lost without harm."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.collector import Collector, attributes_of
from tests.e2e.policies import roomy
from tests.e2e.workers import TELLS_WORKERS_APART, on_every_worker
from tests.servers import HOST, Installation, wait_until

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CREATE, MINT = "POST /api/rooms", "POST /api/rooms/{room_id}/token"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation behind a trusted proxy, which this test is. Half of its settings are in `.env`."""
    running = Installation(tmp_path_factory.mktemp("traced"), workers=2, policy=roomy(), real=True)
    running.env |= {
        "GATEWAY_TRACES": "proxied",
        "GATEWAY_TRUSTED_PROXIES": f"{HOST}/32",
        "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "",
    }
    (running.folder / ".env").write_text(
        f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\n"
        "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20key-of-the-collector\n"
        "OTEL_EXPORTER_OTLP_COMPRESSION=gzip\n"
        "OTEL_BSP_SCHEDULE_DELAY=100\n"
    )
    with running:
        running.add_users(hanna="host")
        yield running


def wait_for(collector: Collector, request_id: str) -> Span:
    """Return the span of a request once it has arrived."""

    def found() -> list[Span]:
        return [one for one in collector.spans if attributes_of(one).get("gateway.request_id") == request_id]

    wait_until(lambda: bool(found()), "the span has arrived")
    [span] = found()
    return span


def test_a_trace_leads_from_the_proxy_through_redis_to_100ms(traced: Installation, collector: Collector) -> None:
    with traced.client_of("hanna") as client:
        created = client.post("/api/rooms", json={}, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        room = created.json()["room"]["id"]
        minted = client.post(f"/api/rooms/{room}/token", json={})
    create = wait_for(collector, created.headers["x-request-id"])
    assert (create.name, create.trace_id.hex(), create.parent_span_id.hex()) == (CREATE, TRACE, SPAN)
    assert attributes_of(create)["http.response.status_code"] == 201
    steps = sorted(collector.children_of(create), key=lambda span: span.start_time_unix_nano)
    assert [step.name for step in steps] == ["redis", "redis", "POST /rooms", "redis", "redis"]
    for step in steps:
        assert create.start_time_unix_nano <= step.start_time_unix_nano <= step.end_time_unix_nano
        assert step.end_time_unix_nano <= create.end_time_unix_nano
    mint = wait_for(collector, minted.headers["x-request-id"])
    assert (mint.name, mint.parent_span_id, mint.trace_id != create.trace_id) == (MINT, b"", True)
    [flush] = collector.children_of(mint)
    assert attributes_of(flush)["db.operation.batch.size"] >= 3
    lines = [json.loads(line) for line in traced.log(minted).splitlines()]
    of_mint = [line for line in lines if line.get("request_id") == minted.headers["x-request-id"]]
    assert {line["trace_id"] for line in of_mint} == {mint.trace_id.hex()}
    resource = next(resource for resource, span in collector.received if span is mint)
    assert resource["service.name"] == "hms-gateway"
    assert collector.headers[0]["authorization"] == "Bearer key-of-the-collector"


def test_no_span_holds_a_user_a_room_or_a_secret(traced: Installation, collector: Collector) -> None:
    login = traced.log_in("hanna")
    with traced.client(login["access_token"]) as client:
        room = client.post("/api/rooms", json={"name": "Board meeting"}).json()["room"]["id"]
        invite = client.post(f"/api/rooms/{room}/invites", json={}).json()["code"]
        refused = client.post(f"/api/invites/{invite}x/accept", json={})
        minted = client.post(f"/api/rooms/{room}/token", json={})
    wait_for(collector, refused.headers["x-request-id"])
    wait_for(collector, minted.headers["x-request-id"])
    sent = "\n".join(f"{resource} {span}" for resource, span in collector.received)
    secret = [traced.passwords["hanna"], login["access_token"], login["refresh_token"], invite, minted.json()["token"]]
    secret += [traced.env["GATEWAY_SECRET"], traced.env["HMS_APP_SECRET"]]
    for text in (*secret, "hanna", "Board", login["user"]["id"], login["session_id"], room, HOST):
        assert text not in sent


@TELLS_WORKERS_APART
def test_every_worker_sends_its_spans_and_health_checks_are_none(traced: Installation, collector: Collector) -> None:
    token = traced.log_in("hanna")["access_token"]
    with on_every_worker(traced, token) as clients:
        answers = [client.get("/api/auth/me") for client in clients]
        for client in clients:
            assert client.get("/health/ready").status_code == 200
    for answer in answers:
        wait_for(collector, answer.headers["x-request-id"])
    assert len({resource["process.pid"] for resource, span in collector.received}) == 2
    assert not [span.name for span in collector.spans if "health" in span.name]


def test_without_a_collector_requests_are_served_and_a_stop_is_not_delayed(
    traced: Installation, collector: Collector
) -> None:
    token = traced.log_in("hanna")["access_token"]
    collector.silent = True
    before = collector.requests
    with traced.client(token) as client:
        assert client.get("/api/auth/me").status_code == 200
        wait_until(lambda: collector.requests > before, "the collector has been asked")
        for _ in range(20):
            begun = time.monotonic()
            assert client.get("/api/auth/me").status_code == 200
            assert time.monotonic() - begun < 5, "an export waits for 10 s"
    begun = time.monotonic()
    traced.gateway.stop()
    assert time.monotonic() - begun < 9, "an export waits for 10 s"
    collector.silent = False


def test_a_stop_sends_what_is_queued(traced: Installation, collector: Collector) -> None:
    env = traced.folder / ".env"
    env.write_text(env.read_text().replace("OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_BSP_SCHEDULE_DELAY=60000"))
    traced.start_gateway()
    with traced.client_of("hanna") as client:
        answer = client.get("/api/auth/me")
    traced.gateway.stop()
    span = wait_for(collector, answer.headers["x-request-id"])
    assert span.name == "GET /api/auth/me"

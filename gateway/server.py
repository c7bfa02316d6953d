"""Runs the gateway on uvicorn."""

import asyncio
import gc
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from multiprocessing.connection import wait as wait_for_any
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess, multiprocess

from gateway import logs
from gateway.metrics.slots import shared_folder
from gateway.setting_values import SettingsError
from gateway.settings import Settings
from gateway.traces.recorder import check_extra

# A name, not an import: the process that supervises workers needs neither this module nor Litestar. Without httptools
# (on Windows) h11 bounds sizes but not times.
HTTP = "gateway.http.protocol:BoundedProtocol" if find_spec("httptools") else "h11"
MOST_H11_HEAD_BYTES = 32 * 1024
MOST_UNSENT_BYTES = 128 * 1024
GRACE_S = 8  # a request takes 5 s at most; without a bound one slow body would delay a stop forever


def run(settings: Settings) -> None:
    """Serve the gateway until SIGINT or SIGTERM. Raises: SettingsError"""
    check_extra(settings)
    logs.configure(settings.log_format)
    check_free(settings.host, settings.port, ways="--port or GATEWAY_PORT")
    if settings.operator_bind is not None:
        check_free(*settings.operator_bind, ways="GATEWAY_OPERATOR_BIND")
    options: dict[str, Any] = {
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "workers": settings.workers,
        "http": HTTP,
        "h11_max_incomplete_event_size": MOST_H11_HEAD_BYTES,
        "ws": "none",  # the gateway has no WebSocket
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # uvicorn would trust X-Forwarded-For from every local peer
        "timeout_graceful_shutdown": GRACE_S,
    }
    if find_spec("resource"):  # not on Windows
        from gateway.http.connections import raise_file_limit

        raise_file_limit()
    config = uvicorn.Config("gateway.app:from_env", **options)
    if settings.workers > 1:
        with shared_folder(workers=settings.workers) if settings.metrics_token else nullcontext():
            _Workers(config, _sockets(config, settings)).run()
        return
    gc.disable()  # until `from_env`: collections took 50 of the 650 ms of a start, and free nothing
    server = _Server(config)
    if getattr(signal, "SIGHUP", None) and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, server.handle_exit)  # by default the process would end with requests under way
    with suppress(KeyboardInterrupt):
        server.run(_sockets(config, settings))
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _sockets(config: uvicorn.Config, settings: Settings) -> list[socket.socket]:
    """Return the sockets to accept on: the public one and, if there is one, that of operators."""
    found = [config.bind_socket()]
    if settings.operator_bind is not None:
        host, port = settings.operator_bind
        found.append(uvicorn.Config(config.app, host=host, port=port, log_config=None).bind_socket())
    for listener in found:
        keep_little(listener)
    return found


def keep_little(listener: socket.socket) -> None:
    """Let the kernel keep little of what a client does not take; connections inherit it from their listener.

    It would keep 3 MB of answers for a client that reads none: 1.5 GB for 500. What is on its way does not count.
    """
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux, macOS
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MOST_UNSENT_BYTES)


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, but serve first who has connected: the kernel resets connections that no process has accepted."""
        waiting = list(_accepted(sockets or ()))
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """Make a protocol as uvicorn does for the connections that it accepts."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def _accepted(listeners: Iterable[socket.socket]) -> Iterator[socket.socket]:
    """Accept the connections that wait."""
    for listener in listeners:
        listener.setblocking(False)
        with suppress(OSError):  # that no more wait
            while True:
                yield listener.accept()[0]


class _Worker(multiprocess.Process):
    def start(self) -> None:
        """Start it, and leave it the only one that holds its end of the pipe.

        While the supervisor held it too, a worker that died during a health check was replaced after 5 s.
        """
        super().start()
        self.child_conn.close()

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = _Server(self.config)
        return self._server


multiprocess.Process = _Worker  # type: ignore[misc]  # the supervisor has no parameter for it


class _Exit(threading.Event):
    """Tells the supervisor to exit; its `wait` ends early when a worker has died, which the supervisor then replaces.

    A worker that dies before the second `wait` after its start ends none: one that dies at each start is started no
    more often than without this.
    """

    def __init__(self, workers: list[multiprocess.Process]) -> None:
        super().__init__()
        self._workers = workers
        self._known: list[multiprocess.Process] = []

    def wait(self, timeout: float | None = None) -> bool:
        watched = [one.process.sentinel for one in self._workers if one in self._known]
        self._known = list(self._workers)
        if not watched:
            return super().wait(timeout)
        wait_for_any(watched, timeout)
        return self.is_set()


class _Workers(Multiprocess):
    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.should_exit = _Exit(self.processes)

    def terminate_all(self) -> None:
        """Close the listening sockets first: a connection that they accept is served by no worker any more."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def check_free(host: str, port: int, *, ways: str) -> None:
    """Check that an address is free: uvicorn's workers would log tracebacks in a loop. Raises: SettingsError"""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another with {ways}"
            ) from error

"""Runs the gateway on uvicorn."""

import gc
import socket
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from gateway import logs
from gateway.metrics.slots import shared_folder
from gateway.setting_values import SettingsError
from gateway.settings import Settings

# A name, not an import: the process that supervises workers needs neither this module nor Litestar. Without httptools
# (on Windows) h11 bounds sizes but not times.
HTTP = "gateway.http.protocol:BoundedProtocol" if find_spec("httptools") else "h11"
MOST_H11_HEAD_BYTES = 32 * 1024
GRACE_S = 8  # a request takes 5 s at most; without a bound one slow body would delay a stop forever


def run(settings: Settings) -> None:
    """Serve the gateway until SIGINT or SIGTERM. Raises: SettingsError"""
    logs.configure(settings.log_format)
    check_free(settings.host, settings.port, ways="--port or GATEWAY_PORT")
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
    if settings.workers == 1:
        gc.disable()  # until `from_env`: collections took 50 of the 650 ms of a start, and free nothing
        uvicorn.run("gateway.app:from_env", **options)
    else:
        config = uvicorn.Config("gateway.app:from_env", **options)
        with shared_folder() if settings.metrics_token else nullcontext():
            _Workers(config, [config.bind_socket()]).run()


class _Workers(Multiprocess):
    def terminate_all(self) -> None:
        """Close the listening socket first: a connection that it accepts is served by no worker any more."""
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

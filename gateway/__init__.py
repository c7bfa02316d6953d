"""An authenticated, rate-limited gateway in front of 100ms live video."""

import sys
from typing import Any

__version__ = "0.1.0"

# These import what they can do without if it is installed, and go on without it on ImportError. None makes that import
# fail (docs.python.org/3/reference/import.html#the-module-cache).
REDIS_DOES_WITHOUT = ("opentelemetry.metrics", "opentelemetry.sdk.metrics")  # of the extra `traces`; takes 64 ms
_UNUSED = (
    *REDIS_DOES_WITHOUT,
    "litestar.plugins.opentelemetry",
    "httpx._main",  # with rich and pygments: 40 ms of the CPU of a worker's start, of 650, and 3 MiB
)
_modules: dict[str, Any] = sys.modules
_modules.update({name: None for name in _UNUSED if name not in _modules})

"""The connections to Redis."""

import sys
from typing import Any

# redis-py imports OpenTelemetry where the extra `traces` has brought it, in 64 ms, and so does Litestar; both do
# without it on ImportError. None makes that import fail (docs.python.org/3/reference/import.html#the-module-cache).
# Not in the package above, because `gateway.client` is part of programs that may use it.
OPEN_TELEMETRY = ("opentelemetry.metrics", "opentelemetry.sdk.metrics")
_modules: dict[str, Any] = sys.modules
for _name in (*OPEN_TELEMETRY, "litestar.plugins.opentelemetry"):
    _modules.setdefault(_name, None)

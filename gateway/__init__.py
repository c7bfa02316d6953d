"""An authenticated, rate-limited gateway in front of 100ms live video."""

import sys
from typing import Any

__version__ = "0.2.0"

# httpx imports its command line, with rich and pygments, where these are installed, and does without it on ImportError.
# None makes that import fail (docs.python.org/3/reference/import.html#the-module-cache). Saves a worker 40 ms of CPU
# at the start, of 650, and 3 MiB.
_modules: dict[str, Any] = sys.modules
_modules.setdefault("httpx._main", None)

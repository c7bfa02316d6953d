"""A second listener for operators: what is theirs does not exist on the public one."""

from litestar.types import Scope


class OperatorListener:
    """Hides `/operator` and `/api/admin` from every other listener than that of a port.

    They are distinguished by their port: behind port forwarding a process does not see the address it was called at.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def hides(self, scope: Scope) -> bool:
        """Tell whether a request is for something that its listener does not have."""
        server = scope.get("server")
        if server is not None and server[1] == self._port:
            return False
        parts = [part for part in scope["path"].split("/") if part]  # as the router splits
        return parts[:1] == ["operator"] or parts[:2] == ["api", "admin"]

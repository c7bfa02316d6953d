"""GET /metrics, for Prometheus. There is no such route without GATEWAY_METRICS_TOKEN."""

from litestar import Response, get

from auth.errors import InvalidToken
from gateway.http.access import public
from gateway.http.context import Call
from gateway.metrics.monitor import PATH
from gateway.routes.services import Injected


@get(PATH, opt=public())
async def metrics(request: Call, services: Injected) -> Response[bytes]:
    """Return the metrics of all processes in the text format of Prometheus."""
    monitor = services.monitor
    if monitor is None or not monitor.admits(request.scope["headers"]):
        raise InvalidToken("The Authorization header must be: Bearer, one space, the token of GATEWAY_METRICS_TOKEN.")
    return Response(await monitor.scrape(), media_type="text/plain; version=0.0.4")

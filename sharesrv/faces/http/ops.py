"""For operators: is it alive, does it take work, what does it measure (PROTOCOL 3.3)."""

from __future__ import annotations

from typing import Any, Final

from litestar import MediaType, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from sharesrv import metrics
from sharesrv.faces.http.office import TheOffice
from sharesrv.store.base import StoreFailed


@get("/healthz", tags=["operating"], summary="Whether the process is alive", sync_to_thread=False)
def healthz() -> dict[str, str]:
    return {"status": "alive"}


@get("/readyz", tags=["operating"], summary="Whether the database can be reached and the server takes work", raises=[])
async def readyz(office: TheOffice) -> Response[dict[str, Any]]:
    if office.ledger.stopping:
        return Response({"status": "draining"}, status_code=503)
    try:
        await office.reader.ping()
    except StoreFailed:
        return Response({"status": "the database cannot be reached"}, status_code=503)
    return Response({"status": "ready"}, status_code=200)


@get("/metrics", tags=["operating"], summary="Prometheus metrics", media_type=MediaType.TEXT)
async def expose(office: TheOffice) -> Response[bytes]:
    metrics.OPEN_OFFERS.set(await office.reader.open_offers())
    return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)


HANDLERS: Final = [healthz, readyz, expose]

"""Every metric, once. Names and labels are an interface: operators' dashboards read them."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry()
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

CONNECTIONS: Final = Gauge(
    "sharesrv_connections", "WebSocket connections, with or without a handshake", registry=REGISTRY
)
HANDSHAKES: Final = Counter(
    "sharesrv_handshakes", "Handshakes by kind and error (0 is done)", ["kind", "error"], registry=REGISTRY
)
FRAMES_IN: Final = Counter("sharesrv_frames_in", "Frames from clients by action", ["action"], registry=REGISTRY)
FRAMES_OUT: Final = Counter(
    "sharesrv_frames_out", "Pushes to apps and devices by action", ["action"], registry=REGISTRY
)
ANSWERS: Final = Counter("sharesrv_answers", "Answers by error and result", ["error", "result"], registry=REGISTRY)
OPEN_OFFERS: Final = Gauge("sharesrv_open_offers", "Offers that wait for their answer", registry=REGISTRY)
BATCH: Final = Histogram(
    "sharesrv_batch_commands", "Commands a batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512), registry=REGISTRY
)
COMMIT: Final = Histogram("sharesrv_commit_seconds", "Time of a commit", buckets=_SECONDS, registry=REGISTRY)
QUEUE: Final = Gauge("sharesrv_queue_commands", "Commands that wait for the next batch", registry=REGISTRY)
PUSH: Final = Histogram(
    "sharesrv_share_push_seconds", "From a share's arrival to its push", buckets=_SECONDS, registry=REGISTRY
)
END: Final = Histogram(
    "sharesrv_grant_end_seconds",
    "From a grant's end to the last holder being told",
    buckets=_SECONDS,
    registry=REGISTRY,
)

"""The tail side: bundles served over gRPC with Open Inference (KServe V2) messages.

    models.py    what is served: each bundle's full model and every tail
    batcher.py   requests of several clients run together, with a bound on the wait; admission
    on_ray.py    the same on replicas of Ray Serve (`edgekit[ray]`)
    service.py   the protocol: checks, errors to codes, token
    metrics.py   counters for Prometheus
    server.py    start, health, drain on SIGTERM

Needs `edgekit[server]`.
"""

from __future__ import annotations

from edgekit.serve.server import Options, serve

__all__ = ["Options", "serve"]

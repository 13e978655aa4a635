"""Counters for Prometheus, in a registry of their own: two servers in one process do not mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "edgekit_requests", "Requests by model and how they ended", ("model", "code"), registry=self.registry
        )
        self.residence = Histogram(
            "edgekit_residence_seconds", "From the last byte read to the answer", ("model",), buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.waited = Histogram(
            "edgekit_queue_seconds", "Wait for a worker", ("model",), buckets=_SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "edgekit_batch_samples", "Samples run together", ("model",), buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )  # fmt: skip
        self.queue = Gauge("edgekit_queue_length", "Requests that wait", ("model",), registry=self.registry)
